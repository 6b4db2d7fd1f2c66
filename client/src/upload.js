/** @file Uploads: only `XMLHttpRequest` tells how far one is. */

/**
 * Returns what stands for `fetch` where that is to be told.
 * @param {(progress: {loaded: number, total: number}) => void} onProgress
 */
export const fetchTelling =
  (onProgress) =>
  /**
   * @param {string} url
   * @param {{method: string, headers: Record<string, string>, credentials?: RequestCredentials, body?: any, signal?:
   *   AbortSignal}} init
   * @returns {Promise<Response>}
   */
  (url, { method, headers, credentials, body, signal }) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(method, url);
      request.withCredentials = credentials === 'include';
      for (const name in headers) request.setRequestHeader(name, /** @type {string} */ (headers[name]));
      request.upload.onprogress = onProgress;
      request.onerror = () => reject(new TypeError('network'));
      request.onabort = () => reject(signal?.reason);
      request.onload = () => {
        const { status, responseText } = request;
        const headers = { get: (/** @type {string} */ name) => request.getResponseHeader(name) };
        // As much of a response as is read.
        resolve(/** @type {any} */ ({ ok: status < 300, status, headers, text: async () => responseText }));
      };
      signal?.throwIfAborted();
      signal?.addEventListener('abort', () => request.abort());
      request.send(body);
    });
