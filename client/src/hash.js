/** @file Short names for long texts. */

/**
 * Returns 64 bits of the text: enough to tell things apart, no secret.
 * @param {string} text
 */
export function hash(text) {
  let one = 0xdeadbeef;
  let other = 0x41c6ce57;
  for (const character of text) {
    const code = /** @type {number} */ (character.codePointAt(0));
    one = Math.imul(one ^ code, 2654435761);
    other = Math.imul(other ^ code, 1597334677);
    // What is high in a product says more than what is low.
    one ^= other >>> 15;
    other ^= one >>> 13;
  }
  return (one >>> 0).toString(36) + (other >>> 0).toString(36);
}
