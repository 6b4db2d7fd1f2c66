/** @file Messages between the tabs of one browser. */

import { Emitter } from './emitter.js';
import { randomName } from './random-name.js';

/**
 * What tabs tell each other. Who follows asks for what came after its cursor, or for an attempt; all else the leader
 * tells, to all or to who asked.
 * @typedef {object} TabMessage
 * @property {string} from
 * @property {string | null} [ask] The cursor of who asks.
 * @property {true} [retry]
 * @property {number} term The leader's.
 * @property {number} silenceMs How long the leader may say nothing.
 * @property {import('./status.js').ConnectionStatus} [status]
 * @property {true} [leaves] It does not lead any more.
 * @property {string} [to] Who asked.
 * @property {string | null} [prev] The cursor before the entries: who is there is in step.
 * @property {import('./log.js').Entry[] | null} [entries] What came after it; nothing if that is not kept.
 * @property {string | null} [cursor] Where the leader is.
 */

/** Tabs of two deployments live side by side; they do not understand each other. */
const VERSION = 1;

/**
 * A channel between tabs that knows who speaks.
 * @extends {Emitter<{message: any}>}
 */
export class TabBus extends Emitter {
  /** This tab's name. */
  id = randomName();
  #name;
  /** @type {any} */
  #Channel;
  /** @type {BroadcastChannel | null} */
  #channel = null;

  /** @param {string} name @param {import('./leader.js').Platform} [platform] */
  constructor(name, { BroadcastChannel: Channel = globalThis.BroadcastChannel } = {}) {
    super();
    this.#name = name;
    this.#Channel = Channel;
  }

  /** Whether tabs can hear each other at all. */
  get available() {
    return !!this.#Channel;
  }

  /** Listens. */
  open() {
    if (this.#channel) return;
    /** @type {BroadcastChannel} */
    const channel = (this.#channel = new this.#Channel(this.#name));
    channel.onmessage = ({ data }) => data?.v === VERSION && this.emit('message', data);
  }

  /**
   * Listens no more. A page that does while it is in the back/forward cache is thrown out of it by the next message.
   */
  close() {
    this.#channel?.close();
    this.#channel = null;
  }

  /** Tells all other tabs. @param {Record<string, any>} message */
  post(message) {
    this.#channel?.postMessage({ v: VERSION, from: this.id, ...message });
  }
}
