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
  #start;
  /** @type {Entry[]} */
  #entries = [];
  /** @type {number[]} */
  #sizes = [];
  #size = 0;
  /** @type {Set<string>} */
  #seen = new Set();

  /** @param {string | null} start */
  constructor(start) {
    this.#start = start;
  }

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
    for (const oldest of this.#seen) {
      if (this.#seen.size > MAX_SEEN) this.#seen.delete(oldest);
      break;
    }
    this.#entries.push({ id, event });
    this.#sizes.push(text.length);
    this.#size += text.length;
    while (this.#entries.length > MAX_ENTRIES || this.#size > MAX_CHARACTERS) {
      this.#start = this.#entries.shift()?.id ?? null;
      this.#size -= this.#sizes.shift() ?? 0;
    }
    return true;
  }

  /** Forgets what is kept: the log goes on elsewhere. @param {string | null} start */
  restart(start) {
    this.#start = start;
    this.#entries = [];
    this.#sizes = [];
    this.#size = 0;
  }

  /** Returns what came after a cursor, if all of it is kept. @param {string | null} cursor @returns {Entry[] | null} */
  after(cursor) {
    const index = this.#entries.findLastIndex(({ id }) => id === cursor);
    if (cursor === null || (index < 0 && cursor !== this.#start)) return null;
    return this.#entries.slice(index + 1);
  }
}
