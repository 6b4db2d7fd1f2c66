/** @file Streams over time, a line a replica. */

import { h, svg } from '../dom.js';

const HEIGHT = 180;
const LEFT = 34;
const BOTTOM = 22;
const TOP = 10;

/**
 * @param {{at: number, replicas: Record<string, number>}[]} samples Oldest first.
 * @param {number} width In pixels: letters have the same size on every screen.
 */
export function chart(samples, width) {
  const ids = [...new Set(samples.flatMap(({ replicas }) => Object.keys(replicas)))].sort();
  const most = nice(Math.max(1, ...samples.flatMap(({ replicas }) => Object.values(replicas))));
  const from = samples[0]?.at ?? 0;
  const to = samples.at(-1)?.at ?? 0;
  const span = Math.max(60_000, to - from);
  const x = (/** @type {number} */ at) => width - ((to - at) / span) * (width - LEFT);
  const y = (/** @type {number} */ count) => HEIGHT - BOTTOM - (count / most) * (HEIGHT - BOTTOM - TOP);
  const grid = [0, most / 2, most].map((count) => [
    svg('line', { x1: LEFT, x2: width, y1: y(count), y2: y(count), class: 'grid' }),
    svg('text', { x: LEFT - 8, y: y(count) + 4, 'text-anchor': 'end' }, `${count}`),
  ]);
  const ago = [0, 0.5, 1].map((part) =>
    svg(
      'text',
      {
        x: width - part * (width - LEFT),
        y: HEIGHT - 4,
        'text-anchor': part === 0 ? 'end' : part === 1 ? 'start' : 'middle',
      },
      part === 0 ? 'now' : `${Math.round((part * span) / 1_000)} s ago`,
    ),
  );
  const lines = ids.map((id, index) =>
    svg('path', {
      class: `line line-${index % 6}`,
      d: path(
        samples.flatMap(({ at, replicas }) => (replicas[id] === undefined ? [null] : [[x(at), y(replicas[id])]])),
      ),
    }),
  );
  const now = samples.at(-1)?.replicas ?? {};
  const label = ids.map((id, index) => `replica ${index + 1} has ${now[id] ?? 0}`).join(', ');
  return h(
    'figure',
    { class: 'chart' },
    svg(
      'svg',
      { viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': `Streams per replica: ${label}` },
      grid.flat(),
      ago,
      lines,
    ),
    h(
      'figcaption',
      { class: 'row wrap small' },
      ids.map((id, index) =>
        h('span', { class: `key line-${index % 6}` }, `…${id.slice(-6)}: `, h('strong', {}, now[id] ?? 'gone')),
      ),
    ),
  );
}

/** @param {(number[] | null)[]} points */
function path(points) {
  let pen = 'M';
  return points
    .map((point) => {
      if (!point) return ((pen = 'M'), '');
      const [px = 0, py = 0] = point;
      const step = `${pen}${px.toFixed(1)} ${py.toFixed(1)}`;
      pen = 'L';
      return step;
    })
    .join('');
}

/** The next even number that is easy to halve. @param {number} count */
function nice(count) {
  const unit = 10 ** Math.floor(Math.log10(count));
  return Math.max(2, [1, 2, 4, 6, 10].map((one) => one * unit).find((one) => one >= count) ?? count);
}
