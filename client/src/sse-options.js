/** @file What a stream can be told, and what it tells. */

/**
 * An event as it came. Those without a name are `message`.
 * @typedef {{event: string, data: string, id?: string}} StreamEvent
 */

/**
 * Besides these, all that `fetch` takes: `method`, `body`, `credentials`, `priority`.
 * @typedef {object} OwnOptions
 * @property {Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)} [headers] Asked
 *   anew for each attempt if it is a function.
 * @property {typeof fetch} [fetch]
 * @property {string | null} [lastEventId] Where to go on.
 * @property {import('./backoff.js').BackoffOptions} [backoff]
 * @property {number} [silenceMs] After how long without a byte the stream is dead. Default: what the server says, else
 *   60,000.
 * @property {number} [openTimeoutMs] How long the headers, and then the first byte, may take. Default 10,000.
 * @property {number} [stableMs] After how long an open stream makes earlier failures forgotten. Default 30,000.
 * @property {number} [bufferedRetryMs] When to try again behind a proxy that holds events back. Default 300,000.
 * @property {(signal: AbortSignal) => Promise<void>} [poll] Called again and again while the stream is blocked, to have
 *   in another way what it would bring.
 * @property {number} [pollMs] Between two of these calls. Default 1,000.
 * @property {number} [maxAttempts] How many failures in a row are borne. Default: all. For a stream that
 *   counts them, to be `blocked` is a failure too.
 * @property {() => unknown} [onUnauthorized] Called once for a refused sign-in; if it does not throw, the stream is
 *   tried once more.
 * @property {AbortSignal} [signal] Stops it.
 */
/** @typedef {OwnOptions & Omit<RequestInit, 'headers' | 'signal'>} SSEClientOptions */

export {};
