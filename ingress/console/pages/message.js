/** @file One message, with what can be done to it. */

import { avatar, bdi, button, confirmed, form, h, plain, put, spelt, time } from '../dom.js';
import { icon } from '../icons.js';

/**
 * @import { Message } from '../../../client/src/wire.js'
 * @import { Room } from '../room.js'
 */

const EMOJI = ['👍', '❤️', '😄', '🎉', '👀'];

/**
 * @param {Room} room
 * @param {import('../account.js').Account} account
 * @param {Message} message
 * @param {{isCompact: boolean, onReply: (message: Message) => void, onJump: (id: string) => unknown, find: (id: string) => Message | undefined}} options
 * @returns {HTMLElement}
 */
export function messageView(room, account, message, { isCompact, onReply, onJump, find }) {
  const { api, id: project } = room;
  const { id, author, author_name: name, deleted_at, updated_at, reply_to } = message;
  const own = author === account.me.user;
  const body = h('div', { class: 'text', dir: 'auto' });
  const toggle = (/** @type {string} */ emoji) => {
    const mine = message.reactions.find((one) => one.emoji === emoji)?.users.includes(account.me.user);
    return mine ? api.removeReaction(project, id, emoji) : api.addReaction(project, id, emoji);
  };
  const read = () =>
    put(
      body,
      deleted_at ? h('em', { class: 'muted' }, 'This message was deleted.') : linked(message.text),
      updated_at && !deleted_at && h('span', { class: 'muted small' }, ' (edited)'),
    );
  const edit = () => {
    const area = h('textarea', { name: 'text', required: true, 'aria-label': 'Text of the message', maxlength: 32000 });
    area.value = message.text;
    const editor = form(
      { class: 'stack' },
      async ({ text }) => (text === message.text ? read() : api.editMessage(project, id, text).then(read)),
      area,
      h('div', { class: 'row' }, h('button', { type: 'submit', class: 'primary' }, 'Save'), button('Cancel', read)),
    );
    area.onkeydown = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Escape') read();
      else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing)
        (event.preventDefault(), editor.requestSubmit());
    };
    put(body, editor);
    area.focus();
  };
  const tool = (/** @type {string} */ label, /** @type {any} */ content, /** @type {() => unknown} */ action) =>
    button(content, action, { class: 'quiet', title: label, 'aria-label': label });
  const tools =
    !deleted_at &&
    room.mayWrite &&
    h(
      'div',
      { class: 'tools', role: 'group', 'aria-label': 'Message actions' },
      EMOJI.map((emoji) => tool(`React with ${emoji}`, emoji, () => toggle(emoji))),
      tool('Reply', icon('reply'), () => onReply(message)),
      own && tool('Edit', icon('edit'), edit),
      (own || room.role === 'owner') &&
        tool(
          'Delete',
          icon('trash'),
          async () =>
            (await confirmed('Delete this message for everybody?', 'Delete')) && api.deleteMessage(project, id),
        ),
    );
  const reactions = message.reactions.map(({ emoji, users, count }) => {
    const more = count > users.length ? [`${count - users.length} more`] : [];
    const names = [...users.map((user) => plain(room.nameOf(user))), ...more].join(', ');
    const mine = users.includes(account.me.user);
    const label = `${emoji} ${count}`;
    return button(label, () => toggle(emoji), {
      class: 'reaction',
      'aria-pressed': `${mine}`,
      title: names,
      'aria-label': `${label} by ${names}`,
      disabled: !room.mayWrite,
    });
  });
  read();
  return h(
    'article',
    {
      class: `message${isCompact ? ' compact' : ''}`,
      'aria-label': `${plain(name)}, ${new Date(message.created_at).toLocaleString()}`,
      'data-id': id,
      tabindex: '-1',
    },
    isCompact ? h('span', { class: 'gutter muted small' }, time(message.created_at)) : avatar(name),
    h(
      'div',
      { class: 'content' },
      reply_to && quote(room, reply_to, onJump, find(reply_to)),
      !isCompact &&
        h(
          'div',
          { class: 'by' },
          h('strong', {}, bdi(name)),
          ' ',
          h('span', { class: 'muted small' }, time(message.created_at)),
        ),
      body,
      reactions.length > 0 && h('div', { class: 'reactions' }, ...reactions),
    ),
    tools,
  );
}

/** What a message answers. @param {Room} room @param {string} id @param {(id: string) => unknown} onJump @param {Message} [known] */
function quote(room, id, onJump, known) {
  const element = h('button', { type: 'button', class: 'quote', onclick: () => onJump(id) }, '…');
  Promise.resolve(known ?? room.api.message(room.id, id)).then(
    ({ author_name, text }) =>
      put(element, icon('reply'), h('strong', {}, bdi(author_name)), h('span', { class: 'cut' }, bdi(text.slice(0, 120)))),
    () => put(element, 'a message that is not there any more'),
  );
  return element;
}

/** Addresses become links, shown in their true order; nothing else becomes anything. @param {string} text */
function linked(text) {
  return text
    .split(/(https?:\/\/[^\s<>"]+[^\s<>".,:;!?)\]'])/)
    .map((part, index) =>
      index % 2 ? h('a', { href: part, dir: 'ltr', target: '_blank', rel: 'noopener noreferrer' }, spelt(part)) : part,
    );
}
