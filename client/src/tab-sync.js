/** @file How a tab that does not lead keeps up with the one that does. */

import { isVisible, sleep } from './lifecycle.js';

/**
 * What a leader tells: `lead`, `event`, `gap` and `status` go to all tabs and are numbered; `welcome` answers a tab's
 * `hello`.
 * @typedef {{kind: string, from: string, to?: string, term: number, seq: number, [field: string]: any}} LeaderMessage
 */

/**
 * @typedef {object} Follower
 * @property {() => string | null} cursor Where the tab is.
 * @property {() => void} hello Asks the leader for what came after.
 * @property {(message: LeaderMessage) => void} apply
 * @property {(welcome: LeaderMessage, signal: AbortSignal) => Promise<void>} catchUp Asks the server instead.
 * @property {() => void} silent The leader does not answer.
 */

/** How long a tab that is awake may take to answer; hidden ones take a millisecond. */
const ANSWER_MS = 2_000;

/**
 * Applies a leader's messages in their order, without a hole: where one shows, it asks, and keeps what comes meanwhile.
 */
export class TabSync {
  /** How long the leader may be silent before it is asked whether it is there. */
  silenceMs = 60_000;
  #tab;
  #term = 0;
  #seq = 0;
  #heardAt = 0;
  /** Set until the tab is where the leader is. @type {AbortController | null} */
  #asking = null;
  #answered = false;
  /** What came meanwhile. @type {LeaderMessage[]} */
  #held = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {Follower} tab */
  constructor(tab) {
    this.#tab = tab;
  }

  /** Begins to follow whoever leads. */
  start() {
    this.stop();
    this.#heardAt = Date.now();
    this.#ask();
    this.#watch();
  }

  stop() {
    this.#asking?.abort();
    this.#asking = null;
    this.#held = [];
    clearTimeout(this.#timer);
  }

  /** Looks after the leader at once: the page slept perhaps. */
  look() {
    if (!this.#asking && isVisible() && Date.now() - this.#heardAt >= this.silenceMs) this.#ask();
    this.#watch();
  }

  /** @param {LeaderMessage} message */
  receive(message) {
    // A former leader that has not noticed yet.
    if (message.term < this.#term) return;
    this.#heardAt = Date.now();
    if (message.silenceMs !== this.silenceMs) {
      this.silenceMs = message.silenceMs;
      this.#watch();
    }
    const { kind, seq } = message;
    if (message.term > this.#term || kind === 'lead') {
      this.#term = message.term;
      this.#seq = seq;
      this.#held = [];
      if (kind !== 'welcome' || !this.#asking) this.#ask();
    }
    if (kind === 'welcome') void this.#welcome(message);
    else if (this.#asking) this.#held.push(message);
    else if (seq > this.#seq + (kind === 'status' ? 0 : 1)) {
      this.#held = [message];
      this.#ask();
    } else if (kind === 'status' || seq > this.#seq) {
      this.#seq = seq;
      this.#tab.apply(message);
    }
  }

  /** @param {LeaderMessage} message */
  async #welcome(message) {
    const asking = this.#asking;
    if (!asking || this.#answered) return;
    this.#answered = true;
    if (message.events) {
      for (const entry of message.events) this.#tab.apply({ ...message, kind: 'event', ...entry });
    } else if (this.#tab.cursor()) {
      this.#tab.apply({ ...message, kind: 'status' });
      await this.#tab.catchUp(message, asking.signal);
      if (asking.signal.aborted) return;
    }
    this.#tab.apply(message);
    this.#asking = null;
    this.#seq = message.seq;
    const held = this.#held;
    this.#held = [];
    held.forEach((one) => one.kind !== 'lead' && one.seq >= message.seq && this.receive(one));
  }

  /** Asks twice; a leader that says nothing at all meanwhile is asleep. */
  #ask() {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    this.#answered = false;
    const isOver = () => this.#answered || this.#asking !== asking;
    void (async () => {
      for (let tries = 1; ; tries++) {
        const askedAt = Date.now();
        this.#tab.hello();
        await sleep(ANSWER_MS, asking.signal);
        if (isOver()) return;
        if (this.#heardAt >= askedAt) tries = 0;
        else if (tries >= 2 && isVisible()) {
          // Of the tabs that are awake one is first.
          await sleep(Math.random() * 500, asking.signal);
          if (isOver()) return;
          this.#tab.silent();
        }
      }
    })();
  }

  #watch() {
    clearTimeout(this.#timer);
    const leftMs = this.#heardAt + this.silenceMs - Date.now();
    this.#timer = setTimeout(() => this.look(), leftMs > 0 ? leftMs : ANSWER_MS);
  }
}
