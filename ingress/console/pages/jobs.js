/** @file Jobs as they go on, and the upload that begins an import. */

import { bdi, button, complain, h, listen, plural, progress, put, time } from '../dom.js';
import { icon } from '../icons.js';

/**
 * @import { Job } from '../../../client/src/wire.js'
 * @import { Room } from '../room.js'
 */

/** @param {import('../main.js').Context} context */
export function jobsPage({ room, signal }) {
  const list = h('ul', { class: 'jobs' });
  const none = h('p', { class: 'empty' }, 'No jobs yet. Import a Slack export, and this is where it can be watched.');
  /** Cards by job: what is unfolded stays so. @type {Map<string, ReturnType<typeof jobCard>>} */
  const cards = new Map();
  const show = () => {
    const jobs = [...room.jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
    for (const job of jobs) {
      const card = cards.get(job.id) ?? jobCard(room);
      cards.set(job.id, card);
      card.show(job);
    }
    const elements = jobs.map(({ id }) => cards.get(id)?.element);
    if (elements.some((element, index) => list.children[index] !== element)) put(list, elements);
    none.hidden = jobs.length > 0;
  };
  show();
  listen(room, 'jobs', show, signal);
  return h(
    'div',
    { class: 'page' },
    h('h1', {}, 'Jobs and import'),
    room.mayWrite && importer(room),
    room.mayWrite && exporter(room),
    none,
    list,
  );
}

/** @param {Room} room */
function importer(room) {
  const file = h('input', { type: 'file', accept: '.zip,application/zip', id: 'archive', class: 'unseen' });
  const label = h(
    'label',
    { for: 'archive', class: 'drop card' },
    icon('upload'),
    h(
      'span',
      {},
      h('strong', {}, 'Import a Slack export'),
      h('span', { class: 'muted' }, ' Choose its ZIP file, or drop it here.'),
    ),
  );
  const state = h('div', { class: 'stack', 'aria-live': 'polite' });
  const send = async (/** @type {File} */ archive) => {
    const bar = progress(`Upload of ${archive.name}`, 0);
    put(state, h('span', { class: 'small' }, `Uploading ${archive.name}…`), bar);
    try {
      const { upload_id } = await room.api.upload(archive, {
        onProgress: ({ loaded, total }) => (bar.value = loaded / total),
      });
      room.keep(await room.api.submit('chat', 'import', { project_id: room.id, data: { upload_id } }));
      put(state);
    } catch (error) {
      put(state);
      complain(error);
    }
    file.value = '';
  };
  file.onchange = () => file.files[0] && send(file.files[0]);
  label.ondragover = (/** @type {Event} */ event) => event.preventDefault();
  label.ondrop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    const archive = event.dataTransfer?.files[0];
    if (archive) void send(archive);
  };
  return h('section', { class: 'stack' }, file, label, state);
}

/** @param {Room} room */
function exporter(room) {
  const begin = (/** @type {string} */ format) => async () =>
    room.keep(await room.api.submit('chat', 'export', { project_id: room.id, data: { format } }));
  return h(
    'div',
    { class: 'row wrap' },
    h('span', { class: 'muted' }, 'Export the project as'),
    button('NDJSON', begin('ndjson')),
    button('Slack export', begin('slack')),
  );
}

/** @param {Room} room */
function jobCard(room) {
  const { api } = room;
  const bar = progress('Progress', null);
  const head = h('div', { class: 'row' });
  const about = h('p', { class: 'muted small' });
  const files = h('div', { class: 'row wrap' });
  const lines = h('pre', { class: 'log', tabindex: '0', role: 'region', 'aria-label': 'Log' });
  const log = h('details', {}, h('summary', {}, 'Log'), lines);
  const element = h('li', { class: 'card job' }, head, bar, about, files, log);
  /** @type {Job} */
  let job;
  const readLog = async () => {
    if (!log.open) return;
    const { logs } = await api.jobLogs(job.id, { limit: 200 });
    put(
      lines,
      logs.map(({ at, level, message }) => `${new Date(at).toLocaleTimeString()} ${level.padEnd(5)} ${message}\n`),
    );
    if (!logs.length) put(lines, 'Nothing was written down.');
  };
  log.ontoggle = () => readLog().catch(complain);
  const show = (/** @type {Job} */ next) => {
    if (job && job.state === next.state && JSON.stringify(job.progress) === JSON.stringify(next.progress)) return;
    const isNew = !job;
    const isOver = !!next.finished_at;
    const changed = job?.state !== next.state;
    job = next;
    const { done, total, unit, message, fraction } = job.progress;
    if (isOver) bar.value = 1;
    else if (fraction === null && !total) bar.removeAttribute('value');
    else bar.value = fraction ?? done / /** @type {number} */ (total);
    bar.setAttribute('aria-label', `Progress of ${job.bundle}.${job.operation}`);
    const count = done ? `${done.toLocaleString()}${total ? ` of ${total.toLocaleString()}` : ''} ${unit ?? ''}` : '';
    const soFar = isOver ? [imported(job) || count, job.error?.message] : [count, message];
    put(
      about,
      [...soFar, job.attempt > 1 && `attempt ${job.attempt} of ${job.max_attempts}`].filter(Boolean).join(' · ') ||
        (isOver ? '' : 'Waiting for its turn'),
    );
    if (!changed) return;
    put(
      head,
      h('strong', {}, `${job.bundle}.${job.operation}`),
      h('span', { class: `badge ${job.state}` }, job.state),
      h('span', { class: 'muted small grow' }, 'by ', bdi(room.nameOf(job.owner)), ', ', time(job.created_at, 'full')),
      room.mayWrite &&
        !isOver &&
        button('Cancel', async () => room.keep(await api.cancelJob(job.id)), { 'aria-label': 'Cancel the job' }),
      room.mayWrite &&
        (job.state === 'failed' || job.state === 'cancelled') &&
        button('Run again', async () => room.keep(await api.retryJob(job.id))),
    );
    // One that was watched to its end is seen to be full.
    if (isOver && (isNew || job.state !== 'succeeded')) bar.hidden = true;
    put(
      files,
      artifacts(job).map((/** @type {any} */ { name, bytes }) =>
        button(`Download ${name} (${Math.ceil(bytes / 1024).toLocaleString()} kB)`, () => download(room, job.id, name)),
      ),
    );
    readLog().catch(() => {});
  };
  return { element, show };
}

/** @param {Job} job */
function imported({ result }) {
  const count = result?.messages?.imported;
  return count === undefined ? '' : `${plural(count, 'message')} imported`;
}

/** @param {Job} job @returns {any[]} */
const artifacts = ({ result }) => result?.artifacts ?? (result?.artifact ? [result.artifact] : []);

/** @param {Room} room @param {string} job @param {string} name */
async function download(room, job, name) {
  const url = URL.createObjectURL(await (await room.api.artifact(job, name)).blob());
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
