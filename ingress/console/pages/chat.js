/** @file A channel: its history, which goes on live, and what is written into it. */

import { bdi, complain, h, listen, put, sameDay, time } from '../dom.js';
import { icon } from '../icons.js';
import { Timeline } from '../timeline.js';
import { composer } from './composer.js';
import { messageView } from './message.js';

/** @import { Message } from '../../../client/src/wire.js' */

/** Messages of one author this close together have one head. */
const TOGETHER_MS = 5 * 60_000;
/** Nearer to an end than this, more is read; at the end, what comes is followed. */
const NEAR_PX = 400;

/** @param {import('../main.js').Context} context */
export async function chatPage({ room, account, rest, params, signal }) {
  const channel = rest[0] ?? (room.channels.has('general') ? 'general' : ([...room.channels.keys()][0] ?? 'general'));
  const { topic } = room.channels.get(channel) ?? {};
  room.look(channel);
  signal.addEventListener('abort', () => room.look(''), { once: true });

  const timeline = new Timeline(room, channel, signal);
  const content = h('div');
  const list = h(
    'div',
    { class: 'messages', role: 'log', 'aria-label': `Messages in ${channel}`, tabindex: '0' },
    content,
  );
  const present = h(
    'button',
    { type: 'button', class: 'present', hidden: true },
    icon('down'),
    'To the newest messages',
  );
  const typing = h('p', { class: 'typing muted small', 'aria-live': 'polite' });
  /** Elements by message, with what they show. @type {Map<string, {key: string, message: Message, element: HTMLElement}>} */
  const views = new Map();
  let target = params.get('at');
  /** Whether the next reading is of the same place. */
  let stays = false;
  /** Whether the newest message is in view, and is to stay there. */
  let follows = true;

  const compose = composer(room, account, channel, async (message) => {
    timeline.upsert(message);
    if (!timeline.atEnd) await timeline.open();
    list.scrollTop = list.scrollHeight;
  });
  const jump = (/** @type {string} */ id) => {
    target = id;
    return find(id) ? focus() : timeline.open(id).catch(complain);
  };

  const find = (/** @type {string} */ id) => timeline.messages.find((one) => one.id === id);

  const isAtBottom = () => timeline.atEnd && list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  /** @param {any} change */
  const show = ({ detail: cause }) => {
    const anchor = firstInView();
    const offset = anchor && anchor.element.offsetTop - list.scrollTop;
    put(
      content,
      timeline.atStart
        ? h('p', { class: 'begin muted' }, `This is where #${channel} begins.`)
        : h('p', { class: 'begin muted' }, '…'),
      ...elements(),
    );
    if (cause === 'open' && !stays && !target) list.scrollTop = list.scrollHeight;
    else if (cause === 'open' && !stays) focus();
    else if (cause === 'live' && follows) list.scrollTop = list.scrollHeight;
    else if (anchor?.element.isConnected) list.scrollTop = anchor.element.offsetTop - /** @type {number} */ (offset);
    stays = false;
    settle();
  };
  const firstInView = () =>
    [...views.values()].find(({ element }) => element.offsetTop + element.offsetHeight > list.scrollTop);
  const elements = () => {
    /** @type {Node[]} */
    const nodes = [];
    const seen = new Set();
    timeline.messages.forEach((message, index) => {
      const before = timeline.messages[index - 1];
      const newDay = !before || !sameDay(before.created_at, message.created_at);
      const near = before && Date.parse(message.created_at) - Date.parse(before.created_at) < TOGETHER_MS;
      const isCompact =
        !newDay && !!near && before.author === message.author && !message.reply_to && !before.deleted_at;
      const key = `${isCompact}`;
      let view = views.get(message.id);
      if (!view || view.message !== message || view.key !== key) {
        view = {
          key,
          message,
          element: messageView(room, account, message, { isCompact, onReply: compose.reply, onJump: jump, find }),
        };
        views.set(message.id, view);
      }
      seen.add(message.id);
      if (newDay) nodes.push(h('div', { class: 'day' }, time(message.created_at, 'day')));
      nodes.push(view.element);
    });
    for (const id of views.keys()) if (!seen.has(id)) views.delete(id);
    return nodes;
  };
  const focus = () => {
    const element = target && views.get(target)?.element;
    if (!element) return;
    list.querySelector('.target')?.classList.remove('target');
    element.classList.add('target');
    list.scrollTop = element.offsetTop - (list.clientHeight - element.offsetHeight) / 2;
    element.focus({ preventScroll: true });
  };
  /** Reads more where an end is near, and notes what was read. */
  const settle = () => {
    follows = isAtBottom();
    present.hidden = follows || timeline.loading;
    const failed = () => {};
    if (timeline.loading) return;
    if (list.scrollTop < NEAR_PX && !timeline.atStart) timeline.older().catch(failed);
    else if (list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX && !timeline.atEnd)
      timeline.newer().catch(failed);
    if (follows) mark();
  };
  let marked = '';
  const mark = () => {
    const last = timeline.messages.at(-1);
    if (!last || document.hidden || last.id <= marked || last.author === account.me.user) return;
    marked = last.id;
    room.api.markRead(room.id, channel, last.id).catch(() => {});
  };

  listen(timeline, 'change', show, signal);
  listen(
    timeline,
    'stale',
    () => {
      const anchor = isAtBottom() ? null : firstInView()?.message.id;
      stays = !!anchor;
      target = null;
      timeline.open(anchor).catch(complain);
    },
    signal,
  );
  listen(timeline, 'loading', () => list.setAttribute('aria-busy', 'true'), signal);
  listen(timeline, 'change', () => list.setAttribute('aria-busy', 'false'), signal);
  listen(list, 'scroll', settle, signal);
  // What is written gets longer, letters come late, a phone is turned.
  const resized = new ResizeObserver(() => follows && list.scrollTo(0, list.scrollHeight));
  resized.observe(list);
  resized.observe(content);
  signal.addEventListener('abort', () => resized.disconnect(), { once: true });
  listen(
    room,
    'typing',
    () => {
      const names = room.typists(channel);
      const shown = names.flatMap((name, index) => [index > 0 && ', ', bdi(name)]);
      put(typing, ...shown, names.length > 0 && ` ${names.length === 1 ? 'is' : 'are'} typing…`);
    },
    signal,
  );
  present.onclick = () => {
    target = null;
    void timeline.open().catch(complain);
  };
  timeline.open(target).catch((error) => {
    complain(error);
    if (!target || error.status !== 404) return;
    target = null;
    timeline.open().catch(complain);
  });
  return h(
    'div',
    { class: 'chat' },
    h('header', { class: 'head' }, h('h1', {}, '#', bdi(channel)), topic && h('p', { class: 'muted' }, bdi(topic))),
    h('div', { class: 'scroll' }, list, present),
    typing,
    compose.element,
  );
}
