/** @file How this tab hears of what happens: who leads, where it is, what came last. */

import { button, h, listen, plural, put, repeat, time } from '../dom.js';

/** @type {Record<string, string>} */
const ROLES = {
  leader: 'leader: this tab has the stream',
  follower: 'follower: another tab has the stream',
  solo: 'alone',
};

/** @param {import('../main.js').Context} context */
export function connectionPage({ room, account, signal }) {
  const facts = h('dl', { class: 'facts' });
  const events = h('tbody');
  const { connection } = room;
  const show = () => {
    const { state, role, reason, attempt, retryAt, lastByteAt, stale, traceId, limit } = connection.status;
    const ago = (/** @type {number | null} */ at) =>
      at ? `${Math.max(0, Math.round((Date.now() - at) / 1_000))} s ago` : 'nothing yet';
    const all = {
      State: state + (reason ? `, ${reason}` : '') + (stale ? ', silent for too long' : ''),
      Role: ROLES[role],
      'Last heard': role === 'follower' ? 'by the leader' : ago(Math.max(lastByteAt ?? 0, room.eventAt)),
      Heartbeats: plural(room.heartbeats, 'heartbeat'),
      Events: plural(room.events, 'event'),
      'Next attempt': retryAt
        ? `in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000))} s, after ${plural(attempt, 'failure')}`
        : null,
      Limit: limit ? `${limit.current} of ${limit.max} streams (${limit.scope})` : null,
      'Trace id': traceId,
      Cursor: connection.cursor,
      User: account.me.user,
      Session: room.api.sessionId,
    };
    put(
      facts,
      ...Object.entries(all)
        .filter(([, value]) => value)
        .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))),
    );
  };
  const list = () =>
    put(
      events,
      ...room.log
        .slice(0, 50)
        .map(({ type, at, actor, trace_id }) =>
          h(
            'tr',
            {},
            h('td', {}, time(at, 'full')),
            h('td', {}, h('code', {}, type)),
            h('td', {}, actor),
            h('td', {}, h('code', {}, trace_id)),
          ),
        ),
    );
  list();
  repeat(show, 1_000, signal);
  listen(room, 'status', show, signal);
  listen(room, 'log', list, signal);
  return h(
    'div',
    { class: 'page' },
    h(
      'div',
      { class: 'row' },
      h('h1', { class: 'grow' }, 'Connection'),
      button('Connect anew', () => connection.retryNow()),
    ),
    facts,
    h('h2', {}, 'Last events'),
    h(
      'div',
      { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Last events' },
      h(
        'table',
        {},
        h('thead', {}, h('tr', {}, ...['At', 'Type', 'By', 'Trace id'].map((name) => h('th', { scope: 'col' }, name)))),
        events,
      ),
    ),
  );
}
