/** @file One event stream that comes back by itself. */

import { Backoff } from './backoff.js';
import { isOffline, onLifecycle, sleep } from './lifecycle.js';
import { streamParser } from './parser.js';
import { Reporter } from './status.js';
import { BLOCKED_MS, verdict } from './verdict.js';

/** @import { ConnectionStatus } from './status.js' */
/** @import { Plan } from './verdict.js' */
/** @import { SSEClientOptions, StreamEvent } from './sse-options.js' */

/**
 * @template T
 * @param {T | (() => T)} value
 * @returns {T}
 */
export const valueOf = (value) => (typeof value === 'function' ? /** @type {() => T} */ (value)() : value);

/**
 * Reads one event stream and reconnects with `Last-Event-ID`. Besides its own events (`open`, `status`, `gap`,
 * `failure`, `event`, `closed`) every event of the server is emitted under its name.
 * @extends {Reporter<Record<string, StreamEvent> & { open: Response, failure: unknown, closed:
 *   {reason: string}, event: StreamEvent, gap: {reason: string, cursor: string | null}, }>}
 */
export class SSEClient extends Reporter {
  /** Where the stream is: the id of the last event whose handlers have run. @type {string | null} */
  lastEventId;
  /** After how long without a byte the stream is dead. */
  silenceMs = 60_000;

  #url;
  #options;
  #backoff;
  /** @type {AbortController | null} */
  #running = null;
  /** Ends the attempt, or the wait for the next one. */
  #step = new AbortController();
  /** @type {AbortController | null} */
  #polling = null;
  #lastByteAt = 0;
  #retryMs = 0;
  #refreshed = false;
  /** Attempts in a row that brought nothing in time, or ended, and were not cut, at once. */
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
    options.signal?.addEventListener('abort', () => this.stop());
  }

  /** What the server's logs call the last attempt. */
  get traceId() {
    return this.status.traceId;
  }

  /** Opens the stream and keeps it open. @returns {this} */
  start() {
    if (!this.#running && !this.#options.signal?.aborted)
      void this.#run((this.#running = new AbortController()).signal);
    return this;
  }

  /** Closes the stream; `start` goes on where it was. @param {string} [reason] What the status says then. */
  stop(reason = 'stopped') {
    if (!this.#running) return;
    this.#running.abort();
    this.#running = null;
    this.#step.abort();
    this.set({ state: 'closed', reason, retryAt: null });
    this.emit('closed', { reason });
  }

  /** Tries at once, also while a stream seems to be open. */
  restart() {
    this.#finish('again', 'restart');
    this.start();
  }

  /** Application events in their order; a `reset` is among them. @returns {AsyncGenerator<StreamEvent, void, void>} */
  async *[Symbol.asyncIterator]() {
    /** @type {StreamEvent[]} */
    const queue = [];
    const undo = this.on('event', (event) => queue.push(event));
    this.start();
    try {
      while (true) {
        for (let event; (event = queue.shift());) yield event;
        if (!this.#running) return;
        await this.next('event', 'closed');
      }
    } finally {
      undo();
      this.stop();
    }
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    onLifecycle(signal, {
      leave: () => this.status.retryAt ?? this.#finish('wait', 'hidden', 3_600_000),
      enter: () => this.status.retryAt && this.restart(),
      wake: ({ type }) => {
        // Some systems cut the sockets of sleeping pages without telling them. All clients of a network are back in
        // the same moment.
        const due =
          this.status.state === 'open' ? Date.now() - this.#lastByteAt > this.silenceMs / 2 : type === 'online';
        if (due) setTimeout(() => signal.aborted || this.restart(), Math.random() * 1_000);
      },
    });
    while (!signal.aborted) await this.#afterwards(await this.#once(), signal);
  }

  /** Closes the stream, or waits for the next attempt. @param {Plan} plan @param {AbortSignal} signal */
  async #afterwards({ then, reason, error, floorMs = error?.retryAfterMs }, signal) {
    const { onUnauthorized, maxAttempts = Infinity, bufferedRetryMs = BLOCKED_MS } = this.#options;
    if (error) this.emit('failure', error);
    if (reason === 'gap') this.emit('gap', { reason, cursor: (this.lastEventId = null) });
    if (/auth|token/.test(reason) && onUnauthorized && !this.#refreshed) {
      this.#refreshed = true;
      then = 'again';
      try {
        await onUnauthorized();
      } catch {
        then = 'close';
      }
    }
    if (then === 'block' && maxAttempts < Infinity) then = 'fail';
    if (then === 'fail' && this.#backoff.attempt >= maxAttempts) {
      then = 'close';
      reason = 'gave_up';
    }
    if (then === 'again' || signal.aborted) return;
    if (then === 'close') return this.stop(reason);
    let waitMs =
      then === 'fail'
        ? this.#backoff.next(Math.max(floorMs ?? 0, this.#retryMs))
        : this.#backoff.after(floorMs ?? (then === 'block' ? bufferedRetryMs : 1_000));
    // A browser that says it is offline may be wrong, so that a few attempts are still made.
    if (isOffline()) {
      waitMs = Math.max(waitMs, 30_000);
      reason = 'offline';
    }
    this.#step = new AbortController();
    this.set({
      state: then === 'block' ? 'blocked' : 'waiting',
      reason,
      retryAt: Date.now() + waitMs,
      limit: error?.limit ?? null,
    });
    await sleep(waitMs, this.#step.signal);
  }

  /** One attempt, from the request to the end of its stream. @returns {Promise<Plan>} */
  async #once() {
    const { fetch = globalThis.fetch, headers, openTimeoutMs = 10_000, silenceMs = 0 } = this.#options;
    const { signal } = (this.#step = new AbortController());
    // An attempt to get a stream back changes nothing while events come.
    this.set({ retryAt: null, ...(!this.#polling && { state: 'connecting' }) });
    let heardAt = Date.now();
    let openedAt = 0;
    /** @type {Response | undefined} */
    let response;
    /** @type {Plan} */
    let plan = { then: 'fail', reason: 'network' };
    // By the clock and not by counting: timers of hidden pages are late.
    const look = () => {
      const silentMs = Date.now() - heardAt;
      const stale = !!openedAt && silentMs > (this.silenceMs * 2) / 3;
      if (silentMs >= (openedAt ? this.silenceMs : openTimeoutMs)) this.#finish('fail', 'silence');
      else if (stale !== this.status.stale) this.set({ stale });
    };
    const timer = setInterval(look, Math.min(openTimeoutMs, silenceMs || openTimeoutMs) / 16);
    try {
      const own = await valueOf(headers);
      response = await fetch(valueOf(this.#url), {
        // Without it Firefox lets the second of two equal requests wait for the end of the first.
        cache: 'no-store',
        ...this.#options,
        headers: {
          Accept: 'text/event-stream',
          ...own,
          ...(this.lastEventId && { 'Last-Event-ID': this.lastEventId }),
        },
        signal,
      });
      const { headers: told, body } = response;
      heardAt = Date.now();
      this.set({ traceId: told.get('X-Trace-ID') });
      const answer = await verdict(response);
      if (answer) plan = answer;
      else {
        this.silenceMs = silenceMs || Number(told.get('X-Silence-Threshold')) * 1_000 || 60_000;
        const feed = streamParser(
          // What is not handled comes again.
          ({ event = 'message', data, id }) => signal.aborted || this.#dispatch({ event, data, id }),
          (ms) => (this.#retryMs = ms),
        );
        const reader = /** @type {ReadableStream} */ (body).pipeThrough(new TextDecoderStream()).getReader();
        for (let part; !(part = await reader.read()).done && !signal.aborted;) {
          this.#lastByteAt = heardAt = Date.now();
          if (!openedAt) {
            openedAt = heardAt;
            this.#refreshed = false;
            this.set({ state: 'open', reason: null, limit: null, stale: false });
            this.emit('open', response);
          }
          feed(part.value);
        }
      }
    } catch (error) {
      plan.error = error;
    }
    clearInterval(timer);
    if (signal.aborted) plan = signal.reason;
    const lastedMs = openedAt && Date.now() - openedAt;
    if (lastedMs >= (this.#options.stableMs ?? 30_000)) this.#backoff.reset();
    if (lastedMs >= 1_000) this.#dull = 0;
    // Not a byte: once it may be the network, headers without a body never are.
    else if (plan.then === 'fail' && !plan.error && ((response && !openedAt) || ++this.#dull > 2))
      plan = { then: 'block', reason: 'buffered' };
    this.#step.abort();
    return plan;
  }

  /** @param {StreamEvent} event */
  #dispatch(event) {
    const name = event.event;
    if (name === 'heartbeat') this.set({});
    else if (name === 'bye' || name === 'server_shutdown') {
      const { reason, reconnect, retry_after_ms } = JSON.parse(event.data);
      // The seeds' own `bye` of a draining instance says not to come back; others are there.
      if (/shutdown|draining/.test(reason)) this.#finish('wait', 'draining', retry_after_ms);
      else this.#finish(reconnect === false ? 'close' : 'wait', reason, retry_after_ms);
    } else {
      if (name === 'reset') this.emit('gap', JSON.parse(event.data));
      this.emit('event', event);
    }
    this.emit(name, event);
    // The `id` of a `bye` says that there is nothing to come back for; `start` goes on where the stream was.
    if (event.id !== undefined && name !== 'bye') this.lastEventId = event.id || null;
  }

  /**
   * Ends the attempt or the wait from here; of several, the first says why.
   * @param {import('./verdict.js').Then} then
   * @param {string} reason
   * @param {number} [floorMs]
   */
  #finish(then, reason, floorMs) {
    this.#step.abort({ then, reason, floorMs });
  }

  /** @override @protected @param {Partial<ConnectionStatus>} change */
  set(change) {
    super.set({ attempt: this.#backoff.attempt, lastByteAt: this.#lastByteAt || null, ...change });
    if (this.status.state !== 'blocked') {
      this.#polling?.abort();
      this.#polling = null;
    } else if (!this.#polling) void this.#poll();
  }

  async #poll() {
    const { poll, pollMs = 1_000 } = this.#options;
    if (!poll) return;
    const { signal } = (this.#polling = new AbortController());
    let failed = false;
    for (; !signal.aborted; await sleep(failed ? 5_000 * (1 + Math.random()) : pollMs, signal)) {
      try {
        await poll(signal);
        this.#lastByteAt = Date.now();
        this.set({});
        // It was the network, and not what stands between.
        if (failed) this.restart();
        failed = false;
      } catch (error) {
        failed = true;
        if (!signal.aborted) this.emit('failure', error);
      }
    }
  }
}
