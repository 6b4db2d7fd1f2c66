/** @file When a page sleeps, wakes and is online. Outside of a page none of it ever happens. */

/** Says whether somebody may be looking. */
export const isVisible = () => !globalThis.document?.hidden;

/** Says whether there is no network. That there is one cannot be known. */
export const isOffline = () => globalThis.navigator?.onLine === false;

/**
 * `leave`: the page goes, perhaps into the back/forward cache, or is frozen. `enter`: it is back from there. `wake`: it
 * is seen again or no more, or the network is back. Browsers do not always tell of visibility after a freeze, hence
 * both events.
 * @param {AbortSignal} signal
 * @param {{leave: () => void, enter: () => void, wake?: (event: Event) => void}} handlers
 */
export function onLifecycle(signal, { leave, enter, wake }) {
  /** @param {string} type @param {(event: any) => unknown} [handler] */
  const on = (type, handler) =>
    // On their way down, all of them pass the window.
    globalThis.addEventListener?.(type, /** @type {any} */ (handler), { capture: true, signal });
  on('pagehide', leave);
  on('freeze', leave);
  on('pageshow', ({ persisted }) => persisted && enter());
  on('resume', enter);
  on('online', wake);
  on('visibilitychange', wake);
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
