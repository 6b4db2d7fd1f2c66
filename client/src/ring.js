/** @file The last events, for tabs that come late, and to know what was there before. */

import { hash } from './hash.js';

/**
 * An event and the cursor after it; only some events have one.
 * @typedef {{id?: string, event: import('./wire.js').ChatEvent}} Entry
 */

const MAX_ENTRIES = 500;
const MAX_CHARACTERS = 1 << 20;
/** More than the ring has: what a new leader is told again may be older than what is kept to be told. */
const MAX_SEEN = 4_000;

export class Ring {
  /** The cursor before the first entry. @type {string | null} */
  #start = null;
  /** @type {(Entry & {size: number})[]} */
  #entries = [];
  #size = 0;
  /** @type {Set<string>} */
  #seen = new Set();

  /**
   * Keeps an event; says whether it is new. Events are known by all they say, since those of the long poll have no id,
   * and an id that is a place in two logs is not the same each time.
   * @param {Entry} entry
   */
  push({ id, event }) {
    const text = JSON.stringify(event);
    const key = hash(text);
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    const [oldest = ''] = this.#seen;
    if (this.#seen.size > MAX_SEEN) this.#seen.delete(oldest);
    const size = text.length;
    this.#entries.push({ id, event, size });
    this.#size += size;
    while (this.#entries.length > MAX_ENTRIES || this.#size > MAX_CHARACTERS) {
      const first = this.#entries.shift();
      this.#start = first?.id ?? null;
      this.#size -= first?.size ?? 0;
    }
    return true;
  }

  /** Forgets what is kept: the log begins here, or goes on elsewhere. @param {string | null} start */
  restart(start) {
    this.#start = start;
    this.#entries = [];
    this.#size = 0;
  }

  /** Returns what came after a cursor, if all of it is kept. @param {string | null} cursor @returns {Entry[] | null} */
  after(cursor) {
    const index = this.#entries.findLastIndex(({ id }) => id === cursor);
    if (cursor === null || (index < 0 && cursor !== this.#start)) return null;
    return this.#entries.slice(index + 1);
  }
}
