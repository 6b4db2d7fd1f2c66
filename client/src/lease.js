/** @file Locks for pages that have none: those without a secure origin. */

import { sleep } from './lifecycle.js';
import { randomName } from './random-name.js';

const LEASE_MS = 10_000;
const RENEW_MS = 3_000;

/**
 * Returns the part of `navigator.locks` that an elector needs, kept in `localStorage`. Two tabs may hold such a lock
 * for some seconds when the first is throttled; terms tell them apart.
 * @param {Storage} storage
 */
export function leaseLocks(storage) {
  return {
    /** @param {string} name @param {{signal?: AbortSignal, steal?: boolean}} options @param {() => unknown} callback */
    async request(name, { signal, steal }, callback) {
      const id = randomName();
      const key = `${name}:lease`;
      const read = () => JSON.parse(storage.getItem(key) ?? '{}');
      const write = () => storage.setItem(key, JSON.stringify({ id, until: Date.now() + LEASE_MS }));
      while (true) {
        signal?.throwIfAborted();
        if (steal || !(read().until > Date.now())) {
          write();
          // Whoever writes last has it.
          await sleep(50 + Math.random() * 50, signal);
          if (read().id === id) break;
          steal = false;
        } else await sleep(200 + Math.random() * 300, signal);
      }
      const lost = async () => {
        for (; read().id === id; await sleep(RENEW_MS)) write();
      };
      try {
        await Promise.race([callback(), lost()]);
      } finally {
        if (read().id === id) storage.removeItem(key);
      }
    },
  };
}
