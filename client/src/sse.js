/** @file `@parley/client/sse`: event streams alone. */

export { Backoff } from './backoff.js';
export { DrainingError, HttpError, RateLimitedError } from './errors.js';
export { SSEClient } from './sse-client.js';
