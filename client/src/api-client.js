/** @file How both services are called, whatever for. */

import { Http, withQuery } from './http.js';
import { SSEClient } from './sse-client.js';

/** @import { HttpOptions, RequestOptions } from './http.js' */

/**
 * @typedef {HttpOptions & {ingressUrl?: string, procUrl?: string}} ApiOptions Base URLs without a slash at the end; the
 *   page's own origin is the default of the first, the first that of the second.
 */

/**
 * Makes requests and streams of both services. Reads that are under way are shared; a refused request throws
 * `HttpError`.
 */
export class ApiClient extends Http {
  /** @type {Record<string, Promise<any>>} */
  #reads = {};

  /** @param {ApiOptions} [options] */
  constructor({ ingressUrl = '', procUrl = ingressUrl, ...options } = {}) {
    super(options);
    this.ingressUrl = ingressUrl;
    this.procUrl = procUrl;
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

  /** @override @param {string} path */
  url(path) {
    return (path.startsWith('/api/integrations') ? this.procUrl : this.ingressUrl) + path;
  }

  /**
   * Reads; the same read at the same time is made once.
   * @param {string} path
   * @param {RequestOptions['query']} [query]
   * @returns {Promise<any>}
   */
  get(path, query = {}) {
    const key = path + JSON.stringify(query);
    return (this.#reads[key] ??= this.request('GET', path, { query }).finally(() => delete this.#reads[key]));
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
