/** @file A window on a channel's history that can be moved, never with a hole in it, and that goes on live at its end. */

import { tell } from './dom.js';

/**
 * @import { ChatEvent, Message } from '../../client/src/wire.js'
 * @import { Room } from './room.js'
 */

const PAGE = 50;
const LONGEST = 400;

/** How long batches of an import are waited for, to be read together. */
const BATCH_MS = 400;

/** Tells `change` of its messages, with what made it, and `stale` if they have to be read anew. */
export class Timeline extends EventTarget {
  /** Oldest first. @type {Message[]} */
  messages = [];
  /** Whether nothing is before, or after, the window. */
  atStart = false;
  atEnd = false;
  loading = true;
  #room;
  #channel;
  /** Each opening has a number; what was read for another one is not wanted any more. */
  #opening = 0;
  /** What happens while a page is read, to be applied after it. @type {ChatEvent[] | null} */
  #held = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #stale;

  /** @param {Room} room @param {string} channel @param {AbortSignal} signal */
  constructor(room, channel, signal) {
    super();
    this.#room = room;
    this.#channel = channel;
    room.addEventListener('event', (/** @type {any} */ { detail }) => this.#receive(detail), { signal });
    room.addEventListener('stale', () => this.#outdate(), { signal });
    signal.addEventListener('abort', () => (this.#opening++, clearTimeout(this.#stale)), { once: true });
  }

  /** Shows the newest messages, or those around one. @param {string | null} [at] */
  async open(at) {
    const { api, id } = this.#room;
    const page = { channel: this.#channel, limit: PAGE };
    await this.#load('open', async () => {
      if (!at) {
        const newest = await api.messages(id, page);
        return { messages: newest.messages.reverse(), atStart: !newest.next, atEnd: true };
      }
      const [before, message, after] = await Promise.all([
        api.messages(id, { ...page, before: at }),
        api.message(id, at),
        api.messages(id, { ...page, after: at }),
      ]);
      return {
        messages: [...before.messages.reverse(), message, ...after.messages.reverse()],
        atStart: !before.next,
        atEnd: !after.next,
      };
    });
  }

  async older() {
    const [first] = this.messages;
    if (this.loading || this.atStart || !first) return;
    await this.#load('older', async () => {
      const page = await this.#room.api.messages(this.#room.id, {
        channel: this.#channel,
        before: first.id,
        limit: PAGE,
      });
      const messages = [...page.messages.reverse(), ...this.messages];
      return {
        messages: messages.slice(0, LONGEST),
        atStart: !page.next,
        atEnd: this.atEnd && messages.length <= LONGEST,
      };
    });
  }

  async newer() {
    const last = this.messages.at(-1);
    if (this.loading || this.atEnd || !last) return;
    await this.#load('newer', async () => {
      const page = await this.#room.api.messages(this.#room.id, {
        channel: this.#channel,
        after: last.id,
        limit: PAGE,
      });
      const messages = [...this.messages, ...page.messages.reverse()];
      return {
        messages: messages.slice(-LONGEST),
        atStart: this.atStart && messages.length <= LONGEST,
        atEnd: !page.next,
      };
    });
  }

  /** Takes over what the server said of a message, before the stream does. @param {Message} message */
  upsert(message) {
    this.#receive({ type: 'message.created', message, at: '', actor: '', trace_id: '' });
  }

  /** @param {string} cause @param {() => Promise<{messages: Message[], atStart: boolean, atEnd: boolean}>} read */
  async #load(cause, read) {
    const opening = cause === 'open' ? ++this.#opening : this.#opening;
    this.loading = true;
    this.#held ??= [];
    tell(this, 'loading');
    try {
      const window = await read();
      if (opening !== this.#opening) return;
      Object.assign(this, window);
    } finally {
      if (opening === this.#opening) {
        this.loading = false;
        const held = this.#held ?? [];
        this.#held = null;
        held.forEach((event) => this.#apply(event));
        tell(this, 'change', cause);
      }
    }
  }

  /** @param {ChatEvent} event */
  #receive(event) {
    if (event.type === 'history.imported') {
      // Old messages came in between.
      if (event.channels?.includes(this.#channel)) this.#outdate();
    } else if (this.#held) this.#held.push(event);
    else if (this.#apply(event)) tell(this, 'change', 'live');
  }

  #outdate() {
    clearTimeout(this.#stale);
    this.#stale = setTimeout(() => tell(this, 'stale'), BATCH_MS);
  }

  /** Says whether it is about what is shown. @param {ChatEvent} event */
  #apply({ type, message, reaction }) {
    if (reaction) return this.#react(type, reaction);
    if (!message || message.channel !== this.#channel) return false;
    const at = this.messages.findIndex((one) => one.id >= message.id);
    const known = this.messages[at];
    // An event names few of the users who reacted, and reactions have events of their own.
    const edited = type === 'message.updated' && known ? { ...message, reactions: known.reactions } : message;
    if (known?.id === message.id) this.messages = this.messages.with(at, edited);
    else if (type !== 'message.created' || (at === -1 ? !this.atEnd : at === 0 && !this.atStart)) return false;
    else {
      this.messages = this.messages.toSpliced(at === -1 ? this.messages.length : at, 0, message);
      // It is long after a while; what goes is before the window then.
      if (this.messages.length > LONGEST + PAGE) {
        this.messages = this.messages.slice(-LONGEST);
        this.atStart = false;
      }
    }
    return true;
  }

  /** @param {string} type @param {{message_id: string, emoji: string, user: string}} reaction */
  #react(type, { message_id, emoji, user }) {
    const at = this.messages.findIndex(({ id }) => id === message_id);
    const message = this.messages[at];
    if (!message) return false;
    const before = message.reactions.find((one) => one.emoji === emoji);
    const users = new Set(before?.users);
    const counted = before?.count ?? 0;
    const isNamed = users.has(user);
    let count = counted;
    // A page that was read later than the event has its effect already: where all users are named, that can be seen.
    if (type === 'reaction.added') {
      if (!isNamed) count += 1;
      users.add(user);
    } else {
      if (isNamed || counted > users.size) count -= 1;
      users.delete(user);
    }
    const others = message.reactions.filter((one) => one.emoji !== emoji);
    const place = message.reactions.findIndex((one) => one.emoji === emoji);
    const own = count > 0 ? [{ emoji, users: [...users], count }] : [];
    this.messages = this.messages.with(at, {
      ...message,
      reactions: others.toSpliced(place < 0 ? others.length : place, 0, ...own),
    });
    return true;
  }
}
