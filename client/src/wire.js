/** @file What the services send and take, as types. Times are RFC 3339, ids are UUIDs, cursors are opaque. */

/** @typedef {'owner' | 'member' | 'viewer'} Role */
/** @typedef {{user: string, name: string, roles: string[], session_id: string, auth_mode: string}} Me */
/** @typedef {{id: string, created_at: string, seen_at: string, current: boolean, streams: number}} Session */
/** @typedef {{id: string, name: string, role: Role, created_at: string, updated_at: string}} Project */
/** @typedef {{user: string, name: string, role: Role, added_at: string}} Member */
/**
 * @typedef {{id: string, project_id: string, name: string, topic: string | null, created_at: string, updated_at:
 *   string}} Channel
 */
/**
 * @typedef {{emoji: string, users: string[], count: number}} Reaction `users` are at most 100, the caller first; in events ten.
 */
/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string} project_id
 * @property {string} channel
 * @property {string} author
 * @property {string} author_name
 * @property {string} text Plain text, never markup.
 * @property {string | null} reply_to
 * @property {Record<string, any> | null} metadata
 * @property {Reaction[]} reactions
 * @property {string} created_at
 * @property {string | null} updated_at
 * @property {string | null} deleted_at
 */
/**
 * @typedef {object} NewMessage
 * @property {string} text
 * @property {string} [channel] Default `general`.
 * @property {string} [client_message_id] Made if it is not given: a repeated send is the same message.
 * @property {string} [reply_to]
 * @property {Record<string, any>} [metadata]
 */
/** @typedef {{user: string, state: 'online' | 'away' | 'offline', since: string}} Presence */
/** @typedef {{user: string, channel: string, message_id: string, at: string}} ReadMark */
/** @typedef {Message & {score: number, snippet: string}} FoundMessage */
/** @typedef {{events: ChatEvent[], cursor: string, reset: string | null}} EventPage */
/**
 * What happened: `message.created|updated|deleted`, `reaction.added|removed`, `channel.created|updated`,
 * `member.added|removed`, `read.updated`, `project.updated`, `history.imported`, `user.typing`, `user.presence`,
 * `job.*`, each with the resource under its name. `truncated`: it would have been too long for a stream, and its resource
 * has to be asked for.
 * @typedef {{type: string, project_id?: string, at: string, actor: string, trace_id: string, message?: Message,
 *   channel?: any, member?: Member, job?: Job, jobs?: Job[], truncated?: boolean, [field: string]: any}} ChatEvent
 */
/** @typedef {'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'interrupted'} JobState */
/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} bundle
 * @property {string} operation
 * @property {string} project_id
 * @property {string} owner
 * @property {JobState} state
 * @property {number} attempt
 * @property {number} max_attempts
 * @property {{fraction: number | null, done: number, total: number | null, unit: string | null, message: string |
 *   null}} progress
 * @property {any} result
 * @property {{code: string, message: string, retryable: boolean} | null} error
 * @property {string} trace_id
 * @property {string} created_at
 * @property {string | null} started_at
 * @property {string | null} finished_at
 * @property {string} run_after
 */
/** @typedef {{name: string, description: string, input: any, role: Role, timeout_seconds: number}} Operation */
/** @typedef {{name: string, description: string, version: string | null, operations: Operation[]}} Bundle */
/** @typedef {{upload_id: string, bytes: number, sha256: string}} Upload */
/**
 * @typedef {{message_id: string, channel: string, author: string, created_at: string, snippet: string, score: number}}
 *   Source
 */
/**
 * @typedef {{reason: string, duration?: number, total_chunks?: number, total_tokens?: number, sources?: Source[]}}
 *   Completion
 */
/** @typedef {{limit?: number, before?: string, after?: string}} Page */

export {};
