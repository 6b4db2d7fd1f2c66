/** @file `@parley/client/testing`: a server and a browser in memory, for the tests of pages. */

import { ChatApi } from './chat-api.js';

export { FakeBrowser } from './fake-browser.js';

/** @import { ChatEvent } from './wire.js' */

/** @typedef {{method: string, url: URL, headers: Headers, body: any}} FakeRequest */
/** @typedef {{status?: number, body?: any, headers?: Record<string, string>}} FakeAnswer */

/**
 * Answers as the services do: one project's log, streams of it that resume, the long poll, sends, and whatever routes
 * are added.
 *
 *     const server = new FakeServer();
 *     const connection = new PersistentChatConnection({ api: server.api(), project_id: 'p', user: 'ada' });
 */
export class FakeServer {
  /** @type {{id: string, event: ChatEvent}[]} */
  log = [];
  /** Every request that was made. @type {FakeRequest[]} */
  requests = [];
  user = 'ada';
  heartbeatSeconds = 15;

  #epoch = crypto.randomUUID().slice(0, 8);
  /** @type {Map<string, (text: string | null) => void>} */
  #streams = new Map();
  /** @type {{method: string, path: RegExp, answer: (request: FakeRequest) => FakeAnswer}[]} */
  #routes = [];
  /** @type {(() => void)[]} */
  #waiting = [];

  /** How many streams are open. */
  get streams() {
    return this.#streams.size;
  }

  /** Returns a client of this server. @param {import('./http-options.js').ApiOptions} [options] */
  api(options) {
    return new ChatApi({ ingressUrl: 'http://parley.test', fetch: this.fetch, retryBaseMs: 1, ...options });
  }

  /**
   * Answers a route in its own way, until the returned function is called.
   * @param {string} method
   * @param {RegExp} path
   * @param {(request: FakeRequest) => FakeAnswer} answer
   */
  route(method, path, answer) {
    const route = { method, path, answer };
    this.#routes.unshift(route);
    return () => {
      this.#routes = this.#routes.filter((one) => one !== route);
    };
  }

  /**
   * Refuses streams with this status, until the returned function is called.
   * @param {number} status
   * @param {any} [body]
   * @param {Record<string, string>} [headers]
   */
  refuse(status, body, headers) {
    return this.route('GET', /^\/(sse\/|stream\/|api\/jobs\/)/, () => ({ status, body, headers }));
  }

  /** Lets something happen in the project. @param {Partial<ChatEvent> & {type: string}} event */
  emit(event) {
    const trace_id = crypto.randomUUID();
    const whole = { project_id: 'p', at: new Date().toISOString(), actor: this.user, trace_id, ...event };
    const entry = { id: this.#cursor(this.log.length + 1), event: whole };
    this.log.push(entry);
    this.send(frame(entry));
    this.#waiting.splice(0).forEach((wake) => wake());
    return entry;
  }

  /** Writes to all open streams, as it is. @param {string} text */
  send(text) {
    for (const write of [...this.#streams.values()]) write(text);
  }

  /** Sends a named event to all open streams. @param {string} event @param {any} data */
  control(event, data) {
    this.send(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Cuts all streams. */
  cut() {
    for (const write of [...this.#streams.values()]) write(null);
  }

  /** Tells all streams that the instance goes, and ends them. */
  drain(retry_after_ms = 1) {
    this.control('server_shutdown', { reason: 'draining', retry_after_ms });
    this.control('bye', { reason: 'server_shutdown', reconnect: true, retry_after_ms });
    this.cut();
  }

  /** Loses its log: cursors from before are good for nothing. */
  forget() {
    this.#epoch = crypto.randomUUID().slice(0, 8);
    this.log = [];
  }

  /** @type {typeof fetch} */
  fetch = async (input, init = {}) => {
    const url = new URL(`${input}`);
    const text = typeof init.body === 'string' ? init.body : null;
    const request = {
      method: init.method ?? 'GET',
      url,
      headers: new Headers(init.headers),
      body: text ? JSON.parse(text) : init.body,
    };
    this.requests.push(request);
    const { signal } = init;
    await null;
    signal?.throwIfAborted();
    const own = this.#routes.find(({ method, path }) => method === request.method && path.test(url.pathname));
    if (own) return answer(own.answer(request));
    if (url.pathname === '/sse/stream') return this.#open(request, signal);
    if (url.pathname === '/api/auth/me')
      return answer({ body: { user: this.user, name: this.user, roles: [], session_id: 's', auth_mode: 'simple' } });
    if (url.pathname.endsWith('/events')) return answer({ body: await this.#poll(url, signal) });
    if (url.pathname.endsWith('/messages') && request.method === 'POST') return this.#message(request);
    return answer({ status: 404, body: { error: 'not_found', message: 'there is no such thing' } });
  };

  /** @param {FakeRequest} request */
  #message({ body }) {
    const there = this.log.find(({ event }) => event.message?.metadata?.client_message_id === body.client_message_id);
    if (there) return answer({ body: there.event.message });
    const message = {
      ...{
        id: crypto.randomUUID(),
        project_id: 'p',
        channel: 'general',
        author: this.user,
        author_name: this.user,
        reply_to: null,
        reactions: [],
      },
      ...{ created_at: new Date().toISOString(), updated_at: null, deleted_at: null, text: body.text },
      metadata: { client_message_id: body.client_message_id },
    };
    this.emit({ type: 'message.created', message });
    return answer({ status: 201, body: message });
  }

  /** @param {number} seq */
  #cursor(seq) {
    return `v1.p.${this.#epoch}.${seq}`;
  }

  /** @param {string | null | undefined} cursor @returns {{from: number, reset: string | null}} */
  #from(cursor) {
    const [, , epoch, seq] = (cursor ?? this.#cursor(this.log.length)).split('.');
    if (epoch !== this.#epoch) return { from: this.log.length, reset: 'unknown_epoch' };
    return { from: Number(seq), reset: null };
  }

  /** @param {URL} url @param {AbortSignal | null | undefined} signal */
  async #poll(url, signal) {
    const after = url.searchParams.get('after');
    const { from, reset } = this.#from(after);
    if (after && !reset && from === this.log.length && Number(url.searchParams.get('wait')) > 0) {
      await new Promise((resolve) => {
        this.#waiting.push(() => resolve(null));
        signal?.addEventListener('abort', resolve);
      });
      signal?.throwIfAborted();
    }
    return { events: this.log.slice(from).map(({ event }) => event), cursor: this.#cursor(this.log.length), reset };
  }

  /** @param {FakeRequest} request @param {AbortSignal | null | undefined} signal */
  #open({ url, headers }, signal) {
    const connectionId = crypto.randomUUID();
    const streamId = url.searchParams.get('stream_id') ?? connectionId;
    this.#streams.get(streamId)?.(
      `event: bye\ndata: {"reason":"replaced","reconnect":false,"retry_after_ms":0}\nid: ${FINAL}\n\n`,
    );
    this.#streams.get(streamId)?.(null);
    const last = headers.get('Last-Event-ID') ?? url.searchParams.get('since');
    if (last === FINAL) return new Response(null, { status: 204 });
    const { from, reset } = this.#from(last);
    const cursor = this.#cursor(from);
    const hello = {
      type: 'hello',
      connectionId,
      streamId,
      sessionId: 's',
      user: this.user,
      cursor,
      resumed: !!last && !reset,
    };
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      start: (controller) => {
        const write = (/** @type {string | null} */ text) => {
          if (text !== null) return controller.enqueue(encoder.encode(text));
          if (this.#streams.get(streamId) !== write) return;
          this.#streams.delete(streamId);
          controller.close();
        };
        this.#streams.set(streamId, write);
        signal?.addEventListener('abort', () => {
          if (this.#streams.get(streamId) !== write) return;
          this.#streams.delete(streamId);
          controller.error(signal.reason);
        });
        const id = `\nid: ${cursor}\n\n`;
        write(`retry: 1\ndata: ${JSON.stringify(hello)}${reset ? '\n\n' : id}`);
        if (reset) write(`event: reset\ndata: ${JSON.stringify({ reason: reset, cursor })}${id}`);
        this.log.slice(from).forEach((entry) => write(frame(entry)));
      },
    });
    const heartbeat = `${this.heartbeatSeconds}`;
    const silence = `${3 * this.heartbeatSeconds}`;
    return new Response(body, {
      headers: {
        'Content-Type': 'text/event-stream',
        'X-Trace-ID': crypto.randomUUID(),
        'X-Heartbeat-Interval': heartbeat,
        'X-Silence-Threshold': silence,
      },
    });
  }
}

/** The `id` of a stream that is not to be opened again. */
const FINAL = 'v1.final';

/** @param {{id: string, event: ChatEvent}} entry */
const frame = ({ id, event }) => `data: ${JSON.stringify(event)}\nid: ${id}\n\n`;

/** @param {FakeAnswer} answer */
function answer({ status = 200, body, headers }) {
  const text = body === undefined ? null : JSON.stringify(body);
  const usual = { 'X-Trace-ID': crypto.randomUUID(), 'X-Session-ID': 's' };
  return new Response(text, { status, headers: { ...usual, ...headers } });
}
