/** @file When a page sleeps, wakes and is online. Outside of a page none of it ever happens. */

/**
 * Calls `handler` at each of the page's events; returns what ends that.
 * @param {string} types Separated by spaces. Those with a colon are the document's.
 * @param {(event: any) => void} handler
 */
function listen(types, handler) {
  const undo = types.split(' ').map((type) => {
    const target = type[0] === ':' ? globalThis.document : globalThis.window;
    const name = type.replace(':', '');
    target?.addEventListener?.(name, handler);
    return () => target?.removeEventListener?.(name, handler);
  });
  return () => undo.forEach((one) => one());
}

/** Says whether somebody may be looking. */
export const isVisible = () => globalThis.document?.visibilityState !== 'hidden';

/** Says whether there is no network. That there is one cannot be known. */
export const isOffline = () => globalThis.navigator?.onLine === false;

/**
 * `leave`: the page goes, perhaps into the back/forward cache, or is frozen. `enter`: it is back from there. `wake`: it is seen again, or the network is back.
 * Browsers do not always tell of visibility after a freeze, hence both events.
 * @param {{leave?: () => void, enter?: () => void, wake?: (cause: string) => void}} handlers
 */
export function onLifecycle({ leave, enter, wake }) {
  return listen('pagehide pageshow online :freeze :resume :visibilitychange', (event) => {
    if (event.type === 'pagehide' || event.type === 'freeze') leave?.();
    else if (event.type === 'resume' || event.persisted) enter?.();
    else if (event.type === 'online' || (event.type !== 'pageshow' && isVisible())) wake?.(event.type);
  });
}

/**
 * Waits, or returns sooner if the signal is aborted.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}
