/** @file Short names for long texts. */

/**
 * Returns 64 bits of the text: enough to tell things apart, no secret. The factor is more than any character, so that
 * texts which differ in few of them do not meet.
 * @param {string} text
 */
export function hash(text) {
  let sum = 0n;
  for (const character of text)
    sum = BigInt.asUintN(64, sum * 2097153n + BigInt(/** @type {number} */ (character.codePointAt(0))));
  return sum.toString(36);
}
