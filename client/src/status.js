/** @file What a page can show of its connection. */

import { Emitter } from './emitter.js';

/**
 * Why the connection is in its state:
 * - with `waiting`: `network`, `silence` (nothing was heard for too long), `server_error`, `protocol` (the answer is no
 *   event stream), `draining` (the instance goes, another is there), `backpressure`, `rate_limited`, `offline`,
 *   `hidden` (the page sleeps), and each `reason` of `bye`;
 * - with `blocked`: `too_many_connections` (other devices hold all streams), `buffered` (a proxy holds events back),
 *   `disabled`;
 * - with `closed`: `stopped`, `done`, `auth`, `forbidden`, `gone`, `rejected`, `gave_up`, `replaced`, `revoked`,
 *   `closed_by_admin`.
 * @typedef {string} Reason
 */

/**
 * The limit that refused a stream.
 * @typedef {object} ConnectionLimit
 * @property {number} max
 * @property {number} current
 * @property {'user' | 'session' | 'ip'} [scope]
 */

/**
 * The state of a connection; each change is a new object.
 * @typedef {object} ConnectionStatus
 * @property {'idle' | 'connecting' | 'open' | 'waiting' | 'blocked' | 'closed'} state `waiting`: an attempt will be
 *   made at `retryAt`. `blocked`: the same, and events come by polling meanwhile.
 * @property {'leader' | 'follower' | 'solo'} role Who holds the stream: this tab, another one, or this tab alone.
 * @property {Reason | null} reason
 * @property {number} attempt Failures since the connection was last stable.
 * @property {number | null} retryAt When the next attempt is made, in `Date.now()`'s milliseconds.
 * @property {number | null} lastByteAt When something was last heard of the server.
 * @property {boolean} stale Whether that is too long ago to trust the connection.
 * @property {string | null} traceId What the server's logs call the last request.
 * @property {ConnectionLimit | null} limit
 */

/** @type {ConnectionStatus} */
export const IDLE = {
  state: 'idle',
  role: 'solo',
  reason: null,
  attempt: 0,
  retryAt: null,
  lastByteAt: null,
  stale: false,
  traceId: null,
  limit: null,
};

/**
 * An emitter that has a status.
 * @template {Record<string, any>} Events
 * @extends {Emitter<Events & {status: ConnectionStatus}>}
 */
export class Reporter extends Emitter {
  status = IDLE;

  /** @protected @param {Partial<ConnectionStatus>} change */
  set(change) {
    this.status = { ...this.status, ...change };
    this.emit('status', /** @type {any} */ (this.status));
  }
}
