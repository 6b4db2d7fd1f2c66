/** @file What a browser calls its stream. */

import { randomName } from './random-name.js';

/**
 * Returns the browser's name for its stream, the same in all tabs: who leads next takes the place of who led before,
 * and is not one too many.
 * @param {string} name
 * @param {Storage | null} [storage]
 */
export function streamName(name, storage) {
  const key = `${name}:stream`;
  let id = randomName();
  try {
    storage ??= localStorage;
    id = storage.getItem(key) ?? id;
    storage.setItem(key, id);
  } catch {
    // What is full or forbidden keeps nothing: the old stream is then one too many until the server sees its end.
  }
  return id;
}
