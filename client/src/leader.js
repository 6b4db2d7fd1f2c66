/** @file Which tab of a browser holds the stream. */

import { Emitter } from './emitter.js';
import { onLifecycle } from './lifecycle.js';

/**
 * What a browser has, or what stands for it in tests.
 * @typedef {object} Platform
 * @property {{request(name: string, options: any, callback: () => unknown): Promise<unknown>}} [locks]
 * @property {Storage | null} [storage]
 * @property {typeof BroadcastChannel | null} [BroadcastChannel]
 */

/**
 * For pages without a secure origin, which have no locks: nobody stands in line, and who hears of no leader steals the
 * lead. Terms tell two of them apart.
 * @type {NonNullable<Platform['locks']>}
 */
const NO_LOCKS = {
  request: async (_name, { steal }, callback) => (steal ? callback() : new Promise(() => {})),
};

/**
 * Leads in one tab at a time: `leader` tells that it is this one, `lost` that it is no more. A page that sleeps does
 * not lead, nor wait to: it would be given the lock and not know. `waiting` tells that this tab takes part, `resting`
 * that it does not.
 * @extends {Emitter<{leader: {term: number}, lost: undefined, waiting: undefined, resting: undefined}>}
 */
export class LeaderElector extends Emitter {
  /** Whether this tab leads. */
  leading = false;
  /** The highest term that was seen, in other tabs too; each leader has a higher one than those before. */
  term = 0;

  #name;
  #locks;
  /** @type {AbortController | null} */
  #request = null;
  /** @type {AbortController | null} */
  #running = null;

  /** @param {string} name @param {Platform} [platform] */
  constructor(name, { locks = globalThis.navigator?.locks ?? NO_LOCKS } = {}) {
    super();
    this.#name = name;
    this.#locks = locks;
  }

  /** Takes part. */
  start() {
    if (this.#running) return;
    this.#running = new AbortController();
    onLifecycle(this.#running.signal, { leave: () => this.#leave(), enter: () => this.#join() });
    this.#join();
  }

  /** Takes part no more. */
  stop() {
    this.#running?.abort();
    this.#running = null;
    this.#leave();
  }

  /** Takes the lead from a tab that does not answer. */
  steal() {
    this.#leave();
    this.#join(true);
  }

  async #join(steal = false) {
    if (this.#request || !this.#running) return;
    this.emit('waiting');
    const { signal } = (this.#request = new AbortController());
    // This document may have no locks, which may change with its frame.
    let waitMs = 5_000;
    const lead = () => {
      if (signal.aborted) return;
      waitMs = 0;
      // By the clock, for a tab that has not heard of the others yet.
      this.term = Math.max(this.term + 1, Date.now());
      this.leading = true;
      this.emit('leader', { term: this.term });
      return new Promise((resolve) => signal.addEventListener('abort', resolve));
    };
    await this.#locks.request(this.#name, steal ? { steal } : { signal }, lead).catch(() => {});
    if (signal.aborted) return;
    // It was taken by another tab.
    this.#leave();
    setTimeout(() => this.#join(), waitMs);
  }

  #leave() {
    this.#request?.abort();
    this.#request = null;
    if (this.leading) {
      this.leading = false;
      this.emit('lost');
    }
    this.emit('resting');
  }
}
