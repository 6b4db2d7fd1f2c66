/** @file What a refused request is: one class for each thing a caller can do about it. */

/** An answer that is not a success. `body` has the server's `error` and `message`. */
export class HttpError extends Error {
  /**
   * @param {number} status
   * @param {number | undefined} retryAfterMs
   * @param {Record<string, any>} body
   * @param {string | null} traceId
   */
  constructor(status, retryAfterMs, body, traceId) {
    super(body.message ?? `HTTP ${status}`);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    this.body = body;
    this.traceId = traceId;
    /** The server's word for it, such as `not_found`. @type {string | undefined} */
    this.code = body.error ?? body.status;
  }
}

/** 429: too many requests, or too many streams (`code` is `too_many_connections`). */
export class RateLimitedError extends HttpError {
  /** What is full, if it is streams. @returns {import('./status.js').ConnectionLimit | undefined} */
  get limit() {
    const { max_connections: max, current_connections: current, scope } = this.body;
    return max && { max, current, scope };
  }
}

/** 503 of an instance that is going: another one, or the same a little later, will answer. */
export class DrainingError extends HttpError {}

/**
 * Returns the error that a response stands for.
 * @param {Response} response
 */
export async function errorOf(response) {
  const { status, headers } = response;
  let body = Object();
  try {
    body = Object(JSON.parse(await response.text()));
  } catch {
    // A proxy's page says nothing to a program.
  }
  const code = body.error ?? body.status;
  const Class = status === 429 ? RateLimitedError : code === 'draining' ? DrainingError : HttpError;
  // Times of day, which `Retry-After` may have too, say less than our own clock is wrong by.
  const retryAfterMs = body.retry_after_ms ?? (Number(headers.get('Retry-After')) * 1_000 || undefined);
  return new Class(status, retryAfterMs, body, headers.get('X-Trace-ID'));
}
