/** @file What a tab was told, to know what is new and to tell it to tabs that come late. */

/**
 * What happened, and the cursor after it, which only some events have: an event, or a gap, or nothing but that
 * the log is that far.
 * @typedef {{id?: string | null, event?: import('./wire.js').ChatEvent, gap?: {reason: string, cursor: string | null}}}
 *   Entry
 */

const MAX_CHARACTERS = 1 << 21;

export class Log {
  /** Where this tab is in it: after what its handlers were called with. @type {string | null} */
  cursor;
  /**
   * By all that an event says, since those of the long poll have no id, and an id that is a place in two logs is not
   * the same each time. What was told last is last.
   * @type {Map<string, Entry>}
   */
  #entries = new Map();
  #size = 0;

  /** @param {string | null} [start] */
  constructor(start = null) {
    this.cursor = start;
    if (start) this.push({ id: start });
  }

  /** Keeps what was told last; says whether it is new. @param {Entry} entry */
  push(entry) {
    const { id, event } = entry;
    const text = event ? JSON.stringify(event) : `${id}`;
    const isKnown = this.#entries.delete(text);
    this.#entries.set(text, entry);
    if (!isKnown) this.#size += text.length;
    for (const oldest of this.#entries.keys()) {
      if (this.#size <= MAX_CHARACTERS) break;
      this.#entries.delete(oldest);
      this.#size -= oldest.length;
    }
    return !isKnown;
  }

  /** Returns what came after a cursor, if all of it is kept. @param {string | null} cursor @returns {Entry[] | null} */
  after(cursor) {
    const entries = [...this.#entries.values()];
    const index = entries.findLastIndex(({ id }) => id === cursor);
    // Who is where this tab is lacks nothing, whatever is kept.
    return cursor === this.cursor ? [] : index < 0 ? null : entries.slice(index + 1);
  }
}
