/** @file `@parley/client/react`: hooks. */

import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import { streamAnswer } from './answer.js';
import { PersistentChatConnection } from './connection.js';
import { IDLE } from './status.js';

/** @import { ConnectionStatus } from './status.js' */
/** @import { ChatEvent, Completion } from './wire.js' */

/**
 * Returns the status of anything that has one; renders when it changes.
 * @param {{status: ConnectionStatus, on(type: 'status', handler: () => void): () => void} | null | undefined}
 *   connection
 * @returns {ConnectionStatus}
 */
export function useConnectionStatus(connection) {
  const subscribe = useCallback(
    (/** @type {() => void} */ changed) => connection?.on('status', changed) ?? (() => {}),
    [connection],
  );
  return useSyncExternalStore(
    subscribe,
    () => connection?.status ?? IDLE,
    () => IDLE,
  );
}

/**
 * Keeps the newest value at hand without making anything anew.
 * @template T
 * @param {T} value
 */
function useLatest(value) {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}

/**
 * Follows a project while the component is there. The handlers may be new functions each time.
 * @param {import('./connection-options.js').ConnectionOptions & {onGap?: (gap: {reason: string, cursor: string | null})
 *   => void}} options
 * @returns {{connection: PersistentChatConnection, status: ConnectionStatus}}
 */
export function useChatConnection(options) {
  const latest = useLatest(options);
  const { api, project_id, user, include } = options;
  const connection = useMemo(
    () => new PersistentChatConnection({ ...options, onMessage: undefined }),
    // The others only say how it begins.
    [api, project_id, user, include],
  );
  useEffect(() => {
    const undo = [
      connection.on('event', (/** @type {ChatEvent} */ event) => latest.current.onMessage?.(event)),
      connection.on('gap', (gap) => latest.current.onGap?.(gap)),
    ];
    void connection.connect();
    return () => {
      undo.forEach((one) => one());
      connection.disconnect();
    };
  }, [connection, latest]);
  return { connection, status: useConnectionStatus(connection) };
}

/**
 * Asks when told to, and tells how the answer comes along.
 * @param {object} options
 * @param {import('./chat-api.js').ChatApi} options.api
 * @param {string} options.query
 * @param {string} options.project_id
 * @param {(content: string) => void} [options.onContent]
 * @param {(data: Completion) => void} [options.onComplete]
 * @param {(error: Error) => void} [options.onError]
 * @param {(data: any) => void} [options.onHeartbeat]
 * @param {number} [options.silenceThreshold] In seconds; default: what the server says.
 * @param {number} [options.maxReconnectAttempts]
 */
export function useSSEStream(options) {
  const latest = useLatest(options);
  const [answer, setAnswer] = useState(/** @type {import('./answer.js').AnswerStream | null} */ (null));
  const current = useRef(answer);
  const status = useConnectionStatus(answer);
  /** Stops reading; `cancel` stops the writing. */
  const stop = useCallback(() => current.current?.detach(), []);
  const cancel = useCallback(async () => current.current?.cancel(), []);
  const start = useCallback(() => {
    current.current?.detach();
    const { api, query, project_id, silenceThreshold, maxReconnectAttempts } = latest.current;
    const silenceMs = silenceThreshold && silenceThreshold * 1_000;
    const next = streamAnswer({ api, query, project_id, silenceMs, maxReconnects: maxReconnectAttempts });
    next.on('content', ({ text }) => latest.current.onContent?.(text));
    next.on('complete', (end) => latest.current.onComplete?.(end));
    next.on('error', (error) => latest.current.onError?.(error));
    next.on('heartbeat', (beat) => latest.current.onHeartbeat?.(beat));
    setAnswer((current.current = next));
  }, [latest]);
  useEffect(() => stop, [stop]);
  return {
    start,
    stop,
    cancel,
    isConnected: status.state === 'open',
    isReconnecting: status.state === 'waiting' || (status.state === 'connecting' && status.attempt > 0),
    reconnectAttempts: status.attempt,
    traceId: status.traceId,
  };
}
