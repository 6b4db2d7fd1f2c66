/** @file Both services' REST. */

import { ApiClient } from './api-client.js';
import { upload } from './upload.js';
import { uuid } from './uuid.js';

/**
 * @import { Bundle, Channel, EventPage, FoundMessage, Job, JobState, Me, Member, Message, NewMessage, Page, Presence,
 *   Project, ReadMark, Role, Session, Upload } from './wire.js'
 */

const part = encodeURIComponent;

/**
 * Calls both services. Reads that are under way are shared, sends go one after another, and what was refused for now is
 * repeated. Lists are `{<plural>, next}`; a refused request throws `HttpError`.
 */
export class ChatApi extends ApiClient {
  /** @type {Promise<unknown>} */
  #sends = Promise.resolve();

  /** @returns {Promise<Me>} */
  me() {
    return this.get('/api/auth/me');
  }
  /** @param {Page} [page] @returns {Promise<{sessions: Session[], next: string | null}>} */
  sessions(page) {
    return this.get('/api/auth/sessions', page);
  }
  /** Signs a session out; without one, all but this. @param {string} [id] @returns {Promise<null>} */
  endSession(id) {
    return this.request('DELETE', '/api/auth/sessions' + (id ? `/${part(id)}` : ''));
  }
  /**
   * Returns what opens one stream as `?ticket=`.
   * @param {string} [project]
   * @returns {Promise<{ticket: string, expires_in: number}>}
   */
  ticket(project) {
    return this.request('POST', '/sse/ticket', { body: { project_id: project } });
  }

  /** @param {Page} [page] @returns {Promise<{projects: Project[], next: string | null}>} */
  projects(page) {
    return this.get('/api/chat/projects', page);
  }
  /** @param {{name: string}} fields @returns {Promise<Project>} */
  createProject(fields) {
    return this.request('POST', '/api/chat/projects', { body: fields });
  }
  /** @param {string} project @returns {Promise<Project>} */
  project(project) {
    return this.get(of(project));
  }
  /** @param {string} project @param {{name: string}} fields @returns {Promise<Project>} */
  updateProject(project, fields) {
    return this.request('PATCH', of(project), { body: fields });
  }
  /** @param {string} project @returns {Promise<null>} */
  deleteProject(project) {
    return this.request('DELETE', of(project));
  }

  /** @param {string} project @param {Page} [page] @returns {Promise<{members: Member[], next: string | null}>} */
  members(project, page) {
    return this.get(of(project, 'members'), page);
  }
  /** @param {string} project @param {string} user @param {Role} role @returns {Promise<Member>} */
  setMember(project, user, role) {
    return this.request('PUT', of(project, 'members', user), { body: { role } });
  }
  /** @param {string} project @param {string} user @returns {Promise<null>} */
  removeMember(project, user) {
    return this.request('DELETE', of(project, 'members', user));
  }

  /** @param {string} project @param {Page} [page] @returns {Promise<{channels: Channel[], next: string | null}>} */
  channels(project, page) {
    return this.get(of(project, 'channels'), page);
  }
  /** @param {string} project @param {{name: string, topic?: string}} fields @returns {Promise<Channel>} */
  createChannel(project, fields) {
    return this.request('POST', of(project, 'channels'), { body: fields });
  }
  /**
   * @param {string} project
   * @param {string} channel
   * @param {{topic: string | null}} fields
   * @returns {Promise<Channel>}
   */
  updateChannel(project, channel, fields) {
    return this.request('PATCH', of(project, 'channels', channel), { body: fields });
  }

  /**
   * History, newest first. `cursor` is where a stream has to start for nothing to be missed.
   * @param {string} project
   * @param {Page & {channel?: string}} [page]
   * @returns {Promise<{messages: Message[], next: string | null, cursor: string}>}
   */
  messages(project, page) {
    return this.get(of(project, 'messages'), page);
  }
  /** @param {string} project @param {string} id @returns {Promise<Message>} */
  message(project, id) {
    return this.get(of(project, 'messages', id));
  }
  /**
   * Sends after all sends before it, as often as it takes, once.
   * @param {string} project
   * @param {NewMessage} message
   * @returns {Promise<Message>}
   */
  sendMessage(project, message) {
    const body = { client_message_id: uuid(), ...message };
    const send = () => this.request('POST', of(project, 'messages'), { body, idempotencyKey: body.client_message_id });
    const sent = this.#sends.then(send);
    this.#sends = sent.catch(() => {});
    return sent;
  }
  /** @param {string} project @param {string} id @param {string} text @returns {Promise<Message>} */
  editMessage(project, id, text) {
    return this.request('PATCH', of(project, 'messages', id), { body: { text } });
  }
  /** @param {string} project @param {string} id @returns {Promise<Message>} */
  deleteMessage(project, id) {
    return this.request('DELETE', of(project, 'messages', id));
  }
  /** @param {string} project @param {string} id @param {string} emoji @returns {Promise<Message>} */
  addReaction(project, id, emoji) {
    return this.request('PUT', of(project, 'messages', id, 'reactions', emoji));
  }
  /** @param {string} project @param {string} id @param {string} emoji @returns {Promise<Message>} */
  removeReaction(project, id, emoji) {
    return this.request('DELETE', of(project, 'messages', id, 'reactions', emoji));
  }
  /** @param {string} project @param {string} channel @returns {Promise<null>} */
  typing(project, channel) {
    return this.request('POST', of(project, 'typing'), { body: { channel } });
  }
  /** @param {string} project @returns {Promise<{presence: Presence[], next: string | null}>} */
  presence(project) {
    return this.get(of(project, 'presence'));
  }
  /** @param {string} project @param {Presence['state']} state @returns {Promise<Presence>} */
  setPresence(project, state) {
    return this.request('PUT', of(project, 'presence'), { body: { state } });
  }
  /** @param {string} project @returns {Promise<{reads: ReadMark[], next: string | null}>} */
  reads(project) {
    return this.get(of(project, 'read'));
  }
  /** @param {string} project @param {string} channel @param {string} messageId @returns {Promise<ReadMark>} */
  markRead(project, channel, messageId) {
    return this.request('PUT', of(project, 'read'), { body: { channel, message_id: messageId } });
  }
  /**
   * What fits best, the best first.
   * @param {string} project
   * @param {string} q
   * @param {{channel?: string, limit?: number}} [query]
   * @returns {Promise<{messages: FoundMessage[], next: null}>}
   */
  search(project, q, query) {
    return this.get(of(project, 'search'), { q, ...query });
  }
  /**
   * The project's log after a cursor; waits up to `wait` seconds for something to happen.
   * @param {string} project
   * @param {{after?: string | null, wait?: number}} query
   * @param {AbortSignal} [signal]
   * @returns {Promise<EventPage>}
   */
  events(project, query, signal) {
    return this.request('GET', of(project, 'events'), { query, signal });
  }
  /**
   * Changes what an open stream carries.
   * @param {string} streamId
   * @param {{add?: string[], remove?: string[]}} change
   * @returns {Promise<null>}
   */
  changeStreamChannels(streamId, change) {
    return this.request('POST', `/sse/streams/${part(streamId)}/channels`, { body: change });
  }

  /** @param {string} streamId @returns {Promise<any>} */
  answer(streamId) {
    return this.get(`/api/chat/answers/${part(streamId)}`);
  }
  /** @param {string} streamId @returns {Promise<any>} */
  cancelAnswer(streamId) {
    return this.request('POST', `/api/chat/answers/${part(streamId)}/cancel`);
  }

  /** @returns {Promise<{bundles: Bundle[], next: string | null}>} */
  bundles() {
    return this.get('/api/integrations/bundles');
  }
  /** @param {string} bundle @returns {Promise<Bundle>} */
  bundle(bundle) {
    return this.get(`/api/integrations/bundles/${part(bundle)}`);
  }
  /**
   * Calls an operation; `wait` is how many seconds (at most 25) the job may take to come back finished.
   * @param {string} bundle
   * @param {string} operation
   * @param {{project_id: string, data?: any, wait?: number, idempotencyKey?: string}} call
   * @returns {Promise<Job>}
   */
  submit(bundle, operation, { wait, idempotencyKey = uuid(), ...body }) {
    const headers = wait ? { Prefer: `wait=${wait}` } : undefined;
    const path = `/api/integrations/bundles/${part(bundle)}/operations/${part(operation)}`;
    return this.request('POST', path, { body, headers, idempotencyKey });
  }
  /**
   * @param {{project_id?: string, state?: JobState, bundle?: string, limit?: number, cursor?: string}} [filter]
   * @returns {Promise<{jobs: Job[], next: string | null}>}
   */
  jobs(filter) {
    return this.get(jobs(), filter);
  }
  /** @param {string} id @returns {Promise<Job>} */
  job(id) {
    return this.get(jobs(id));
  }
  /**
   * @param {string} id
   * @param {{limit?: number, cursor?: number}} [page]
   * @returns {Promise<{logs: {at: string, level: string, line: number, message: string}[], next: number | null}>}
   */
  jobLogs(id, page) {
    return this.get(jobs(id, 'logs'), page);
  }
  /** @param {string} id @returns {Promise<Job>} */
  cancelJob(id) {
    return this.request('POST', jobs(id, 'cancel'));
  }
  /** @param {string} id @returns {Promise<Job>} */
  retryJob(id) {
    return this.request('POST', jobs(id, 'retry'));
  }
  /**
   * Returns the response, to be read as it comes.
   * @param {string} id
   * @param {string} name
   * @param {{range?: string, signal?: AbortSignal}} [options]
   * @returns {Promise<Response>}
   */
  artifact(id, name, { range, signal } = {}) {
    return this.send('GET', jobs(id, 'artifacts', name), {
      signal,
      headers: range ? { Range: range } : {},
    });
  }
  /**
   * Uploads a file; outside of browsers progress is not told.
   * @param {Blob} file
   * @param {{onProgress?: (progress: {loaded: number, total: number}) => void, signal?: AbortSignal}} [options]
   * @returns {Promise<Upload>}
   */
  async upload(file, { onProgress, signal } = {}) {
    const path = '/api/integrations/uploads';
    if (!onProgress || !globalThis.XMLHttpRequest) return this.request('POST', path, { body: file, signal });
    const { credentials } = this.options;
    return upload(this.url(path), file, { headers: await this.headers(), credentials, signal, onProgress });
  }

  /** For admins. @returns {Promise<any>} */
  streamStats() {
    return this.get('/api/jobs/stream/stats');
  }
  /**
   * For admins.
   * @param {string} user
   * @param {string} project
   * @returns {Promise<{connections: any[], count: number}>}
   */
  connections(user, project) {
    return this.get(`/api/debug/sse-connections/${part(user)}/${part(project)}`);
  }
  /** For admins. @param {string} id @returns {Promise<null>} */
  closeConnection(id) {
    return this.request('DELETE', `/api/debug/sse-connections/${part(id)}`);
  }
  /** For admins: what waits and runs. @returns {Promise<any>} */
  queue() {
    return this.get('/api/integrations/admin/queue');
  }
  /** For admins. @returns {Promise<{workers: any[], next: string | null}>} */
  workers() {
    return this.get('/api/integrations/admin/workers');
  }
}

/** @param {string[]} parts */
const of = (...parts) => `/api/chat/projects/${parts.map(part).join('/')}`;
/** @param {string[]} parts */
const jobs = (...parts) => ['/api/integrations/jobs', ...parts.map(part)].join('/');
