/** @file Both services' REST. */

import { ApiClient } from './api-client.js';
import { fetchTelling } from './upload.js';
import { randomName } from './random-name.js';

/**
 * @import { Bundle, Channel, EventPage, FoundMessage, Job, JobState, Me, Member, Message, NewMessage, Page, Presence,
 *   Project, ReadMark, Role, Session, Upload } from './wire.js'
 */

const part = encodeURIComponent;

/**
 * Returns the method that calls a route. Its first arguments take the places of `:` in the path, the next ones are the
 * fields that are named after the path, and one more has all other fields: of the query of a GET, else of the body.
 * @param {string} route
 */
const calls = (route) => {
  const [verb, path, ...names] = /** @type {[string, string, ...string[]]} */ (route.split(' '));
  /** @this {ApiClient} @param {any[]} args @returns {Promise<any>} */
  return function (...args) {
    const url = path.replace(/:/g, () => part(args.shift()));
    const named = names.map((name) => [name, args.shift()]);
    const fields = named[0] ?? args[0] ? { ...Object.fromEntries(named), ...args[0] } : undefined;
    return verb === 'GET' ? this.get(url, fields) : this.request(verb, url, { body: fields });
  };
};

/**
 * Calls both services. Reads that are under way are shared, sends go one after another, and what was refused for now is
 * repeated. Lists are `{<plural>, next}`; a refused request throws `HttpError`.
 */
export class ChatApi extends ApiClient {
  /** @type {Promise<unknown>} */
  #sends = Promise.resolve();

  /** @type {() => Promise<Me>} */
  me = calls('GET /api/auth/me');
  /** @type {(page?: Page) => Promise<{sessions: Session[], next: string | null}>} */
  sessions = calls('GET /api/auth/sessions');
  /**
   * Returns what opens one stream as `?ticket=`.
   * @type {(project?: string) => Promise<{ticket: string, expires_in: number}>}
   */
  ticket = calls('POST /sse/ticket project_id');

  /** @type {(page?: Page) => Promise<{projects: Project[], next: string | null}>} */
  projects = calls('GET /api/chat/projects');
  /** @type {(fields: {name: string}) => Promise<Project>} */
  createProject = calls('POST /api/chat/projects');
  /** @type {(project: string) => Promise<Project>} */
  project = calls('GET /api/chat/projects/:');
  /** @type {(project: string, fields: {name: string}) => Promise<Project>} */
  updateProject = calls('PATCH /api/chat/projects/:');
  /** @type {(project: string) => Promise<null>} */
  deleteProject = calls('DELETE /api/chat/projects/:');

  /** @type {(project: string, page?: Page) => Promise<{members: Member[], next: string | null}>} */
  members = calls('GET /api/chat/projects/:/members');
  /** @type {(project: string, user: string, role: Role) => Promise<Member>} */
  setMember = calls('PUT /api/chat/projects/:/members/: role');
  /** @type {(project: string, user: string) => Promise<null>} */
  removeMember = calls('DELETE /api/chat/projects/:/members/:');

  /** @type {(project: string, page?: Page) => Promise<{channels: Channel[], next: string | null}>} */
  channels = calls('GET /api/chat/projects/:/channels');
  /** @type {(project: string, fields: {name: string, topic?: string}) => Promise<Channel>} */
  createChannel = calls('POST /api/chat/projects/:/channels');
  /** @type {(project: string, channel: string, fields: {topic: string | null}) => Promise<Channel>} */
  updateChannel = calls('PATCH /api/chat/projects/:/channels/:');

  /**
   * History, newest first. `cursor` is where a stream has to start for nothing to be missed.
   * @type {(project: string, page?: Page & {channel?: string}) => Promise<{messages: Message[], next: string | null,
   *   cursor: string}>}
   */
  messages = calls('GET /api/chat/projects/:/messages');
  /** @type {(project: string, id: string) => Promise<Message>} */
  message = calls('GET /api/chat/projects/:/messages/:');
  /** @type {(project: string, id: string, text: string) => Promise<Message>} */
  editMessage = calls('PATCH /api/chat/projects/:/messages/: text');
  /** @type {(project: string, id: string) => Promise<Message>} */
  deleteMessage = calls('DELETE /api/chat/projects/:/messages/:');
  /** @type {(project: string, id: string, emoji: string) => Promise<Message>} */
  addReaction = calls('PUT /api/chat/projects/:/messages/:/reactions/:');
  /** @type {(project: string, id: string, emoji: string) => Promise<Message>} */
  removeReaction = calls('DELETE /api/chat/projects/:/messages/:/reactions/:');
  /**
   * What fits best, the best first.
   * @type {(project: string, q: string, query?: {channel?: string, limit?: number}) => Promise<{messages:
   *   FoundMessage[], next: null}>}
   */
  search = calls('GET /api/chat/projects/:/search q');

  /** @type {(project: string, channel: string) => Promise<null>} */
  typing = calls('POST /api/chat/projects/:/typing channel');
  /** @type {(project: string) => Promise<{presence: Presence[], next: string | null}>} */
  presence = calls('GET /api/chat/projects/:/presence');
  /** @type {(project: string, state: Presence['state']) => Promise<Presence>} */
  setPresence = calls('PUT /api/chat/projects/:/presence state');
  /** @type {(project: string) => Promise<{reads: ReadMark[], next: string | null}>} */
  reads = calls('GET /api/chat/projects/:/read');
  /** @type {(project: string, channel: string, messageId: string) => Promise<ReadMark>} */
  markRead = calls('PUT /api/chat/projects/:/read channel message_id');
  /**
   * Changes what an open stream carries. `project_id` says which, where several projects have streams of this id.
   * @type {(streamId: string, change: {add?: string[], remove?: string[], project_id?: string}) => Promise<null>}
   */
  changeStreamChannels = calls('POST /sse/streams/:/channels');

  /** @type {(streamId: string) => Promise<any>} */
  answer = calls('GET /api/chat/answers/:');
  /** @type {(streamId: string) => Promise<any>} */
  cancelAnswer = calls('POST /api/chat/answers/:/cancel');

  /** @type {() => Promise<{bundles: Bundle[], next: string | null}>} */
  bundles = calls('GET /api/integrations/bundles');
  /** @type {(bundle: string) => Promise<Bundle>} */
  bundle = calls('GET /api/integrations/bundles/:');
  /**
   * @type {(filter?: {project_id?: string, state?: JobState, bundle?: string, limit?: number, cursor?: string}) =>
   *   Promise<{jobs: Job[], next: string | null}>}
   */
  jobs = calls('GET /api/integrations/jobs');
  /** @type {(id: string) => Promise<Job>} */
  job = calls('GET /api/integrations/jobs/:');
  /**
   * @type {(id: string, page?: {limit?: number, cursor?: number}) => Promise<{logs: {at: string, level: string, line:
   *   number, message: string}[], next: number | null}>}
   */
  jobLogs = calls('GET /api/integrations/jobs/:/logs');
  /** @type {(id: string) => Promise<Job>} */
  cancelJob = calls('POST /api/integrations/jobs/:/cancel');
  /** @type {(id: string) => Promise<Job>} */
  retryJob = calls('POST /api/integrations/jobs/:/retry');

  /** For admins. @type {() => Promise<any>} */
  streamStats = calls('GET /api/jobs/stream/stats');
  /** For admins. @type {(user: string, project: string) => Promise<{connections: any[], count: number}>} */
  connections = calls('GET /api/debug/sse-connections/:/:');
  /** For admins. @type {(id: string) => Promise<null>} */
  closeConnection = calls('DELETE /api/debug/sse-connections/:');
  /** For admins: what waits and runs. @type {() => Promise<any>} */
  queue = calls('GET /api/integrations/admin/queue');
  /** For admins. @type {() => Promise<{workers: any[], next: string | null}>} */
  workers = calls('GET /api/integrations/admin/workers');

  /** Signs a session out; without one, all but this. @param {string | null} [id] @returns {Promise<null>} */
  endSession(id) {
    return this.request('DELETE', '/api/auth/sessions' + (id ? `/${part(id)}` : ''));
  }
  /**
   * Sends after all sends before it, as often as it takes, once.
   * @param {string} project
   * @param {NewMessage} message
   * @returns {Promise<Message>}
   */
  sendMessage(project, message) {
    const body = { client_message_id: randomName(), ...message };
    const path = `/api/chat/projects/${part(project)}/messages`;
    const sent = this.#sends.then(() => this.request('POST', path, { body, idempotencyKey: body.client_message_id }));
    this.#sends = sent.catch(() => {});
    return sent;
  }
  /**
   * The project's log after a cursor; waits up to `wait` seconds for something to happen.
   * @param {string} project
   * @param {{after?: string | null, wait?: number}} query
   * @param {AbortSignal} [signal]
   * @returns {Promise<EventPage>}
   */
  events(project, query, signal) {
    return this.request('GET', `/api/chat/projects/${part(project)}/events`, { query, signal });
  }
  /**
   * Calls an operation; `wait` is how many seconds (at most 25) the job may take to come back finished.
   * @param {string} bundle
   * @param {string} operation
   * @param {{project_id: string, data?: any, wait?: number, idempotencyKey?: string}} call
   * @returns {Promise<Job>}
   */
  submit(bundle, operation, { wait, idempotencyKey = randomName(), ...body }) {
    const headers = wait ? { Prefer: `wait=${wait}` } : undefined;
    const path = `/api/integrations/bundles/${part(bundle)}/operations/${part(operation)}`;
    return this.request('POST', path, { body, headers, idempotencyKey });
  }
  /**
   * Returns the response, to be read as it comes.
   * @param {string} id
   * @param {string} name
   * @param {{range?: string, signal?: AbortSignal}} [options]
   * @returns {Promise<Response>}
   */
  artifact(id, name, { range, signal } = {}) {
    const headers = range ? { Range: range } : undefined;
    return this.send('GET', `/api/integrations/jobs/${part(id)}/artifacts/${part(name)}`, { signal, headers });
  }
  /**
   * Uploads a file; outside of browsers progress is not told.
   * @param {Blob} body
   * @param {{onProgress?: (progress: {loaded: number, total: number}) => void, signal?: AbortSignal}} [options]
   * @returns {Promise<Upload>}
   */
  upload(body, { onProgress, signal } = {}) {
    const fetch = onProgress && globalThis.XMLHttpRequest ? fetchTelling(onProgress) : undefined;
    return this.request('POST', '/api/integrations/uploads', { body, signal, fetch });
  }
}
