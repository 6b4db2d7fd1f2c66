// @vitest-environment happy-dom
/** A window on history, whatever the order in which pages and events arrive: it has no hole, no double, and the last state of each message. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Timeline } from '../../../ingress/console/timeline.js';

const OLD = 130;
const CHANNEL = 'c';

/** A server whose reads take place, and are answered, when the test says so. */
class Server extends EventTarget {
  id = 'p';
  messages = [];
  #log = [];
  #reads = [];
  #made = 0;

  constructor() {
    super();
    for (let index = 0; index < OLD; index++) this.#add();
  }

  /** Ids are in the order of time, nearly: replicas have clocks of their own. */
  #add(early = 0) {
    const id = String((1_000_000 + ++this.#made - early) * 1_000 + this.#made);
    const message = { id, channel: CHANNEL, text: '0', reactions: [] };
    this.messages = [...this.messages, message].sort((a, b) => (a.id < b.id ? -1 : 1));
    return message;
  }
  create(early) {
    this.#log.push({ type: 'message.created', message: this.#add(early) });
  }
  #change(at, change, event) {
    const index = Math.floor(at * this.messages.length);
    const message = { ...this.messages[index], ...change(this.messages[index]) };
    this.messages = this.messages.with(index, message);
    this.#log.push(event(message));
  }
  edit(at) {
    this.#change(
      at,
      ({ text }) => ({ text: `${Number(text) + 1}` }),
      (message) => ({ type: 'message.updated', message }),
    );
  }
  react(at) {
    let type;
    const toggle = ({ reactions }) => {
      type = reactions.length ? 'reaction.removed' : 'reaction.added';
      return { reactions: reactions.length ? [] : [{ emoji: '!', users: ['ada'], count: 1 }] };
    };
    this.#change(at, toggle, ({ id }) => ({
      type,
      reaction: { message_id: id, channel: CHANNEL, emoji: '!', user: 'ada' },
    }));
  }
  deliver() {
    const detail = this.#log.shift();
    if (detail) this.dispatchEvent(new CustomEvent('event', { detail }));
  }

  api = {
    messages: (_, { before, after, limit }) =>
      this.#asked(() => {
        const fits = this.messages.filter(
          ({ id }) => (before === undefined || id < before) && (after === undefined || id > after),
        );
        const page = after === undefined ? fits.slice(-limit) : fits.slice(0, limit);
        const last = after === undefined ? page[0] : page.at(-1);
        return { messages: [...page].reverse(), next: fits.length > limit ? last.id : null };
      }),
    message: (_, id) => this.#asked(() => this.messages.find((one) => one.id === id)),
  };
  #asked(look) {
    return new Promise((resolve) => this.#reads.push({ look, resolve, seen: undefined }));
  }
  /** Has one of the reads take place, or answers one that has: any of them, as networks do. */
  look(which = 0) {
    const reads = this.#reads.filter(({ seen }) => seen === undefined);
    const read = reads[Math.floor(which * reads.length)];
    if (read) read.seen = read.look();
  }
  async answer(which = 0) {
    const reads = this.#reads.filter(({ seen }) => seen !== undefined);
    const read = reads[Math.floor(which * reads.length)];
    if (read) this.#reads.splice(this.#reads.indexOf(read), 1);
    read?.resolve(read.seen);
    // What was waiting for it goes on.
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  }
  get isQuiet() {
    return !this.#log.length && !this.#reads.length;
  }
}

const which = fc.double({ min: 0, max: 0.999, noNaN: true });
const early = fc.oneof(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 99 }));
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('create'), with: early }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('edit', 'react', 'editLast'), with: which }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('deliver', 'look', 'answer'), with: which }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('older', 'newer') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('open'), with: fc.option(which) }) },
);

test('the window is a part of the history without a hole, and the end of it where it says so', async () => {
  const property = fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
    const server = new Server();
    const left = new AbortController();
    const timeline = new Timeline(server, CHANNEL, left.signal);
    const settle = async () => {
      while (!server.isQuiet) {
        server.look(0.999);
        // What was asked last is answered first.
        await server.answer(0.999);
        server.deliver();
      }
    };
    void timeline.open(null);
    for (const one of steps) {
      if (one.do === 'open')
        void timeline.open(
          one.with === null ? null : server.messages[Math.floor(one.with * server.messages.length)].id,
        );
      else if (one.do === 'older' || one.do === 'newer') void timeline[one.do]();
      else if (one.do === 'editLast') server.edit(0.999);
      else await server[one.do](one.with);
    }
    await settle();
    const { messages, atStart, atEnd, loading } = timeline;
    left.abort();
    const from = server.messages.findIndex(({ id }) => id === messages[0].id);
    expect(loading).toBe(false);
    expect(messages).toEqual(server.messages.slice(from, from + messages.length));
    if (atStart) expect(from).toBe(0);
    if (atEnd) expect(from + messages.length).toBe(server.messages.length);
  });
  await fc.assert(property, { numRuns: 1_500 });
});
