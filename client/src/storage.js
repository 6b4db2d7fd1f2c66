/** @file What a browser keeps for all of its tabs, if it is let. */

import { randomName } from './random-name.js';

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
 * Reads what is kept, or keeps it. What is full or forbidden keeps nothing.
 * @param {Storage | null} storage
 * @param {string} key
 * @param {string} [value]
 */
export function stored(storage, key, value) {
  try {
    if (value) storage?.setItem(key, value);
    else return storage?.getItem(key);
  } catch {
    // Of streams the old one is then one too many until the server sees its end; of terms those that tabs tell each
    // other are enough.
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
  const id = stored(storage, key) ?? randomName();
  stored(storage, key, id);
  return id;
}
