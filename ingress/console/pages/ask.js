/** @file Search, and questions whose answers come word by word with their sources. */

import { streamAnswer } from '@parley/client';
import { bdi, form, h, plural, put, time } from '../dom.js';

/** @import { AnswerStream } from '@parley/client' */

/** For who does not know yet what to ask. */
const FIRST = ['What problems were there?', 'How was it installed?', 'What was decided?'];

/** @param {import('../main.js').Context} context */
export function askPage({ room, params, signal }) {
  const { api, id } = room;
  const input = h('input', {
    name: 'query',
    type: 'search',
    required: true,
    maxlength: 2000,
    class: 'grow',
    placeholder: 'What do you want to know?',
    'aria-label': 'Question or words',
    value: params.get('q') ?? '',
  });
  const result = h('section', { class: 'result', 'aria-label': 'Result' });
  /** @type {AnswerStream | null} */
  let answer = null;
  signal.addEventListener('abort', () => answer?.detach(), { once: true });

  const link = (/** @type {any} */ { channel, message_id, author, author_name, created_at, snippet }) => {
    const by = h('strong', {}, bdi(author_name ?? room.nameOf(author)));
    // A source names who said it by id, as people of an import are no members.
    if (!author_name && !room.members.has(author))
      api.message(id, message_id).then(
        (message) => put(by, message.author_name),
        () => {},
      );
    return h(
      'li',
      {},
      h(
        'a',
        { class: 'card source', href: `#/p/${id}/chat/${encodeURIComponent(channel)}?at=${message_id}` },
        h(
          'span',
          { class: 'small' },
          by,
          h('span', { class: 'muted' }, ` in #${channel} · `, time(created_at, 'full')),
        ),
        h('span', {}, snippet),
      ),
    );
  };

  const search = async () => {
    answer?.detach();
    const { messages } = /** @type {any} */ (await api.search(id, input.value));
    put(
      result,
      h('h2', {}, messages.length ? plural(messages.length, 'message') : 'Nothing was found'),
      h(
        'ol',
        { class: 'sources' },
        messages.map((/** @type {any} */ one) => link({ ...one, message_id: one.id })),
      ),
    );
  };

  const ask = async () => {
    answer?.detach();
    const mine = (answer = streamAnswer({ api, project_id: id, query: input.value }));
    const text = h('div', { class: 'answer', 'aria-live': 'polite', 'aria-busy': 'true' });
    const about = h('span', { class: 'muted small' }, 'Looking…');
    const stop = h('button', { type: 'button', onclick: () => mine.cancel() }, 'Stop');
    const sources = h('div');
    put(result, text, h('div', { class: 'row' }, stop, about), sources);
    const from = performance.now();
    const seconds = () => `${((performance.now() - from) / 1_000).toFixed(1)} s`;
    mine.on('status', ({ state, reason }) => {
      if (state === 'waiting') about.textContent = `Reconnecting (${reason})…`;
    });
    mine.on(
      'heartbeat',
      ({ total_chunks }) => (about.textContent = `${plural(total_chunks, 'piece')} in ${seconds()}`),
    );
    try {
      for await (const piece of mine) {
        text.append(piece);
        about.textContent = `Writing, ${seconds()}`;
      }
      const end = await mine.done;
      about.textContent = `${{ finished: 'Finished', cancelled: 'Stopped', duration_cap: 'Cut at the time limit' }[end.reason] ?? end.reason} after ${seconds()}`;
      if (mine.sources.length)
        put(sources, h('h2', {}, 'Sources'), h('ol', { class: 'sources' }, mine.sources.map(link)));
    } catch (error) {
      about.textContent = `${/** @type {any} */ (error).message}`;
    }
    text.setAttribute('aria-busy', 'false');
    stop.hidden = true;
  };

  const page = form(
    { class: 'page', role: 'search' },
    // The form waits for its end only until the first piece is there: another question may be asked at any time.
    () => void ask(),
    h('h1', {}, 'Search and ask'),
    h('div', { class: 'row wrap' }, input, h('button', { type: 'submit', class: 'primary' }, 'Ask'), searchButton()),
    result,
  );
  function searchButton() {
    const element = h('button', { type: 'button' }, 'Search');
    element.onclick = () => input.reportValidity() && search().catch((error) => put(result, h('p', {}, error.message)));
    return element;
  }
  const first = FIRST.map((question) => {
    const element = h('button', { type: 'button' }, question);
    element.onclick = () => {
      input.value = question;
      void ask();
    };
    return element;
  });
  put(
    result,
    h('p', { class: 'empty' }, 'An answer quotes what was said in this project, and each source leads to its message.'),
    h('div', { class: 'row wrap' }, first),
  );
  return page;
}
