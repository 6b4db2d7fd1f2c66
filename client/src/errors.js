/** @file What a refused request is: one class for each thing a caller can do about it. */

/** An answer that is not a success. `body` has the server's `error` and `message`. */
export class HttpError extends Error {
  /**
   * @param {number} status
   * @param {number | undefined} retryAfterMs
   * @param {Record<string, any>} body
   * @param {string | undefined} traceId
   */
  constructor(status, retryAfterMs, body, traceId) {
    super(body.message ?? `the server answered ${status}`);
    this.name = new.target.name;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
    this.body = body;
    this.traceId = traceId;
  }

  /** The server's word for it, such as `not_found`. @returns {string} */
  get code() {
    return this.body.error ?? '';
  }
}

/** 429: too many requests, or too many streams (`code` is `too_many_connections`, then `limit` is there). */
export class RateLimitedError extends HttpError {
  /** @type {import('./status.js').ConnectionLimit | undefined} */
  limit;
}

/** 503 of an instance that is going: another one, or the same a little later, will answer. */
export class DrainingError extends HttpError {}

/**
 * Returns the error that a response stands for.
 * @param {Response} response
 */
export async function errorOf(response) {
  const { status, headers } = response;
  const text = await response.text().catch(() => '');
  return errorFrom(status, headers, text);
}

/**
 * @param {number} status
 * @param {{get(name: string): string | null}} headers
 * @param {string} text
 */
export function errorFrom(status, headers, text) {
  /** @type {Record<string, any>} */
  let body = {};
  try {
    body = Object(JSON.parse(text));
  } catch {
    // A proxy's page says nothing to a program.
  }
  const traceId = headers.get('X-Trace-ID') ?? body.trace_id;
  const retryAfterMs = body.retry_after_ms ?? retryAfter(headers.get('Retry-After'));
  const draining = status === 503 && (body.error === 'draining' || body.status === 'draining');
  if (status !== 429) return new (draining ? DrainingError : HttpError)(status, retryAfterMs, body, traceId);
  const error = new RateLimitedError(status, retryAfterMs, body, traceId);
  if (body.error === 'too_many_connections') {
    const number = (/** @type {string} */ name, /** @type {any} */ other) => Number(headers.get(name) ?? other);
    error.limit = {
      max: number('X-SSE-Connection-Limit', body.max_connections),
      current: number('X-SSE-Current-Connections', body.current_connections),
      scope: body.scope,
    };
  }
  return error;
}

/** @param {string | null} value Seconds or a date. */
function retryAfter(value) {
  if (!value) return undefined;
  const ms = isNaN(+value) ? Date.parse(value) - Date.now() : +value * 1_000;
  return ms >= 0 ? ms : undefined;
}
