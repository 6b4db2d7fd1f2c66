/** @file A project's events in every tab, over one stream for all of them. */

import { ChatApi } from './chat-api.js';
import { onEntries } from './entries.js';
import { hash } from './hash.js';
import { LeaderElector } from './leader.js';
import { isVisible, sleep } from './lifecycle.js';
import { Log } from './log.js';
import { randomName } from './random-name.js';
import { Reporter } from './status.js';
import { streamName } from './stream-name.js';
import { TabBus } from './tab-bus.js';

/**
 * @import { ChatEvent } from './wire.js'
 * @import { ConnectionOptions } from './connection-options.js'
 * @import { Entry } from './log.js'
 * @import { SSEClient } from './sse-client.js'
 * @import { TabMessage } from './tab-bus.js'
 */

/** How often a leader may leave a question without a word; one that is awake answers in milliseconds. */
const MAX_ASKED = 3;

/**
 * Follows a project. One tab leads and has the stream; every tab calls its handlers with every event once, in order.
 * `gap` says that the log could not be continued, and what is shown has to be fetched anew. Events are emitted as
 * `event` and under their own type.
 * @extends {Reporter<Record<string, ChatEvent> & {event: ChatEvent, gap: {reason: string, cursor: string | null},
 *   failure: unknown}>}
 */
export class PersistentChatConnection extends Reporter {
  /** @type {ChatApi} */
  api;

  #options;
  #log;
  /** @type {AbortController | null} */
  #running = null;
  /** @type {LeaderElector | undefined} */
  #elector;
  /** @type {TabBus | undefined} */
  #bus;
  /** There is one while this tab leads. @type {SSEClient | null} */
  #stream = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  /** How often the leader was asked since it said something, until the tab is where the leader is. */
  #asked = 0;
  /** Set while the server is asked what the leader does not have. @type {AbortController | null} */
  #reading = null;
  #heardAt = 0;
  /** How long the leader may say nothing before it is asked. */
  #silenceMs = 60_000;

  /**
   * @param {ConnectionOptions | string} options Everything, or a project of the page's own origin.
   * @param {(event: ChatEvent) => void} [onMessage]
   */
  constructor(options, onMessage) {
    super();
    this.#options = typeof options === 'string' ? { api: new ChatApi(), project_id: options, onMessage } : options;
    this.api = this.#options.api;
    this.#log = new Log(this.#options.since);
    if (this.#options.onMessage) this.on('event', this.#options.onMessage);
  }

  /** Where this tab is in the log. */
  get cursor() {
    return this.#log.cursor;
  }

  /** Takes part with the other tabs; resolves when it is known whose tabs they are. */
  async connect() {
    if (this.#running) return;
    const { signal } = (this.#running = new AbortController());
    const { platform, project_id, include } = this.#options;
    this.set({ state: 'connecting', reason: null });
    let { user } = this.#options;
    while (!user) {
      try {
        user = (await this.api.me()).user;
      } catch (error) {
        if (signal.aborted) return;
        this.emit('failure', error);
        const { status } = /** @type {any} */ (error);
        if (status < 500 && status !== 429) return this.disconnect('auth');
        // It was tried several times.
        const waitMs = 10_000 * (1 + Math.random());
        this.set({ state: 'waiting', reason: 'network', retryAt: Date.now() + waitMs });
        await sleep(waitMs, signal);
      }
      if (signal.aborted) return;
    }
    // Never a token, and another name for each user of this browser.
    const name = `parley:v1:${hash([this.api.ingressUrl, user, project_id, include].join(' '))}`;
    const elector = new LeaderElector(name, platform);
    const bus = new TabBus(name, platform);
    if (!bus.available) return this.#lead(randomName(), 'solo');
    this.#elector = elector;
    this.#bus = bus;
    bus.on('message', (message) => this.#hear(message));
    elector.on('waiting', () => this.#follow());
    elector.on('leader', () => this.#lead(streamName(name, platform?.storage), 'leader'));
    elector.on('resting', () => this.#rest());
    elector.start();
  }

  /** Leaves; another tab leads if this one did. @param {string} [reason] What the status says then. */
  disconnect(reason = 'stopped') {
    this.#running?.abort();
    this.#running = null;
    this.#elector?.stop();
    this.#rest();
    this.set({ state: 'closed', reason, retryAt: null });
  }

  /** Tries at once, whichever tab leads. */
  retryNow() {
    this.#stream?.restart();
    this.#bus?.post({ retry: true });
  }

  /**
   * What the first version of this class told.
   * @returns {{mode: 'leader' | 'follower' | 'disconnected', connected: boolean}}
   */
  getConnectionInfo() {
    const { state, role } = this.status;
    const mode = /closed|idle/.test(state) ? 'disconnected' : role === 'follower' ? role : 'leader';
    return { mode, connected: mode === 'leader' && state === 'open' };
  }

  /** @param {string} stream_id @param {'leader' | 'solo'} role */
  #lead(stream_id, role) {
    this.#unfollow();
    const { project_id, include, stream: options, pollMs } = this.#options;
    const stream = (this.#stream = this.api.stream(
      '/sse/stream',
      { project_id, include, stream_id },
      {
        ...options,
        lastEventId: this.cursor,
        pollMs,
        poll: async (signal) => {
          await this.#read(signal, include ? 5 : 25);
          stream.lastEventId = this.cursor;
        },
      },
    ));
    onEntries(stream, (entry) => this.#deliver(entry));
    stream.on('gap', (gap) => this.#deliver({ gap }));
    stream.on('failure', (error) => this.emit('failure', error));
    stream.on('status', (status) => {
      if (this.#stream !== stream) return;
      this.set({ ...status, role });
      this.#tell({ status });
      // Another tab took the stream over and will have the lead too; if not, it was none of this browser.
      if (status.reason === 'replaced') setTimeout(() => this.#stream === stream && stream.start(), 10_000);
    });
    stream.start();
  }

  #follow() {
    this.#bus?.open();
    this.set({ role: 'follower' });
    this.#heardAt = Date.now();
    this.#asked = 0;
    this.#ask();
    // Of the tabs that are awake one is first.
    this.#timer = setInterval(() => this.#look(), 1_000 + Math.random() * 200);
  }

  #unfollow() {
    clearInterval(this.#timer);
    this.#reading?.abort();
    this.#reading = null;
  }

  /** Neither leads nor follows. */
  #rest() {
    this.#unfollow();
    if (this.#stream) this.#tell({ leaves: true });
    this.#bus?.close();
    const stream = this.#stream;
    this.#stream = null;
    stream?.stop();
  }

  /** Looks after the leader; one that says nothing at all is asleep. */
  #look() {
    if (this.#reading || !(this.#asked || (isVisible() && Date.now() - this.#heardAt >= this.#silenceMs))) return;
    if (this.#asked >= MAX_ASKED && isVisible()) this.#elector?.steal();
    else this.#ask();
  }

  #ask() {
    this.#asked++;
    this.#bus?.post({ ask: this.cursor });
  }

  /** @param {Partial<TabMessage>} message */
  #tell(message) {
    this.#bus?.post({ term: this.#elector?.term, silenceMs: this.#stream?.silenceMs, ...message });
  }

  /** @param {TabMessage} message */
  #hear({ from, ask, retry, leaves, term, silenceMs, status, to, prev, entries, cursor }) {
    const elector = /** @type {LeaderElector} */ (this.#elector);
    if (term > elector.term) {
      elector.term = term;
      if (this.#stream) {
        elector.stop();
        elector.start();
      } else this.#ask();
    }
    if (this.#stream) {
      if (retry) this.#stream.restart();
      if (ask !== undefined)
        this.#tell({ to: from, prev: ask, entries: this.#log.after(ask), cursor: this.cursor, status: this.status });
      // A lower term is of a former leader that has not noticed yet.
    } else if (term >= elector.term && (!to || to === this.#bus?.id)) {
      this.#heardAt = Date.now();
      this.#silenceMs = silenceMs;
      this.#asked &&= 1;
      if (leaves) this.#asked = MAX_ASKED - 1;
      if (status) this.set({ ...status, role: 'follower' });
      if (this.#reading) return;
      if (prev !== this.cursor) {
        if (entries && !this.#asked) this.#ask();
      } else if (entries) {
        this.#asked = 0;
        entries.forEach((entry) => this.#deliver(entry));
      } else if (cursor) void this.#catchUp(cursor);
    }
  }

  /** Comes to where the leader is, which it does not have all of. @param {string} cursor */
  async #catchUp(cursor) {
    if (!this.cursor) return this.#deliver({ id: cursor });
    const { signal } = (this.#reading = new AbortController());
    try {
      await this.#read(signal);
      // What the leader tells from there on, and was read, is known.
      this.#deliver({ id: cursor });
      this.#ask();
    } catch (error) {
      // The next look asks again.
      if (signal.aborted) return;
      this.emit('failure', error);
    }
    this.#reading = null;
  }

  /**
   * Asks the server for what came after the cursor: for all of it, or for what comes first if it waits.
   * @param {AbortSignal} signal
   * @param {number} [wait]
   */
  async #read(signal, wait) {
    const { project_id, include } = this.#options;
    let page;
    do {
      page = await this.api.events(project_id, { after: this.cursor, wait }, signal);
      signal.throwIfAborted();
      if (page.reset) this.#deliver({ gap: { reason: page.reset, cursor: page.cursor } });
      page.events.forEach((event) => this.#deliver({ event }));
      this.#deliver({ id: page.cursor });
    } while (!wait && page.events.length);
    if (!include) return;
    // The log of jobs is not in it: what a stream of them begins with, and those that have ended.
    const { jobs } = await this.api.jobs({ limit: 50 });
    signal.throwIfAborted();
    this.#deliver({
      event: { type: 'job.snapshot', at: new Date().toISOString(), actor: '', trace_id: '', jobs },
    });
  }

  /** Tells this tab, and those that follow it. @param {Entry} entry */
  #deliver(entry) {
    const { id = this.cursor, event, gap } = entry;
    if (this.#stream) this.#tell({ prev: this.cursor, entries: [entry] });
    if (gap) {
      this.#log = new Log(gap.cursor);
      this.emit('gap', gap);
    } else {
      if (this.#log.push(entry) && event) {
        this.emit('event', event);
        this.emit(event.type, event);
      }
      this.#log.cursor = id;
    }
  }
}
