/** @file What a browser keeps for all of its tabs, if it is let. */

import { uuid } from './uuid.js';

/** @returns {Storage | null} */
export function localStorageOrNull() {
  try {
    // Reading the property alone throws where storage is forbidden.
    return globalThis.localStorage ?? null;
  } catch {
    return null;
  }
}

/**
 * Returns the browser's name for its stream: who leads next takes the place of who led before, and is not one too many.
 * @param {string} name
 * @param {Storage | null} [storage]
 * @returns {string}
 */
export function streamName(name, storage = localStorageOrNull()) {
  const key = `${name}:stream`;
  const id = storage?.getItem(key) ?? uuid();
  try {
    storage?.setItem(key, id);
  } catch {
    // The old stream is then one too many until the server sees its end.
  }
  return id;
}
