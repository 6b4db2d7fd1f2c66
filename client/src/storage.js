/** @file What a browser keeps for all of its tabs, if it is let. */

import { randomName } from './random-name.js';

/**
 * Reads what is kept, or keeps it. What is full or forbidden keeps nothing.
 * @param {Storage | null | undefined} storage Default: the page's own.
 * @param {string} key
 * @param {string} [value]
 */
export function stored(storage, key, value) {
  try {
    // Reading the property alone throws where storage is forbidden.
    const place = storage === undefined ? localStorage : storage;
    if (value) place?.setItem(key, value);
    else return place?.getItem(key);
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
export function streamName(name, storage) {
  const key = `${name}:stream`;
  const id = stored(storage, key) ?? randomName();
  stored(storage, key, id);
  return id;
}
