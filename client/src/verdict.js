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

/** @type {Record<string, [Then, import('./status.js').Reason]>} */
const TABLE = {
  204: ['close', 'done'],
  401: ['close', 'auth'],
  403: ['close', 'forbidden'],
  404: ['close', 'gone'],
  410: ['close', 'gone'],
  408: ['fail', 'server_error'],
  409: ['fail', 'gap'],
  429: ['fail', 'rate_limited'],
  503: ['fail', 'backpressure'],
  too_many_connections: ['block', 'too_many_connections'],
  sse_disabled: ['block', 'disabled'],
};

/**
 * Returns what to do instead of reading the response, or nothing if it is an event stream.
 * @param {Response} response
 * @returns {Promise<Plan | null>}
 */
export async function verdict(response) {
  const { status } = response;
  if (status === 200) {
    if (response.headers.get('Content-Type')?.startsWith('text/event-stream')) return null;
    return { then: 'fail', reason: 'protocol' };
  }
  const error = errorOf(response, await response.text());
  const floorMs = error.retryAfterMs;
  if (error instanceof DrainingError) return { then: 'wait', reason: 'draining', floorMs: floorMs ?? drainMs(), error };
  const [then, reason] =
    TABLE[error.code ?? ''] ?? TABLE[status] ?? (status < 500 ? ['close', 'rejected'] : ['fail', 'server_error']);
  return { then, reason, floorMs, error: status === 204 ? null : error };
}

/** When to come back from an instance that is going and does not say. */
export const drainMs = () => 1_000 + Math.random() * 1_000;
