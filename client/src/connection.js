/** @file A project's events in every tab, over one stream for all of them. */

import { ChatApi } from './chat-api.js';
import { Emitter } from './emitter.js';
import { HttpError } from './errors.js';
import { Feed, entriesOf, jobSnapshot } from './feed.js';
import { hash } from './hash.js';
import { LeaderElector } from './leader.js';
import { onLifecycle, sleep } from './lifecycle.js';
import { Ring } from './ring.js';
import { IDLE } from './status.js';
import { streamName } from './storage.js';
import { TabBus } from './tab-bus.js';
import { TabSync } from './tab-sync.js';
import { Backoff } from './backoff.js';
import { uuid } from './uuid.js';

/**
 * @import { ChatEvent } from './wire.js'
 * @import { ConnectionOptions } from './connection-options.js'
 * @import { ConnectionStatus } from './status.js'
 * @import { Entry } from './ring.js'
 * @import { LeaderMessage } from './tab-sync.js'
 */

/**
 * Follows a project. One tab leads and has the stream; every tab calls its handlers with every event once, in order.
 * `gap` says that the log could not be continued, and what is shown has to be fetched anew. Events are emitted as
 * `event` and under their own type.
 * @extends {Emitter<Record<string, ChatEvent> & {event: ChatEvent, status: ConnectionStatus, gap: {reason: string,
 *   cursor: string | null}, failure: unknown}>}
 */
export class PersistentChatConnection extends Emitter {
  /** @type {ConnectionStatus} */
  status = IDLE;
  /** @type {ChatApi} */
  api;

  #options;
  /** @type {string | null} */
  #cursor;
  #ring = new Ring();
  #seq = 0;
  /** @type {AbortController | null} */
  #running = null;
  /** @type {LeaderElector | null} */
  #elector = null;
  /** @type {TabBus | null} */
  #bus = null;
  /** @type {Feed | null} */
  #feed = null;
  #sync = new TabSync({
    cursor: () => this.#cursor,
    hello: () => this.#bus?.post({ kind: 'hello', cursor: this.#cursor }),
    apply: (message) => this.#apply(message),
    catchUp: (welcome, signal) => this.#catchUp(welcome, signal),
    silent: () => this.#elector?.steal(),
  });

  /**
   * @param {ConnectionOptions | string} options Everything, or a project of the page's own origin.
   * @param {(event: ChatEvent) => void} [onMessage]
   */
  constructor(options, onMessage) {
    super();
    this.#options = typeof options === 'string' ? { api: new ChatApi(), project_id: options, onMessage } : options;
    this.api = this.#options.api;
    this.#cursor = this.#options.since ?? null;
    this.#begin(this.#cursor);
    if (this.#options.onMessage) this.on('event', this.#options.onMessage);
  }

  /** Where this tab is in the log. */
  get cursor() {
    return this.#cursor;
  }

  /** Takes part with the other tabs; resolves when it is known whose tabs they are. */
  async connect() {
    if (this.#running) return;
    const { signal } = (this.#running = new AbortController());
    const { platform, project_id, include } = this.#options;
    this.#set({ state: 'connecting', reason: null });
    const user = this.#options.user ?? (await this.#identify(signal));
    if (!user || signal.aborted) return;
    // Never a token, and another name for each user of this browser.
    const name = `parley:v1:${hash([this.api.ingressUrl, user, project_id, include].join(' '))}`;
    const elector = new LeaderElector(name, platform);
    const bus = new TabBus(name, platform);
    if (!elector.available || !bus.available) return this.#feedFrom(uuid(), 'solo');
    this.#elector = elector;
    this.#bus = bus;
    bus.on('message', (message) => this.#hear(message));
    elector.on('leader', () => this.#feedFrom(streamName(name, platform?.storage), 'leader'));
    elector.on('lost', () => this.#follow());
    this.#enter();
    elector.start();
    // After the elector's own: it ends what the tab leads first.
    onLifecycle(signal, {
      leave: () => this.#leave(),
      enter: () => this.#enter(),
      wake: () => this.#feed || this.#sync.look(),
    });
  }

  /** Leaves; another tab leads if this one did. */
  disconnect() {
    this.#close('stopped');
  }

  /** @param {string} reason */
  #close(reason) {
    this.#running?.abort();
    this.#running = null;
    this.#elector?.stop();
    this.#stopFeed();
    this.#leave();
    this.#elector = this.#bus = null;
    this.#set({ state: 'closed', reason, retryAt: null });
  }

  /** Tries at once, whichever tab leads. */
  retryNow() {
    if (this.#feed) this.#feed.stream.restart();
    else this.#bus?.post({ kind: 'retry' });
  }

  /**
   * What the first version of this class told.
   * @returns {{mode: 'leader' | 'follower' | 'disconnected', connected: boolean}}
   */
  getConnectionInfo() {
    const { state, role } = this.status;
    const mode = state === 'closed' || state === 'idle' ? 'disconnected' : role === 'follower' ? 'follower' : 'leader';
    return { mode, connected: mode === 'leader' && state === 'open' };
  }

  /** @param {AbortSignal} signal */
  async #identify(signal) {
    for (const backoff = new Backoff(); !signal.aborted;) {
      try {
        return (await this.api.me()).user;
      } catch (error) {
        if (signal.aborted) return;
        this.emit('failure', error);
        if (error instanceof HttpError && error.status < 500 && error.status !== 429) return this.#close('auth');
        const waitMs = backoff.next();
        this.#set({ state: 'waiting', reason: 'network', retryAt: Date.now() + waitMs, attempt: backoff.attempt });
        await sleep(waitMs, signal);
      }
    }
  }

  /** Leads. @param {string} streamId @param {'leader' | 'solo'} role */
  #feedFrom(streamId, role) {
    this.#sync.stop();
    const feed = (this.#feed = new Feed(this.#options, streamId, this.#cursor));
    this.#seq = 0;
    this.#tell('lead', { cursor: this.#cursor });
    const tellStatus = () => this.#tell('status', { status: this.status, cursor: this.#cursor });
    feed.on('hello', ({ cursor }) => {
      this.#cursor ??= this.#begin(cursor);
      tellStatus();
    });
    feed.on('event', (entry) => {
      this.#seq++;
      this.#tell('event', entry);
      this.#deliver(entry);
    });
    feed.on('gap', (gap) => {
      this.#seq++;
      this.#tell('gap', gap);
      this.#gap(gap);
    });
    feed.on('failure', (error) => this.emit('failure', error));
    feed.on('status', (status) => {
      if (this.#feed !== feed) return;
      this.#set({ ...status, role });
      tellStatus();
      // Another tab took the stream over and will have the lead too; if not, it was none of this browser.
      if (status.reason === 'replaced') setTimeout(() => this.#feed === feed && feed.start(), 10_000);
    });
    feed.start();
  }

  #stopFeed() {
    const feed = this.#feed;
    this.#feed = null;
    feed?.stop();
  }

  #follow() {
    this.#stopFeed();
    if (this.#running) this.#enter();
  }

  #enter() {
    this.#bus?.open();
    this.#set({ role: 'follower' });
    this.#sync.start();
  }

  #leave() {
    this.#sync.stop();
    this.#bus?.close();
  }

  /** @param {string} kind @param {Record<string, any>} [fields] @param {string} [to] */
  #tell(kind, fields, to) {
    this.#bus?.post({
      kind,
      to,
      term: this.#elector?.term,
      seq: this.#seq,
      silenceMs: this.#feed?.stream.silenceMs,
      ...fields,
    });
  }

  /** @param {any} message */
  #hear(message) {
    const { kind, term, to } = message;
    if (kind === 'hello' && this.#feed) {
      const events = message.cursor === null ? [] : this.#ring.after(message.cursor);
      this.#tell('welcome', { events, cursor: this.#cursor, status: this.status }, message.from);
    } else if (kind === 'retry' && this.#feed) this.retryNow();
    if (!term || !this.#elector || (to && to !== this.#bus?.id)) return;
    const isNewer = term > this.#elector.term;
    this.#elector.observe(term);
    if (this.#feed && isNewer) this.#elector.yield();
    if (!this.#feed) this.#sync.receive(message);
  }

  /** @param {LeaderMessage} message */
  #apply(message) {
    if (message.kind === 'event') this.#deliver(/** @type {any} */ (message));
    else if (message.kind === 'gap') this.#gap(/** @type {any} */ (message));
    else {
      this.#cursor ??= this.#begin(message.cursor);
      this.#set({ ...message.status, role: 'follower' });
    }
  }

  /** @param {LeaderMessage} welcome @param {AbortSignal} signal */
  async #catchUp(welcome, signal) {
    const gap = (/** @type {string} */ reason) => this.#gap({ reason, cursor: welcome.cursor });
    try {
      for (let more = true; more;) {
        const page = await this.api.events(this.#options.project_id, { after: this.#cursor }, signal);
        if (signal.aborted) return;
        if (page.reset) return gap(page.reset);
        const entries = entriesOf(page);
        entries.forEach((entry) => this.#deliver(entry));
        more = entries.length > 0;
      }
      if (!this.#options.include) return;
      // The log of jobs is not in it.
      const jobs = await jobSnapshot(this.api);
      if (!signal.aborted) this.#deliver({ ...jobs, id: welcome.cursor ?? undefined });
    } catch {
      if (!signal.aborted) gap('unreachable');
    }
  }

  /** @param {Entry} entry */
  #deliver({ id, event }) {
    if (this.#ring.push({ id, event })) {
      this.emit('event', event);
      this.emit(event.type, event);
    }
    if (id) this.#cursor = id;
  }

  /** @param {{reason: string, cursor: string | null}} gap */
  #gap({ reason, cursor }) {
    this.#cursor = this.#begin(cursor);
    this.emit('gap', { reason, cursor });
  }

  /** @param {string | null} cursor */
  #begin(cursor) {
    this.#ring.restart(cursor);
    return cursor;
  }

  /** @param {Partial<ConnectionStatus>} change */
  #set(change) {
    this.status = { ...this.status, ...change };
    this.emit('status', this.status);
  }
}
