/** @file How both services are called, whatever for. */

import { Backoff } from './backoff.js';
import { errorOf } from './errors.js';
import { sleep } from './lifecycle.js';
import { SSEClient, valueOf } from './sse-client.js';

/** @import { ApiOptions, RequestOptions } from './http-options.js' */

/**
 * @param {string} url
 * @param {RequestOptions['query']} [query] What is not there is left out.
 */
function withQuery(url, query = {}) {
  const there = Object.entries(query).filter(([, value]) => value != null);
  return there.length ? `${url}?${new URLSearchParams(/** @type {[string, string][]} */ (there))}` : url;
}

/**
 * Makes requests and streams of both services, for one caller. Reads that are under way are shared, and what was
 * refused for now is repeated when that is safe; a refused request throws `HttpError`.
 */
export class ApiClient {
  /** The session that requests belong to, once there was one. @type {string | null | undefined} */
  sessionId;
  /** @type {Record<string, Promise<any>>} */
  #reads = {};
  /** @type {Promise<unknown> | null} */
  #refreshing = null;

  /** @param {ApiOptions} [options] */
  constructor({ ingressUrl = '', procUrl = ingressUrl, ...options } = {}) {
    this.options = options;
    this.ingressUrl = ingressUrl;
    this.procUrl = procUrl;
    this.sessionId = options.sessionId;
  }

  /** Returns where a path is. @param {string} path */
  url(path) {
    return (path.startsWith('/api/integrations') ? this.procUrl : this.ingressUrl) + path;
  }

  /** What says who is calling. @returns {Promise<Record<string, string>>} */
  async headers() {
    const { token, idToken, headers } = this.options;
    const access = await valueOf(token);
    const id = await valueOf(idToken);
    return {
      ...(access && { Authorization: `Bearer ${access}` }),
      ...(id && { 'X-ID-Token': id }),
      ...(this.sessionId && { 'User-Session-ID': this.sessionId }),
      ...headers,
    };
  }

  /** Has the caller sign in again, once for all requests that were refused. */
  unauthorized() {
    const { onUnauthorized } = this.options;
    return (this.#refreshing ??= Promise.resolve(onUnauthorized?.()).finally(() => (this.#refreshing = null)));
  }

  /**
   * Returns the successful response, after repetitions if need be.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [request]
   * @returns {Promise<Response>}
   */
  async send(method, path, { query, body, headers, idempotencyKey, signal, fetch = this.options.fetch } = {}) {
    const { credentials, onUnauthorized, maxAttempts = 5, retryBaseMs = 1_000 } = this.options;
    const isJson = body?.constructor === Object;
    const isSafe = method !== 'POST' || idempotencyKey;
    const backoff = new Backoff({ baseMs: 3 * retryBaseMs, jitterMs: retryBaseMs });
    for (let refreshed = !onUnauthorized; ;) {
      try {
        const response = await (fetch ?? globalThis.fetch)(withQuery(this.url(path), query), {
          method,
          credentials,
          cache: 'no-store',
          signal,
          body: isJson ? JSON.stringify(body) : body,
          headers: {
            ...(await this.headers()),
            ...(isJson && { 'Content-Type': 'application/json' }),
            ...(idempotencyKey && { 'Idempotency-Key': idempotencyKey }),
            ...headers,
          },
        });
        this.sessionId ??= response.headers.get('X-Session-ID');
        if (response.ok) return response;
        throw await errorOf(response);
      } catch (error) {
        const { status, code, retryAfterMs } = /** @type {any} */ (error);
        if (signal?.aborted) throw error;
        // It was refused before anything was done, or doing it twice is doing it once. The last is a cut network.
        const isRepeatable =
          status === 429 ||
          /backpressure|draining/.test(code) ||
          (isSafe && (status === 408 || status > 501 || error instanceof TypeError));
        if (status === 401 && !refreshed) {
          refreshed = true;
          await this.unauthorized();
        } else if (isRepeatable && backoff.attempt < maxAttempts - 1)
          await sleep(backoff.next(retryAfterMs), signal);
        else throw error;
      }
    }
  }

  /**
   * Makes any request; paths of `/api/integrations` go to proc. Returns the JSON, `null` if there is none.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async request(method, path, options) {
    const response = await this.send(method, path, options);
    const text = await response.text();
    return text ? JSON.parse(text) : null;
  }

  /**
   * Reads; the same read at the same time is made once.
   * @param {string} path
   * @param {RequestOptions['query']} [query]
   * @returns {Promise<any>}
   */
  get(path, query) {
    const key = withQuery(path, query);
    return (this.#reads[key] ??= this.request('GET', key).finally(() => delete this.#reads[key]));
  }

  /**
   * Returns a stream of a path, not yet started, for the same caller.
   * @param {string} path
   * @param {RequestOptions['query']} query
   * @param {import('./sse-options.js').SSEClientOptions} [options]
   */
  stream(path, query, options) {
    const { fetch, credentials, onUnauthorized } = this.options;
    return new SSEClient(withQuery(this.url(path), query), {
      headers: () => this.headers(),
      onUnauthorized: onUnauthorized && (() => this.unauthorized()),
      fetch,
      credentials,
      ...options,
    });
  }
}
