/** @file When a page sleeps, wakes and is online. Outside of a page none of it ever happens. */

/** Says whether somebody may be looking. */
export const isVisible = () => globalThis.document?.visibilityState !== 'hidden';

/** Says whether there is no network. That there is one cannot be known. */
export const isOffline = () => globalThis.navigator?.onLine === false;

/**
 * `leave`: the page goes, perhaps into the back/forward cache, or is frozen. `enter`: it is back from there. `wake`: it
 * is seen again or no more, or the network is back. Browsers do not always tell of visibility after a freeze, hence
 * both events.
 * @param {AbortSignal} signal
 * @param {{leave: () => void, enter: () => void, wake: (type: string) => void}} handlers
 */
export function onLifecycle(signal, { leave, enter, wake }) {
  for (const [types, handler] of /** @type {const} */ ([
    ['pagehide freeze', leave],
    ['pageshow resume', (/** @type {any} */ { persisted, type }) => (persisted || type === 'resume') && enter()],
    ['online visibilitychange', (/** @type {any} */ { type }) => wake(type)],
  ])) {
    // On their way down, all of them pass the window.
    for (const type of types.split(' ')) globalThis.addEventListener?.(type, handler, { capture: true, signal });
  }
}

/**
 * Waits, or returns sooner if the signal is aborted.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, signal?.aborted ? 0 : ms);
    signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()));
  });
}
