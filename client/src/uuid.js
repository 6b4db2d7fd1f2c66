/** @file Random names. */

/** Returns a random UUID, on pages without a secure origin too. @returns {string} */
export function uuid() {
  // An 8 keeps its first two bits, which are the variant.
  return '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, (digit) => {
    const [byte = 0] = crypto.getRandomValues(new Uint8Array(1));
    return (Number(digit) ^ (byte & (15 >> (Number(digit) / 4)))).toString(16);
  });
}
