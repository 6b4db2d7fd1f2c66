/** @file Requests that are repeated when that is safe. */

import { DrainingError, errorOf } from './errors.js';
import { sleep } from './lifecycle.js';

/**
 * @typedef {object} HttpOptions
 * @property {string | (() => string | null | Promise<string | null>)} [token] Access token; without one the cookies
 *   count.
 * @property {string | (() => string | null | Promise<string | null>)} [idToken] The ID token that goes with it, unless
 *   sign-in is `simple`.
 * @property {string} [sessionId] The user's session; without one the server's first answer names it.
 * @property {Record<string, string>} [headers] More of them.
 * @property {RequestCredentials} [credentials] `include` sends cookies to other origins too.
 * @property {typeof fetch} [fetch]
 * @property {() => unknown} [onUnauthorized] Called for a refused sign-in, once at a time; if it does not throw, the
 *   request is made once more.
 * @property {number} [maxAttempts] Default 5.
 * @property {number} [retryBaseMs] The shortest first wait before a repetition. Default 1,000.
 */

/**
 * @typedef {object} RequestOptions
 * @property {Record<string, string | number | boolean | null | undefined>} [query]
 * @property {any} [body] Sent as JSON, or as it is if it is a Blob or an ArrayBuffer.
 * @property {Record<string, string>} [headers]
 * @property {string} [idempotencyKey] Makes a POST safe to repeat.
 * @property {AbortSignal} [signal]
 */

/**
 * @param {string} url
 * @param {RequestOptions['query']} [query] What is not there is left out.
 */
export function withQuery(url, query = {}) {
  const there = Object.entries(query).filter(([, value]) => value != null);
  return there.length ? `${url}?${new URLSearchParams(/** @type {[string, string][]} */ (there))}` : url;
}

/** Sends requests of one caller. */
export class Http {
  /** The session that requests belong to, once there was one. */
  sessionId;

  /** @param {HttpOptions} options */
  constructor(options) {
    this.options = options;
    this.sessionId = options.sessionId;
  }

  /** Returns where a path is. @param {string} path */
  url(path) {
    return path;
  }

  /** What says who is calling. @returns {Promise<Record<string, string>>} */
  async headers() {
    const { token, idToken, headers } = this.options;
    const [access, id] = await Promise.all([token, idToken].map((one) => (typeof one === 'function' ? one() : one)));
    return {
      ...(access && { Authorization: `Bearer ${access}` }),
      ...(id && { 'X-ID-Token': id }),
      ...(this.sessionId && { 'User-Session-ID': this.sessionId }),
      ...headers,
    };
  }

  /** @type {Promise<unknown> | null} */
  #refreshing = null;

  /** Has the caller sign in again, once for all requests that were refused. */
  async unauthorized() {
    const { onUnauthorized } = this.options;
    this.#refreshing ??= Promise.resolve(onUnauthorized?.()).finally(() => (this.#refreshing = null));
    await this.#refreshing;
  }

  /**
   * Returns the successful response, after repetitions if need be.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [request]
   * @returns {Promise<Response>}
   */
  async send(method, path, { query, body, headers, idempotencyKey, signal } = {}) {
    const {
      fetch = globalThis.fetch,
      credentials,
      onUnauthorized,
      maxAttempts = 5,
      retryBaseMs = 1_000,
    } = this.options;
    const raw = body === undefined || body instanceof Blob || body instanceof ArrayBuffer;
    const safe = method !== 'POST' || !!idempotencyKey;
    let refreshed = !onUnauthorized;
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(withQuery(this.url(path), query), {
          method,
          credentials,
          cache: 'no-store',
          signal,
          body: raw ? body : JSON.stringify(body),
          headers: {
            ...(await this.headers()),
            ...(!raw && { 'Content-Type': 'application/json' }),
            ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }),
            ...headers,
          },
        });
        this.sessionId ??= response.headers.get('X-Session-ID') ?? undefined;
        if (response.ok) return response;
        throw errorOf(response, await response.text());
      } catch (error) {
        const failure = /** @type {any} */ (error);
        if (signal?.aborted) throw failure;
        if (failure.status === 401 && !refreshed) {
          refreshed = true;
          await this.unauthorized();
        } else if (attempt < maxAttempts && repeatable(failure, safe)) {
          const waitMs = retryBaseMs * (0.5 + Math.random()) * 2 ** attempt;
          await sleep(Math.max(failure.retryAfterMs ?? 0, waitMs) + Math.random() * retryBaseMs, signal);
        } else throw failure;
      }
    }
  }
}

/**
 * Says whether the request may be made again: it was refused before anything was done, or doing it twice is doing it
 * once.
 * @param {any} failure
 * @param {boolean} safe
 */
const repeatable = (failure, safe) =>
  failure.status === 429 ||
  failure.code === 'backpressure' ||
  failure instanceof DrainingError ||
  // The last is a cut network.
  (safe && ([408, 502, 503, 504].includes(failure.status) || failure instanceof TypeError));
