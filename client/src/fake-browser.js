/** @file A browser in memory, as far as tabs share it. */

/** One browser: connections that are given the same one are its tabs. */
export class FakeBrowser {
  /** @type {Map<string, {queue: (() => void)[], steal: (() => void) | null}>} */
  #locks = new Map();
  /** @type {Set<any>} */
  #channels = new Set();
  /** @type {Map<string, string>} */
  #items = new Map();

  /** Returns what the tabs share: `platform` of a connection. @returns {import('./leader.js').Platform} */
  get platform() {
    const channels = this.#channels;
    class FakeChannel {
      /** @type {((event: {data: any}) => void) | null} */
      onmessage = null;
      /** @param {string} name */
      constructor(name) {
        this.name = name;
        channels.add(this);
      }
      /** @param {any} data */
      postMessage(data) {
        const copy = structuredClone(data);
        for (const other of channels)
          if (other !== this && other.name === this.name)
            setTimeout(() => channels.has(other) && other.onmessage?.({ data: copy }));
      }
      close() {
        channels.delete(this);
      }
    }
    const items = this.#items;
    return {
      locks: { request: (name, options, callback) => this.#request(name, options, callback) },
      storage: /** @type {any} */ ({
        getItem: (/** @type {string} */ key) => items.get(key) ?? null,
        setItem: (/** @type {string} */ key, /** @type {string} */ value) => void items.set(key, value),
        removeItem: (/** @type {string} */ key) => void items.delete(key),
      }),
      BroadcastChannel: /** @type {any} */ (FakeChannel),
    };
  }

  /** Takes every lock from who holds it, as a tab does whose leader seems to sleep. */
  steal() {
    for (const { steal } of this.#locks.values()) steal?.();
  }

  /** @param {string} name @param {{signal?: AbortSignal, steal?: boolean}} options @param {() => unknown} callback */
  async #request(name, { signal, steal }, callback) {
    await null;
    signal?.throwIfAborted();
    const lock = this.#locks.get(name) ?? { queue: [], steal: null };
    this.#locks.set(name, lock);
    if (lock.steal && steal) lock.steal();
    else if (lock.steal) {
      await new Promise((resolve, reject) => {
        const granted = () => resolve(null);
        lock.queue.push(granted);
        signal?.addEventListener('abort', () => {
          lock.queue = lock.queue.filter((one) => one !== granted);
          reject(signal.reason);
        });
      });
    }
    const stolen = new Promise((_, reject) => (lock.steal = () => reject(new DOMException('stolen', 'AbortError'))));
    const mine = lock.steal;
    try {
      await Promise.race([callback(), stolen]);
    } finally {
      if (lock.steal === mine) {
        const next = lock.queue.shift();
        lock.steal = next ? () => {} : null;
        next?.();
      }
    }
  }
}
