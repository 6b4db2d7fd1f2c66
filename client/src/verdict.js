/** @file The status table: what an answer to the opening of a stream means. */

import { errorOf } from './errors.js';

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

/** What follows, and why: by the server's word for it, or by the status. @type {Record<string, string>} */
const TABLE = {
  200: 'fail protocol',
  401: 'close auth',
  403: 'close forbidden',
  404: 'close gone',
  410: 'close gone',
  408: 'fail server_error',
  409: 'fail gap',
  429: 'fail rate_limited',
  503: 'fail backpressure',
  draining: 'wait draining',
  too_many_connections: 'block too_many_connections',
  sse_disabled: 'block disabled',
};

/**
 * Returns what to do instead of reading the response, or nothing if it is an event stream.
 * @param {Response} response
 * @returns {Promise<Plan | null>}
 */
export async function verdict(response) {
  const { status, headers } = response;
  if (status === 200 && headers.get('Content-Type')?.startsWith('text/event-stream')) return null;
  if (status === 204) return { then: 'close', reason: 'done' };
  const error = await errorOf(response);
  const row =
    TABLE[/** @type {string} */ (error.code)] ??
    TABLE[status] ??
    (status < 500 ? 'close rejected' : 'fail server_error');
  const [then, reason] = /** @type {[Then, import('./status.js').Reason]} */ (row.split(' '));
  return { then, reason, error };
}
