/** @file What a client of both services can be told, and a request. */

/**
 * @typedef {object} ApiOptions
 * @property {string} [ingressUrl] Without a slash at the end. Default: the page's own origin.
 * @property {string} [procUrl] Default: `ingressUrl`.
 * @property {string | (() => string | null | Promise<string | null>)} [token] Access token; without one the cookies
 *   count.
 * @property {string | (() => string | null | Promise<string | null>)} [idToken] The ID token that goes with it, unless
 *   sign-in is `simple`.
 * @property {string} [sessionId] The user's session; without one the server's first answer names it.
 * @property {Record<string, string>} [headers] More of them.
 * @property {RequestCredentials} [credentials] `include` sends cookies to other origins too.
 * @property {typeof fetch} [fetch]
 * @property {() => unknown} [onUnauthorized] Called for a refused sign-in, once at a time; if it does not throw, the
 *   request is made once more.
 * @property {number} [maxAttempts] Default 5.
 * @property {number} [retryBaseMs] The first repetition waits for 1.5 to 3 of it, and for up to one more. Default
 *   1,000.
 */

/**
 * @typedef {object} RequestOptions
 * @property {Record<string, string | number | boolean | null | undefined>} [query]
 * @property {any} [body] A plain object is sent as JSON, all else as it is.
 * @property {Record<string, string>} [headers]
 * @property {string} [idempotencyKey] Makes a POST safe to repeat.
 * @property {AbortSignal} [signal]
 * @property {(url: string, init: any) => Promise<Response>} [fetch]
 */

export {};
