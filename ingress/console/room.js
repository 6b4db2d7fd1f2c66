/** @file A project that is open: who and what is in it, kept as the log says. */

import { PersistentChatConnection } from '@parley/client';
import { tell } from './dom.js';

/**
 * @import { ChatEvent, Channel, Job, Member, Project } from '../../client/src/wire.js'
 * @import { Account } from './account.js'
 */

const TYPING_MS = 6_000;
const LOG_LENGTH = 100;

/**
 * Tells `channels`, `members`, `presence`, `typing`, `jobs`, `unread`, `project`, `log`, `status`, and each `event` that is
 * about messages; `stale` is that all has to be read anew, `removed` that it is not to be seen any more.
 */
export class Room extends EventTarget {
  /** @type {Map<string, Channel>} */
  channels = new Map();
  /** @type {Map<string, Member>} */
  members = new Map();
  /** @type {Map<string, string>} */
  presence = new Map();
  /** @type {Map<string, Job>} */
  jobs = new Map();
  /** New messages in channels that are not looked at. @type {Map<string, number>} */
  unread = new Map();
  /** The last events, newest first. @type {ChatEvent[]} */
  log = [];
  heartbeats = 0;
  events = 0;
  /** When the last event came. */
  eventAt = 0;
  /** The channel that is looked at. */
  current = '';
  /** @type {Project} */
  project = /** @type {any} */ (null);
  /** @type {PersistentChatConnection} */
  connection = /** @type {any} */ (null);
  /** Who types where, with the timer that ends it. @type {Map<string, Map<string, ReturnType<typeof setTimeout>>>} */
  #typing = new Map();
  #heardAt = 0;
  #open = new AbortController();

  /** @param {Account} account @param {string} id */
  constructor(account, id) {
    super();
    this.account = account;
    this.api = account.api;
    this.id = id;
  }

  /** The role of who is signed in. */
  get role() {
    return this.project.role;
  }
  get mayWrite() {
    return this.role !== 'viewer';
  }

  /** Ends when the room is closed. */
  get signal() {
    return this.#open.signal;
  }

  async open() {
    // The cursor first: what happens while the rest is read comes by the stream as well.
    const { cursor } = await this.api.messages(this.id, { limit: 1 });
    await this.#read();
    const connection = (this.connection = new PersistentChatConnection({
      api: this.api,
      project_id: this.id,
      user: this.account.me.user,
      since: cursor,
      include: 'jobs',
      onMessage: (event) => this.#apply(event),
    }));
    connection.on('gap', () => void this.#refresh());
    connection.on('status', ({ state, reason, lastByteAt }) => {
      if (state === 'closed' && ['gone', 'revoked'].includes(reason ?? '')) void this.#checkWhetherIn();
      // Who is there is never repeated.
      if (state === 'open' && this.#heardAt === 0) void this.#readPresence();
      // Of an open stream the client tells the status when a heartbeat came.
      if (state === 'open' && lastByteAt && this.#heardAt && lastByteAt > this.#heardAt) this.heartbeats++;
      this.#heardAt = state === 'open' ? (lastByteAt ?? 0) : 0;
      tell(this, 'status');
    });
    if (this.signal.aborted) return this;
    await connection.connect();
    return this;
  }

  close() {
    this.#open.abort();
    this.connection?.disconnect();
  }

  /** @param {string} user */
  nameOf(user) {
    return this.members.get(user)?.name ?? user;
  }

  /** Everybody else who types in a channel. @param {string} channel */
  typists(channel) {
    return [...(this.#typing.get(channel)?.keys() ?? [])].map((user) => this.nameOf(user));
  }

  /** Notes that a channel is looked at. @param {string} channel */
  look(channel) {
    this.current = channel;
    this.unread.delete(channel);
    tell(this, 'unread');
  }

  async #read() {
    const [project, { channels }, { members }, { jobs }] = await Promise.all([
      this.api.project(this.id),
      this.api.channels(this.id, { limit: 200 }),
      this.api.members(this.id, { limit: 200 }),
      this.api.jobs({ project_id: this.id, limit: 50 }),
    ]);
    this.project = project;
    this.channels = new Map(channels.map((channel) => [channel.name, channel]));
    this.members = new Map(members.map((member) => [member.user, member]));
    this.jobs = new Map(jobs.map((job) => [job.id, job]));
  }

  /** The stream was ended for good: a member was removed, or a session ended, which the request finds out too. */
  async #checkWhetherIn() {
    await this.api.project(this.id).catch((error) => error.status === 404 && tell(this, 'removed'));
  }

  async #readPresence() {
    const { presence } = await this.api.presence(this.id).catch(() => ({ presence: null }));
    if (!presence) return;
    this.presence = new Map(presence.map(({ user, state }) => [user, state]));
    tell(this, 'presence');
  }

  async #refresh() {
    await this.#read().catch(() => {});
    for (const what of ['project', 'channels', 'members', 'jobs', 'stale']) tell(this, what);
  }

  /** @param {ChatEvent} event */
  #apply(event) {
    const [subject] = event.type.split('.');
    this.events++;
    this.eventAt = Date.now();
    this.log = [event, ...this.log].slice(0, LOG_LENGTH);
    tell(this, 'log');
    if (subject === 'message' || subject === 'reaction') this.#message(event);
    else if (subject === 'channel') this.#channel(event.channel);
    else if (subject === 'member') this.#member(event);
    else if (event.type === 'user.presence') this.#present(event.presence);
    else if (event.type === 'user.typing') this.#types(event.channel, event.actor);
    else if (event.type === 'project.updated') void this.#refresh();
    else if (event.type === 'history.imported') void this.#imported(event);
    for (const job of event.jobs ?? (event.job ? [event.job] : [])) this.keep(job);
  }

  /** @param {Job} job */
  keep(job) {
    if (job.project_id !== this.id) return;
    this.jobs.set(job.id, job);
    tell(this, 'jobs', job);
  }

  /** @param {ChatEvent} event */
  #message(event) {
    const { message } = event;
    if (event.type === 'message.created' && message) {
      this.#types(message.channel, message.author, true);
      if (message.channel !== this.current && message.author !== this.account.me.user) {
        this.unread.set(message.channel, (this.unread.get(message.channel) ?? 0) + 1);
        tell(this, 'unread');
      }
    }
    tell(this, 'event', event);
  }

  /** @param {Channel} channel */
  #channel(channel) {
    this.channels.set(channel.name, channel);
    tell(this, 'channels');
  }

  /** @param {ChatEvent} event */
  #member({ type, member }) {
    if (!member) return;
    if (type === 'member.added') this.members.set(member.user, member);
    else this.members.delete(member.user);
    if (type === 'member.added' && member.user === this.account.me.user)
      this.project = { ...this.project, role: member.role };
    tell(this, 'members');
  }

  /** @param {{user: string, state: string}} presence */
  #present({ user, state }) {
    if (state === 'offline') this.presence.delete(user);
    else this.presence.set(user, state);
    tell(this, 'presence');
  }

  /** @param {string} channel @param {string} user @param {boolean} [over] */
  #types(channel, user, over) {
    if (user === this.account.me.user) return;
    const here = this.#typing.get(channel) ?? new Map();
    clearTimeout(here.get(user));
    if (over) here.delete(user);
    else
      here.set(
        user,
        setTimeout(() => this.#types(channel, user, true), TYPING_MS),
      );
    this.#typing.set(channel, here);
    tell(this, 'typing');
  }

  /** @param {ChatEvent} event */
  async #imported(event) {
    if (event.channels?.some((/** @type {string} */ name) => !this.channels.has(name))) {
      const { channels } = await this.api.channels(this.id, { limit: 200 });
      this.channels = new Map(channels.map((channel) => [channel.name, channel]));
      tell(this, 'channels');
    }
    tell(this, 'event', event);
  }
}
