/** @file What a connection can be told. */

/** @import { ChatApi } from './chat-api.js' */
/** @import { ChatEvent } from './wire.js' */

/**
 * @typedef {object} ConnectionOptions
 * @property {ChatApi} api
 * @property {string} project_id
 * @property {(event: ChatEvent) => void} [onMessage] Called with each event.
 * @property {string} [user] Who is signed in; asked of the server if it is not given. Tabs of other users are
 *   strangers.
 * @property {string | null} [since] The `cursor` of a page of history: what came after it comes first. Default: now.
 * @property {'jobs'} [include] Adds the caller's jobs.
 * @property {import('./sse-options.js').SSEClientOptions} [stream] How the stream behaves.
 * @property {number} [pollMs] Between two polls while there is no stream, at least. Default 1,000.
 * @property {import('./leader.js').Platform} [platform] What stands for the browser's locks, storage and channels.
 */

export {};
