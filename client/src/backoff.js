/** @file How long to wait before trying again. */

/**
 * @typedef {object} BackoffOptions
 * @property {number} [baseMs] The longest first wait, without the jitter. Default 1,000.
 * @property {number} [capMs] No wait is longer, jitter included, unless the server asks for it. Default 30,000.
 * @property {number} [jitterMs] Added at random to every wait. Default 1,000.
 * @property {() => number} [random] From 0 to 1, for tests.
 */

/**
 * Doubles its waits up to a cap. Half of each wait is by chance, and some more on top, so that clients which failed
 * together do not come back together: not at the cap either, and not when the server told all of them the same time.
 */
export class Backoff {
  /** How many waits there were since the last reset. */
  attempt = 0;
  baseMs = 1_000;
  capMs = 30_000;
  jitterMs = 1_000;
  random = Math.random;

  /** @param {BackoffOptions} [options] */
  constructor(options) {
    Object.assign(this, options);
  }

  /**
   * Returns the next wait, which is not shorter than what the server asked for.
   * @param {number} [floorMs]
   */
  next(floorMs = 0) {
    const highest = Math.min(this.capMs - this.jitterMs, this.baseMs * 2 ** this.attempt++);
    return this.after(Math.max(floorMs, highest * (0.5 + this.random() / 2)));
  }

  /**
   * Returns this wait with jitter; it does not count as a failure.
   * @param {number} waitMs
   */
  after(waitMs) {
    return waitMs + this.random() * this.jitterMs;
  }

  /** Starts with short waits again. */
  reset() {
    this.attempt = 0;
  }
}
