/** @file The log of a project, by a stream or, where there can be none, by long polls. */

import { Emitter } from './emitter.js';
import { sleep } from './lifecycle.js';

/**
 * @import { ConnectionStatus } from './status.js'
 * @import { Entry } from './ring.js'
 */

/**
 * Returns what a stream of jobs begins with, for who has none: also of jobs that have ended.
 * @param {import('./chat-api.js').ChatApi} api
 * @returns {Promise<Entry>}
 */
export async function jobSnapshot(api) {
  const { jobs } = await api.jobs({ limit: 50 });
  return { event: { type: 'job.snapshot', at: new Date().toISOString(), actor: '', trace_id: '', jobs } };
}

/**
 * Returns a page's events; where they end, the cursor is known.
 * @param {import('./wire.js').EventPage} page
 * @returns {Entry[]}
 */
export const entriesOf = ({ events, cursor }) =>
  events.map((event, index) => ({ event, id: events[index + 1] ? undefined : cursor }));

/**
 * @extends {Emitter<{event: Entry, hello: any, gap: {reason: string, cursor: string | null}, status: ConnectionStatus,
 *   failure: unknown}>}
 */
export class Feed extends Emitter {
  #options;
  /** @type {AbortController | null} */
  #polling = null;
  #polledAt = 0;

  /**
   * @param {import('./connection-options.js').ConnectionOptions} options
   * @param {string} stream_id
   * @param {string | null} lastEventId
   */
  constructor(options, stream_id, lastEventId) {
    super();
    this.#options = options;
    const { api, project_id, include } = options;
    const query = { project_id, include, stream_id };
    const stream = (this.stream = api.stream('/sse/stream', query, { ...options.stream, lastEventId }));
    stream.on('message', ({ id, data }) => {
      const event = JSON.parse(data);
      if (event.type === 'hello') this.emit('hello', event);
      else this.emit('event', { id, event });
    });
    stream.on('gap', (gap) => this.emit('gap', gap));
    stream.on('failure', (error) => this.emit('failure', error));
    stream.on('status', (status) => {
      // An attempt to get a stream back changes nothing while events come.
      if (status.state === 'blocked') void this.#poll();
      else if (status.state !== 'connecting') this.#stopPolling();
      this.emit('status', this.status);
    });
  }

  /** @returns {ConnectionStatus} */
  get status() {
    const { status } = this.stream;
    return {
      ...status,
      state: this.#polling && status.state === 'connecting' ? 'blocked' : status.state,
      lastByteAt: Math.max(this.#polledAt, status.lastByteAt ?? 0) || null,
    };
  }

  start() {
    this.stream.start();
  }
  stop() {
    this.stream.stop();
    this.#stopPolling();
  }

  #stopPolling() {
    this.#polling?.abort();
    this.#polling = null;
  }

  async #poll() {
    if (this.#polling) return;
    const { signal } = (this.#polling = new AbortController());
    const { api, project_id, include, pollMs = 1_000 } = this.#options;
    let failed = false;
    while (!signal.aborted) {
      try {
        const page = await api.events(project_id, { after: this.stream.lastEventId, wait: include ? 5 : 25 }, signal);
        const jobs = include && (await jobSnapshot(api));
        if (signal.aborted) return;
        this.#polledAt = Date.now();
        // It was the network, and not what stands between.
        if (failed) this.stream.restart();
        failed = false;
        if (page.reset) this.emit('gap', { reason: page.reset, cursor: page.cursor });
        entriesOf(page).forEach((entry) => this.emit('event', entry));
        if (!this.stream.lastEventId) this.emit('hello', { cursor: page.cursor });
        this.stream.lastEventId = page.cursor;
        if (jobs) this.emit('event', jobs);
        this.emit('status', this.status);
      } catch (error) {
        if (signal.aborted) return;
        failed = true;
        this.emit('failure', error);
        await sleep(5_000 * (1 + Math.random()), signal);
      }
      await sleep(pollMs, signal);
    }
  }
}
