/** @file What an operator looks at: streams, limits, the queue, what runs. */

import { h, plural, put, repeat, time } from '../dom.js';
import { chart } from './chart.js';

const EVERY_MS = 2_000;
const SAMPLES = 150;

/** What was seen since the console was opened: kept when the page is left. @type {{at: number, replicas: Record<string, number>}[]} */
const samples = [];

/** @param {import('../main.js').Context} context */
export function adminPage({ account, signal }) {
  const { api } = account;
  if (!account.isAdmin)
    return h(
      'div',
      { class: 'page' },
      h('h1', {}, 'Administration'),
      h('p', {}, 'This page is for admins. The demo user “Admin” is one.'),
    );
  const figures = h('dl', { class: 'figures' });
  const streams = h('div');
  const queue = h('tbody');
  const workers = h('div', { class: 'stack' });
  const failed = h('p', { class: 'bad', role: 'status' });
  const figure = (/** @type {string} */ name, /** @type {any} */ value, /** @type {string} */ note = '') =>
    h(
      'div',
      { class: 'card' },
      h('dt', {}, name),
      h(
        'dd',
        {},
        h('strong', {}, Number(value ?? 0).toLocaleString()),
        note && h('span', { class: 'muted small' }, note),
      ),
    );
  const look = async () => {
    if (document.hidden) return;
    try {
      const [stats, depth, running] = await Promise.all([api.streamStats(), api.queue(), api.workers()]);
      if (signal.aborted) return;
      const { cluster } = stats;
      samples.push({
        at: Date.now(),
        replicas: Object.fromEntries(
          cluster.perReplica.map((/** @type {any} */ one) => [one.id, one.activeConnections]),
        ),
      });
      samples.splice(0, samples.length - SAMPLES);
      put(
        figures,
        figure('Streams', cluster.activeConnections, ` on ${plural(cluster.replicas, 'replica')}`),
        figure('Deliveries', cluster.metrics.totalMessagesSent),
        figure('Limits hit', cluster.limits_rejected),
        figure('Resumed', cluster.reconnects),
        figure(
          'Jobs waiting',
          depth.queued + depth.interrupted,
          depth.oldest_wait_seconds ? ` for up to ${Math.round(depth.oldest_wait_seconds)} s` : '',
        ),
        figure('Jobs running', depth.running),
        figure('Given up', depth.parked),
      );
      put(streams, chart(samples, streams.clientWidth));
      put(
        queue,
        depth.operations.map((/** @type {any} */ one) =>
          h(
            'tr',
            {},
            h('td', {}, `${one.bundle}.${one.operation}`),
            ...['queued', 'due', 'retrying', 'running'].map((key) => h('td', {}, one[key].toLocaleString())),
          ),
        ),
      );
      if (!depth.operations.length)
        put(queue, h('tr', {}, h('td', { colspan: 5, class: 'muted' }, 'Nothing waits or runs')));
      put(workers, running.workers.map(worker));
      failed.textContent = '';
    } catch (error) {
      failed.textContent = `Not up to date: ${/** @type {any} */ (error).message}`;
    }
  };
  repeat(look, EVERY_MS, signal);
  const head = (/** @type {string[]} */ ...names) =>
    h('thead', {}, h('tr', {}, ...names.map((name) => h('th', { scope: 'col' }, name))));
  return h(
    'div',
    { class: 'page wide' },
    h('h1', {}, 'Administration'),
    failed,
    figures,
    h('section', { class: 'card' }, h('h2', {}, 'Streams per replica'), streams),
    h(
      'section',
      {},
      h('h2', {}, 'Queue'),
      h(
        'div',
        { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Queue' },
        h('table', {}, head('Operation', 'Queued', 'Due', 'Retrying', 'Running'), queue),
      ),
    ),
    h('section', {}, h('h2', {}, 'Workers'), workers),
  );
}

/** @param {any} worker */
function worker({ id, started_at, jobs }) {
  return h(
    'div',
    { class: 'card' },
    h(
      'div',
      { class: 'row wrap' },
      h('strong', {}, 'Worker ', h('code', {}, id.slice(-8))),
      h('span', { class: 'muted small' }, 'since ', time(started_at, 'full')),
    ),
    jobs.length
      ? h(
          'ul',
          { class: 'lines' },
          jobs.map((/** @type {any} */ job) =>
            h(
              'li',
              {},
              h('span', { class: 'grow' }, `${job.bundle}.${job.operation}`),
              h('span', { class: 'muted small' }, `of ${job.owner}, since `, time(job.started_at)),
            ),
          ),
        )
      : h('p', { class: 'muted small' }, 'Idle'),
  );
}
