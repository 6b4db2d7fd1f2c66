/** @file Where a message is written. */

import { button, form, h, put } from '../dom.js';
import { icon } from '../icons.js';

/** @import { Message } from '../../../client/src/wire.js' */

/** Others see that somebody types for twice as long. */
const TYPING_EVERY_MS = 3_000;

/**
 * @param {import('../room.js').Room} room
 * @param {import('../account.js').Account} account
 * @param {string} channel
 * @param {(message: Message) => unknown} onSent
 */
export function composer(room, account, channel, onSent) {
  /** @type {Message | null} */
  let answers = null;
  let toldAt = 0;
  const context = h('div', { class: 'answers', hidden: true });
  const area = h('textarea', {
    name: 'text',
    rows: 1,
    maxlength: 32000,
    placeholder: `Message #${channel}`,
    'aria-label': `Message ${channel}`,
    enterkeyhint: 'send',
  });
  const grow = () => {
    area.style.setProperty('height', 'auto');
    area.style.setProperty('height', `${Math.min(area.scrollHeight + 2, 220)}px`);
  };
  const reply = (/** @type {Message | null} */ message) => {
    answers = message;
    context.hidden = !message;
    if (message)
      put(
        context,
        icon('reply'),
        h(
          'span',
          { class: 'grow' },
          'Answer to ',
          h('strong', {}, message.author_name),
          ' ',
          message.text.slice(0, 80),
        ),
        button('✕', () => reply(null), { class: 'quiet', 'aria-label': 'Do not answer a message' }),
      );
    if (message) area.focus();
  };
  const element = form(
    { class: 'composer' },
    async () => {
      const text = area.value.trim();
      if (!text) return;
      const reply_to = answers?.id;
      area.value = '';
      grow();
      toldAt = 0;
      try {
        const sent = await room.api.sendMessage(room.id, { text, channel, ...(reply_to && { reply_to }) });
        reply(null);
        await onSent(sent);
      } catch (error) {
        area.value ||= text;
        grow();
        throw error;
      }
    },
    context,
    h(
      'div',
      { class: 'field' },
      area,
      h('button', { type: 'submit', class: 'primary', 'aria-label': 'Send' }, icon('send')),
    ),
  );
  area.oninput = () => {
    grow();
    if (!area.value || Date.now() - toldAt < TYPING_EVERY_MS) return;
    toldAt = Date.now();
    room.api.typing(room.id, channel).catch(() => {});
  };
  area.onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    element.requestSubmit();
  };
  if (!room.mayWrite) put(element, h('p', { class: 'muted' }, `You may read here, not write, ${account.me.name}.`));
  return { element, reply };
}
