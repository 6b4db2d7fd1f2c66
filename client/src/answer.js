/** @file One streamed answer. */

import { randomName } from './random-name.js';
import { Reporter } from './status.js';

/** @import { Completion, Source } from './wire.js' */

/**
 * @typedef {object} AnswerOptions
 * @property {import('./chat-api.js').ChatApi} api
 * @property {string} query
 * @property {string} project_id
 * @property {string} [user_id]
 * @property {string} [stream_id] The answer's name, made if it is not given: who asks under the same name again gets
 *   the same answer.
 * @property {number} [max_tokens]
 * @property {number} [temperature]
 * @property {string} [lastEventId] The `cursor` of an answer that began earlier, perhaps in another life of the page:
 *   it goes on from there.
 * @property {number} [maxReconnects] Failures in a row before giving up. Default 3.
 * @property {number} [silenceMs] Default: what the server says.
 * @property {import('./backoff.js').BackoffOptions} [backoff]
 * @property {number} [openTimeoutMs] How long the first byte may take. Default 10,000.
 * @property {AbortSignal} [signal] Detaches.
 */

/**
 * Asks, and returns the answer that is being written.
 * @param {AnswerOptions} options
 */
export function streamAnswer(options) {
  return new AnswerStream(options).resume();
}

/**
 * An answer as it is written. A dropped connection continues it, without a chunk missing or repeated, and never asks a
 * second time.
 * @extends {Reporter<{content: {index: number, text: string}, heartbeat: any, complete: Completion, error: Error}>}
 */
export class AnswerStream extends Reporter {
  /** All of it until now. */
  text = '';
  /** @type {Source[]} */
  sources = [];
  /** The answer's name for `ChatApi.answer` and `ChatApi.cancelAnswer`. */
  streamId;
  /** Settles with the end of the answer; rejects if it is not to be had. @type {Promise<Completion>} */
  done;

  /** The stream underneath. @type {import('./sse-client.js').SSEClient} */
  stream;

  #next = 0;
  #api;
  /** @type {Completion | null} */
  #capped = null;
  /** @type {Error | undefined} */
  #failure;

  /** @param {AnswerOptions} options */
  constructor({ api, lastEventId, maxReconnects = 3, silenceMs, openTimeoutMs, backoff, signal, ...asked }) {
    super();
    this.#api = api;
    this.done = new Promise((resolve, reject) => {
      this.on('complete', resolve);
      this.on('error', reject);
    });
    this.done.catch(() => {});
    this.streamId = asked.stream_id ?? randomName();
    const query = { ...asked, stream_id: this.streamId };
    const options = { maxAttempts: maxReconnects, lastEventId, silenceMs, openTimeoutMs, backoff, signal };
    const stream = (this.stream = api.stream('/stream/search', query, options));
    stream.on('heartbeat', ({ data }) => this.emit('heartbeat', JSON.parse(data)));
    stream.on('event', ({ event, data }) => {
      const told = JSON.parse(data);
      this.streamId = told.stream_id ?? told.streamId ?? this.streamId;
      if (event === 'content_chunk' && told.index >= this.#next) {
        this.#next = told.index + 1;
        this.text += told.text;
        this.emit('content', told);
      } else if (event === 'complete') {
        // The cap is the stream's; whether it is the answer's too, the next request shows.
        if (told.reason === 'duration_cap' && !this.#capped) {
          this.#capped = told;
          stream.restart();
        } else this.#complete(told);
      } else if (event === 'error') this.#fail(Object.assign(new Error(told.message), { code: told.code }));
    });
    stream.on('failure', (error) => (this.#failure = /** @type {Error} */ (error)));
    stream.on('status', (status) => this.set(status));
    stream.on('closed', ({ reason }) => {
      if (reason === 'done') this.#complete(this.#capped ?? { reason: 'finished' });
      else if (reason !== 'stopped') this.#fail(this.#failure ?? new Error(reason));
    });
  }

  /** Where to go on: `lastEventId` of another `streamAnswer`. */
  get cursor() {
    return this.stream.lastEventId;
  }
  get traceId() {
    return this.status.traceId;
  }

  /** Reads on, after `detach` or after it gave up. @param {string} [cursor] @returns {this} */
  resume(cursor) {
    if (cursor) this.stream.lastEventId = cursor;
    this.stream.start();
    return this;
  }

  /** Stops reading. The answer is written to its end all the same. */
  detach() {
    this.stream.stop();
  }

  /** Has the server stop writing; `complete` with `cancelled` follows. @returns {Promise<unknown>} */
  cancel() {
    return this.#api.cancelAnswer(this.streamId);
  }

  /** The pieces of text. @returns {AsyncGenerator<string, Completion, void>} */
  async *[Symbol.asyncIterator]() {
    for (let from = 0; ;) {
      if (from < this.text.length) yield this.text.slice(from, (from = this.text.length));
      // What has settled wins.
      else if (this.status.state === 'closed') return Promise.race([this.done, { reason: 'detached' }]);
      else await this.next('content', 'status');
    }
  }

  /** @param {Completion} end */
  #complete(end) {
    this.stream.stop();
    this.sources = end.sources ?? [];
    this.emit('complete', end);
  }

  /** @param {Error} error */
  #fail(error) {
    if (this.#capped) return this.#complete(this.#capped);
    this.stream.stop();
    this.emit('error', error);
  }
}
