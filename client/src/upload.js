/** @file Uploads: only `XMLHttpRequest` tells how far one is. */

import { errorOf } from './errors.js';

/**
 * @param {string} url
 * @param {Blob} file
 * @param {{headers: Record<string, string>, credentials?: RequestCredentials, signal?: AbortSignal, onProgress:
 *   (progress: {loaded: number, total: number}) => void}} options
 * @returns {Promise<any>}
 */
export function upload(url, file, { headers, credentials, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', url);
    request.withCredentials = credentials === 'include';
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = onProgress;
    request.onerror = () => reject(new TypeError('network'));
    request.onabort = () => reject(signal?.reason);
    request.onload = () => {
      if (request.status < 300) return resolve(JSON.parse(request.responseText));
      reject(
        errorOf(
          { status: request.status, headers: { get: (name) => request.getResponseHeader(name) } },
          request.responseText,
        ),
      );
    };
    signal?.throwIfAborted();
    signal?.addEventListener('abort', () => request.abort());
    request.send(file);
  });
}
