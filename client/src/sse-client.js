/** @file One event stream that comes back by itself. */

import { createParser } from 'eventsource-parser';
import { Backoff } from './backoff.js';
import { Emitter } from './emitter.js';
import { isOffline, onLifecycle, sleep } from './lifecycle.js';
import { IDLE } from './status.js';
import { BLOCKED_MS, byePlan, verdict } from './verdict.js';

/** @import { ConnectionStatus } from './status.js' */
/** @import { Plan } from './verdict.js' */

/**
 * An event as it came. Those without a name are `message`.
 * @typedef {{event: string, data: string, id?: string}} StreamEvent
 */

/**
 * @typedef {object} SSEClientOptions
 * @property {Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)} [headers] Asked anew for each attempt if it is a function.
 * @property {RequestCredentials} [credentials]
 * @property {typeof fetch} [fetch]
 * @property {string} [method]
 * @property {BodyInit} [body]
 * @property {string | null} [lastEventId] Where to go on.
 * @property {import('./backoff.js').BackoffOptions} [backoff]
 * @property {number} [silenceMs] After how long without a byte the stream is dead. Default: what the server says, else 60,000.
 * @property {number} [openTimeoutMs] How long the headers, and then the first byte, may take. Default 10,000.
 * @property {number} [stableMs] After how long an open stream makes earlier failures forgotten. Default 30,000.
 * @property {number} [bufferedRetryMs] When to try again behind a proxy that holds events back. Default 300,000.
 * @property {number} [maxAttempts] How many failures in a row are borne. Default: all.
 * @property {() => unknown} [onUnauthorized] Called once for a refused sign-in; if it does not throw, the stream is tried once more.
 * @property {AbortSignal} [signal] Stops it.
 */

const CONTROL = new Set(['heartbeat', 'reset', 'server_shutdown', 'bye']);

/**
 * Reads one event stream and reconnects with `Last-Event-ID`. Besides its own events (`open`, `status`, `gap`, `failure`, `event`, `closed`)
 * every event of the server is emitted under its name.
 * @extends {Emitter<Record<string, StreamEvent> & {
 *   open: Response, status: ConnectionStatus, failure: unknown, closed: Plan, event: StreamEvent, gap: {reason: string, cursor: string | null},
 * }>}
 */
export class SSEClient extends Emitter {
  /** @type {ConnectionStatus} */
  status = IDLE;
  /** Where the stream is: the id of the last event whose handlers have run. @type {string | null} */
  lastEventId;
  /** After how long without a byte the stream is dead. */
  silenceMs = 60_000;

  #url;
  #options;
  #backoff;
  /** @type {AbortController | null} */
  #running = null;
  /** @type {AbortController | null} */
  #attempt = null;
  /** @type {AbortController | null} */
  #waiting = null;
  /** Why the attempt was ended from here. @type {Plan | null} */
  #plan = null;
  #lastByteAt = 0;
  #retryMs = 0;
  #refreshed = false;
  /** Streams in a row that brought nothing or ended at once. */
  #dull = 0;

  /**
   * @param {string | URL | (() => string | URL)} url Asked anew for each attempt if it is a function.
   * @param {SSEClientOptions} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#options = options;
    this.#backoff = new Backoff(options.backoff);
    this.lastEventId = options.lastEventId ?? null;
    options.signal?.addEventListener('abort', () => this.stop(), { once: true });
  }

  /** What the server's logs call the last attempt. */
  get traceId() {
    return this.status.traceId;
  }

  /** Opens the stream and keeps it open. @returns {this} */
  start() {
    if (!this.#running && !this.#options.signal?.aborted) {
      this.#running = new AbortController();
      void this.#run(this.#running.signal);
    }
    return this;
  }

  /** Closes the stream; `start` goes on where it was. */
  stop() {
    if (this.#running) this.#close({ close: true, reason: 'stopped' });
  }

  /** Tries at once, also while a stream seems to be open. */
  restart() {
    if (!this.#running) return void this.start();
    this.#waiting?.abort();
    this.#finish({ again: true, reason: 'restart' });
  }

  /** Application events in their order; a `reset` is among them. @returns {AsyncGenerator<StreamEvent, void, void>} */
  async *[Symbol.asyncIterator]() {
    /** @type {StreamEvent[]} */
    const queue = [];
    let wake = () => {};
    let closed = false;
    const undo = [
      this.on('event', (event) => (queue.push(event), wake())),
      this.on('closed', () => ((closed = true), wake())),
    ];
    this.start();
    try {
      while (true) {
        for (let event; (event = queue.shift()); ) yield event;
        if (closed) return;
        await new Promise((resolve) => (wake = () => resolve(null)));
      }
    } finally {
      undo.forEach((one) => one());
      this.stop();
    }
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    const undo = onLifecycle({
      leave: () => this.#finish({ again: true, reason: 'hidden' }),
      enter: () => this.#waiting?.abort(),
      wake: (cause) => this.#wake(cause),
    });
    signal.addEventListener('abort', undo, { once: true });
    while (!signal.aborted) {
      const plan = await this.#once();
      if (signal.aborted) return;
      const waitMs = await this.#judge(plan);
      if (signal.aborted) return;
      if (waitMs === null) return this.#close(plan);
      if (waitMs > 0) await this.#wait(waitMs, plan);
    }
  }

  /** Returns how long to wait, `null` for no more attempts. @param {Plan} plan */
  async #judge(plan) {
    const { onUnauthorized, maxAttempts = Infinity } = this.#options;
    if (plan.error) this.emit('failure', plan.error);
    if (plan.reason === 'gap') this.#gap('refused', null);
    if (plan.reason === 'auth' || plan.reason === 'token_expired') {
      if (!onUnauthorized || this.#refreshed) return plan.close ? null : this.#backoff.next(plan.floorMs);
      this.#refreshed = true;
      try {
        await onUnauthorized();
        return 0;
      } catch (error) {
        this.emit('failure', error);
        return null;
      }
    }
    if (plan.close) return null;
    if (plan.reason === 'hidden') return 3_600_000;
    if (plan.again && !plan.failure) return 0;
    if (!plan.failure) return this.#backoff.after(plan.floorMs ?? 0);
    if (this.#backoff.attempt >= maxAttempts) {
      plan.reason = 'gave_up';
      return null;
    }
    return this.#backoff.next(Math.max(plan.floorMs ?? 0, this.#retryMs));
  }

  /** @param {number} waitMs @param {Plan} plan */
  async #wait(waitMs, { reason, blocked, limit }) {
    const offline = isOffline();
    // A browser that says it is offline may be wrong, so that a few attempts are still made.
    if (offline) waitMs = Math.max(waitMs, 30_000);
    const retryAt = Date.now() + waitMs;
    const { signal } = (this.#waiting = new AbortController());
    this.#set({ state: blocked ? 'blocked' : 'waiting', reason: offline ? 'offline' : reason, retryAt, limit: limit ?? null });
    await sleep(waitMs, signal);
    this.#waiting = null;
  }

  /** One attempt, from the request to the end of its stream. @returns {Promise<Plan>} */
  async #once() {
    const { fetch = globalThis.fetch, headers = {}, method, body, credentials, openTimeoutMs = 10_000 } = this.#options;
    const attempt = (this.#attempt = new AbortController());
    this.#plan = null;
    this.#set({ state: 'connecting', retryAt: null });
    const deadline = setTimeout(() => this.#finish(this.#dullPlan('silence')), openTimeoutMs);
    try {
      const own = typeof headers === 'function' ? await headers() : headers;
      const response = await fetch(typeof this.#url === 'function' ? this.#url() : this.#url, {
        method,
        body,
        credentials,
        // Without it Firefox lets the second of two equal requests wait for the end of the first.
        cache: 'no-store',
        headers: { Accept: 'text/event-stream', ...own, ...(this.lastEventId && { 'Last-Event-ID': this.lastEventId }) },
        signal: attempt.signal,
      });
      clearTimeout(deadline);
      this.status = { ...this.status, traceId: response.headers.get('X-Trace-ID') };
      return (await verdict(response)) ?? (await this.#read(response, attempt.signal, openTimeoutMs));
    } catch (error) {
      return this.#plan ?? { failure: true, reason: 'network', error };
    } finally {
      clearTimeout(deadline);
      attempt.abort();
    }
  }

  /** @param {Response} response @param {AbortSignal} signal @param {number} openTimeoutMs @returns {Promise<Plan>} */
  async #read(response, signal, openTimeoutMs) {
    const seconds = (/** @type {string} */ name) => Number(response.headers.get(name)) * 1_000;
    this.silenceMs = this.#options.silenceMs || seconds('X-Silence-Threshold') || 3 * seconds('X-Heartbeat-Interval') || 60_000;
    const openedAt = (this.#lastByteAt = Date.now());
    /** @type {string | null} */
    let pending = null;
    const keep = () => pending !== null && ((this.lastEventId = pending || null), (pending = null));
    const parser = createParser({
      onId: (id) => (keep(), (pending = id)),
      onRetry: (ms) => (this.#retryMs = ms),
      onEvent: ({ event = 'message', data, id }) => {
        // What was not handled comes again.
        if (signal.aborted) pending = null;
        else this.#dispatch({ event, data, id });
        keep();
      },
    });
    const decoder = new TextDecoder();
    let heard = false;
    const late = setTimeout(() => this.#finish({ blocked: true, reason: 'buffered', floorMs: this.#options.bufferedRetryMs ?? BLOCKED_MS }), openTimeoutMs);
    const watch = this.#watch(signal);
    try {
      for (const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done || signal.aborted) break;
        this.#lastByteAt = Date.now();
        if (!heard) {
          heard = true;
          clearTimeout(late);
          this.#refreshed = false;
          this.#set({ state: 'open', reason: null, retryAt: null, limit: null, stale: false });
          this.emit('open', response);
        } else if (this.status.stale) this.#set({ stale: false });
        parser.feed(decoder.decode(value, { stream: true }));
        keep();
      }
    } catch (error) {
      if (!this.#plan) this.emit('failure', error);
    } finally {
      clearTimeout(late);
      watch();
    }
    const lastedMs = Date.now() - openedAt;
    if (lastedMs >= (this.#options.stableMs ?? 30_000)) this.#backoff.reset();
    if (this.#plan) return this.#plan;
    if (lastedMs < 1_000) return this.#dullPlan('network');
    this.#dull = 0;
    return { failure: true, reason: 'network' };
  }

  /** Ends an attempt that has been silent for too long, by the clock: timers of hidden pages are late. @param {AbortSignal} signal */
  #watch(signal) {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const look = () => {
      const silentMs = Date.now() - this.#lastByteAt;
      const staleMs = (this.silenceMs * 2) / 3;
      if (signal.aborted) return;
      if (silentMs >= this.silenceMs) return this.#finish({ failure: true, reason: 'silence' });
      if (silentMs >= staleMs && !this.status.stale) this.#set({ stale: true });
      timer = setTimeout(look, Math.max(50, (silentMs >= staleMs ? this.silenceMs : staleMs) - silentMs));
    };
    timer = setTimeout(look, (this.silenceMs * 2) / 3);
    return () => clearTimeout(timer);
  }

  /** @param {StreamEvent} event */
  #dispatch(event) {
    const data = () => Object(JSON.parse(event.data));
    if (event.event === 'bye' || event.event === 'server_shutdown') {
      this.#finish(byePlan(event.event === 'bye' ? data() : { ...data(), reason: 'server_shutdown' }));
    } else if (event.event === 'heartbeat') this.#set({});
    else if (event.event === 'reset') {
      const { reason, cursor } = data();
      this.#gap(reason, cursor);
    }
    this.emit(event.event, event);
    if (!CONTROL.has(event.event) || event.event === 'reset') this.emit('event', event);
  }

  /** @param {string} reason @param {string | null} cursor */
  #gap(reason, cursor) {
    this.lastEventId = cursor;
    this.emit('gap', { reason, cursor });
  }

  /** @param {string} cause */
  #wake(cause) {
    if (this.#waiting) {
      // All of a network's clients are back in the same moment.
      if (cause === 'online') setTimeout(() => this.#waiting?.abort(), Math.random() * 1_000);
      else if (Date.now() >= (this.status.retryAt ?? 0)) this.#waiting.abort();
    } else if (this.status.state === 'open' && Date.now() - this.#lastByteAt > this.silenceMs / 2) {
      // Some systems cut the sockets of sleeping pages without telling them.
      this.#finish({ again: true, reason: 'silence' });
    }
  }

  /** @param {import('./status.js').Reason} reason @returns {Plan} */
  #dullPlan(reason) {
    if (++this.#dull < 3) return { failure: true, reason };
    return { blocked: true, reason: 'buffered', floorMs: this.#options.bufferedRetryMs ?? BLOCKED_MS };
  }

  /** Ends the attempt from here. @param {Plan} plan */
  #finish(plan) {
    this.#plan ??= plan;
    this.#attempt?.abort();
  }

  /** @param {Plan} plan */
  #close(plan) {
    const running = this.#running;
    this.#running = null;
    running?.abort();
    this.#waiting?.abort();
    this.#finish(plan);
    this.#set({ state: 'closed', reason: plan.reason, retryAt: null });
    this.emit('closed', plan);
  }

  /** @param {Partial<ConnectionStatus>} change */
  #set(change) {
    this.status = { ...this.status, attempt: this.#backoff.attempt, lastByteAt: this.#lastByteAt || null, ...change };
    this.emit('status', this.status);
  }
}
