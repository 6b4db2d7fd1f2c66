/** @file Handlers by name. */

/**
 * Calls handlers; one that throws is reported as any uncaught error is and stops neither the others nor the stream.
 * @template {Record<string, any>} Events
 */
export class Emitter {
  /** @type {Record<any, Set<(value: any) => void>>} */
  #handlers = Object.create(null);

  /**
   * Adds a handler; returns what takes it away.
   * @template {keyof Events} Type
   * @param {Type} type
   * @param {(value: Events[Type]) => void} handler
   * @returns {() => void}
   */
  on(type, handler) {
    const handlers = (this.#handlers[type] ??= new Set()).add(handler);
    return () => void handlers.delete(handler);
  }

  /**
   * Waits for the next event of any of these types.
   * @param {...keyof Events} types
   * @returns {Promise<void>}
   * @protected
   */
  next(...types) {
    return new Promise((resolve) => {
      const undo = types.map((type) => this.on(type, () => (undo.forEach((one) => one()), resolve())));
    });
  }

  /**
   * @template {keyof Events} Type
   * @param {Type} type
   * @param {Events[Type]} [value]
   * @protected
   */
  emit(type, value) {
    for (const handler of new Set(this.#handlers[type])) {
      try {
        handler(/** @type {Events[Type]} */ (value));
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}
