/** @file The status table: what an answer to the opening of a stream means. */

import { DrainingError, errorOf } from './errors.js';

/**
 * What follows the end of an attempt. Without `close` another one follows.
 * @typedef {object} Plan
 * @property {import('./status.js').Reason} reason
 * @property {boolean} [close] Nothing follows.
 * @property {boolean} [failure] It counts for the backoff. Otherwise the wait is `floorMs` and jitter.
 * @property {boolean} [blocked] Streams cannot be had here and now, but events can.
 * @property {boolean} [again] At once.
 * @property {number} [floorMs] The wait is not shorter.
 * @property {unknown} [error]
 * @property {import('./status.js').ConnectionLimit} [limit]
 */

/** How long what needs an administrator's hand is let be: buffering proxies, streams that are switched off. */
export const BLOCKED_MS = 300_000;
/** When to come back from an instance that is going, as a range from the shorter to twice that. */
export const DRAIN_MS = 1_000;

/**
 * Returns what to do instead of reading the response, or nothing if it is an event stream.
 * @param {Response} response
 * @returns {Promise<Plan | null>}
 */
export async function verdict(response) {
  const { status, headers } = response;
  if (status === 204) return { close: true, reason: 'done' };
  if (response.ok) {
    if (headers.get('Content-Type')?.startsWith('text/event-stream')) return null;
    return { failure: true, reason: 'protocol' };
  }
  const error = await errorOf(response);
  const floorMs = error.retryAfterMs;
  if (status === 401) return { close: true, reason: 'auth', error };
  if (status === 403) return { close: true, reason: 'forbidden', error };
  if (status === 404 || status === 410) return { close: true, reason: 'gone', error };
  if (status === 409) return { again: true, failure: true, reason: 'gap', error };
  if (status === 429) {
    const { limit } = /** @type {import('./errors.js').RateLimitedError} */ (error);
    return limit
      ? { blocked: true, floorMs: floorMs ?? 10_000, reason: 'too_many_connections', limit, error }
      : { failure: true, floorMs, reason: 'rate_limited', error };
  }
  if (error instanceof DrainingError) return { floorMs: floorMs ?? DRAIN_MS * (1 + Math.random()), reason: 'draining', error };
  if (error.code === 'sse_disabled') return { blocked: true, floorMs: floorMs ?? BLOCKED_MS, reason: 'disabled', error };
  if (status === 503) return { failure: true, floorMs, reason: 'backpressure', error };
  if (status >= 500 || status === 408) return { failure: true, floorMs, reason: 'server_error', error };
  return { close: true, reason: 'rejected', error };
}

/**
 * Returns what a `bye` asks for.
 * @param {{reason?: string, reconnect?: boolean, retry_after_ms?: number, retry_ms?: number}} bye
 * @returns {Plan}
 */
export function byePlan(bye) {
  const reason = bye.reason === 'server_shutdown' ? 'draining' : (bye.reason ?? 'bye');
  const floorMs = bye.retry_after_ms ?? bye.retry_ms ?? DRAIN_MS;
  // The seeds' own `bye` of a draining instance says not to come back; others are there.
  return { reason, floorMs, close: reason !== 'draining' && bye.reconnect === false };
}
