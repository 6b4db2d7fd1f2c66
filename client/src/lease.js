/** @file Locks for pages that have none: those without a secure origin. */

import { sleep } from './lifecycle.js';
import { randomName } from './random-name.js';

const LEASE_MS = 10_000;
const RENEW_MS = 3_000;

/**
 * Returns the part of `navigator.locks` that an elector needs, kept in `localStorage`. Two tabs may hold such a lock
 * for some seconds when they ask at once, or when the first is throttled; terms tell them apart.
 * @param {Storage} storage
 */
export const leaseLocks = (storage) => ({
  /** @param {string} name @param {{signal?: AbortSignal, steal?: boolean}} options @param {() => unknown} callback */
  async request(name, { signal, steal }, callback) {
    const key = `${name}:lease`;
    const id = randomName();
    const read = () => JSON.parse(storage.getItem(key) ?? '{}');
    for (; !steal && read().until > Date.now(); await sleep(200 + Math.random() * 300, signal)) signal?.throwIfAborted();
    const write = () => storage.setItem(key, JSON.stringify({ id, until: Date.now() + LEASE_MS }));
    write();
    const lost = async () => {
      for (; read().id === id; await sleep(RENEW_MS)) write();
    };
    await Promise.race([callback(), lost()]);
    if (read().id === id) storage.removeItem(key);
  },
});
