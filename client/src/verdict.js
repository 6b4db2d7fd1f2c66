/** @file The status table: what an answer to the opening of a stream means. */

import { DrainingError, errorOf } from './errors.js';

/**
 * What follows an attempt: no other one; one after the backoff, which counts this as a failure; one after the wait that
 * was asked for; the same, while events can be had in other ways; one at once.
 * @typedef {'close' | 'fail' | 'wait' | 'block' | 'again'} Then
 */

/**
 * @typedef {object} Plan
 * @property {Then} then
 * @property {import('./status.js').Reason} reason
 * @property {number} [floorMs] The wait is not shorter.
 * @property {any} [error]
 */

/** How long what needs an administrator's hand is let be: buffering proxies, streams that are switched off. */
export const BLOCKED_MS = 300_000;

/** @type {Record<string, import('./status.js').Reason>} */
const REASONS = {
  401: 'auth',
  403: 'forbidden',
  404: 'gone',
  409: 'gap',
  410: 'gone',
  429: 'rate_limited',
  503: 'backpressure',
};

/** By the server's word. @type {Record<string, import('./status.js').Reason>} */
const BLOCKS = { too_many_connections: 'too_many_connections', sse_disabled: 'disabled' };

/**
 * Returns what to do instead of reading the response, or nothing if it is an event stream.
 * @param {Response} response
 * @returns {Promise<Plan | null>}
 */
export async function verdict(response) {
  const { status, headers } = response;
  if (status === 204) return { then: 'close', reason: 'done' };
  if (status === 200)
    return headers.get('Content-Type')?.startsWith('text/event-stream') ? null : { then: 'fail', reason: 'protocol' };
  const error = errorOf(response, await response.text());
  const { retryAfterMs: floorMs, code = '' } = error;
  if (error instanceof DrainingError) return { then: 'wait', reason: 'draining', floorMs: floorMs ?? drainMs(), error };
  const block = BLOCKS[code];
  const again = status > 499 || [408, 409, 429].includes(status);
  return {
    then: block ? 'block' : again ? 'fail' : 'close',
    reason: block ?? REASONS[status] ?? (again ? 'server_error' : 'rejected'),
    floorMs,
    error,
  };
}

/** When to come back from an instance that is going and does not say. */
export const drainMs = () => 1_000 + Math.random() * 1_000;
