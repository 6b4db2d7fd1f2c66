/** @file The log of a project, by a stream or, where there can be none, by long polls. */

import { Emitter } from './emitter.js';
import { sleep } from './lifecycle.js';
import { SSEClient } from './sse-client.js';

/**
 * @import { ConnectionStatus } from './status.js'
 * @import { Entry } from './ring.js'
 */

/**
 * @typedef {object} FeedOptions
 * @property {import('./chat-api.js').ChatApi} api
 * @property {string} project_id
 * @property {'jobs'} [include] Adds the caller's jobs.
 * @property {string} streamId
 * @property {string | null} cursor
 * @property {import('./sse-client.js').SSEClientOptions} [stream] How the stream behaves.
 * @property {number} [pollMs] Between two polls, at least. Default 1,000.
 */

/** @extends {Emitter<{event: Entry, hello: any, gap: {reason: string, cursor: string | null}, status: ConnectionStatus, failure: unknown}>} */
export class Feed extends Emitter {
  #options;
  #polling = new AbortController();
  #polledAt = 0;

  /** @param {FeedOptions} options */
  constructor(options) {
    super();
    this.#options = options;
    const { api, project_id, include, streamId, cursor } = options;
    const { fetch, credentials, onUnauthorized } = api.http.options;
    const query = new URLSearchParams({ project_id, stream_id: streamId, ...(include && { include }) });
    const stream = (this.stream = new SSEClient(api.url(`/sse/stream?${query}`), {
      headers: () => api.http.headers(),
      onUnauthorized: onUnauthorized && (() => api.http.unauthorized()),
      fetch,
      credentials,
      ...options.stream,
      lastEventId: cursor,
    }));
    stream.on('message', ({ id, data }) => {
      const event = JSON.parse(data);
      if (event.type === 'hello') this.emit('hello', event);
      else this.emit('event', { id, event });
    });
    stream.on('gap', (gap) => this.emit('gap', gap));
    stream.on('failure', (error) => this.emit('failure', error));
    stream.on('status', (status) => {
      const polls = status.state === 'blocked' || (status.state === 'connecting' && this.#isPolling);
      if (polls && !this.#isPolling) void this.#poll((this.#polling = new AbortController()).signal);
      else if (!polls) this.#stopPolling();
      this.emit('status', this.status);
    });
  }

  #isPolling = false;

  /** @returns {ConnectionStatus} */
  get status() {
    const { status } = this.stream;
    // An attempt to get a stream back changes nothing while events come.
    const state = this.#isPolling && status.state === 'connecting' ? 'blocked' : status.state;
    return { ...status, state, lastByteAt: Math.max(this.#polledAt, status.lastByteAt ?? 0) || null };
  }

  start() {
    this.stream.start();
  }
  stop() {
    this.stream.stop();
    this.#stopPolling();
  }

  #stopPolling() {
    this.#isPolling = false;
    this.#polling.abort();
  }

  /** @param {AbortSignal} signal */
  async #poll(signal) {
    const { api, project_id, include, pollMs = 1_000 } = this.#options;
    this.#isPolling = true;
    while (!signal.aborted) {
      try {
        const page = await api.events(project_id, { after: this.stream.lastEventId, wait: include ? 5 : 25 }, signal);
        const { jobs } = include ? await api.jobs({ limit: 50 }) : { jobs: null };
        if (signal.aborted) return;
        this.#polledAt = Date.now();
        if (page.reset) this.emit('gap', { reason: page.reset, cursor: page.cursor });
        page.events.forEach((event, index) => this.emit('event', { id: index === page.events.length - 1 ? page.cursor : undefined, event }));
        if (!this.stream.lastEventId) this.emit('hello', { cursor: page.cursor });
        this.stream.lastEventId = page.cursor;
        if (jobs) this.emit('event', { event: { type: 'job.snapshot', at: new Date().toISOString(), actor: '', trace_id: '', jobs } });
        this.emit('status', this.status);
      } catch (error) {
        if (signal.aborted) return;
        this.emit('failure', error);
        await sleep(5_000 * (1 + Math.random()), signal);
      }
      await sleep(pollMs, signal);
    }
  }
}
