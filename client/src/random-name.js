/** @file Random names. */

/** Returns a name that nobody else has: 128 bits by chance, on pages without a secure origin too. */
export const randomName = () => crypto.getRandomValues(new BigUint64Array(2)).join('-');
