/** @file Short names for long texts. */

/**
 * Returns 64 bits of the text (FNV-1a): enough to tell things apart, no secret.
 * @param {string} text
 */
export function hash(text) {
  let sum = 14695981039346656037n;
  for (const character of text)
    sum = BigInt.asUintN(64, (sum ^ BigInt(/** @type {number} */ (character.codePointAt(0)))) * 1099511628211n);
  return sum.toString(36);
}
