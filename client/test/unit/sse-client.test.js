/** One stream: every status, every end, and what is said of them. */

import { expect, test } from 'vitest';
import { DrainingError, HttpError, RateLimitedError, SSEClient } from '../../src/sse.js';
import { FakeServer } from '../../src/testing.js';
import { until } from '../support/until.js';

const fast = { backoff: { baseMs: 2, capMs: 10, jitterMs: 1 } };
const url = 'http://parley.test/sse/stream?project_id=p';

function client(server, options) {
  const stream = new SSEClient(url, { fetch: server.fetch, ...fast, ...options });
  const failures = [];
  const states = [];
  stream.on('failure', (error) => failures.push(error));
  stream.on('status', ({ state, reason }) => states.push(`${state} ${reason ?? ''}`.trim()));
  return { stream, failures, states };
}
const opens = (server) => server.requests.filter(({ url }) => url.pathname === '/sse/stream');

test.each([
  [204, undefined, 'closed', 'done'],
  [200, undefined, 'waiting', 'protocol'],
  [400, { error: 'invalid_request' }, 'closed', 'rejected'],
  [401, { error: 'unauthenticated' }, 'closed', 'auth'],
  [403, { error: 'forbidden' }, 'closed', 'forbidden'],
  [404, { error: 'not_found' }, 'closed', 'gone'],
  [410, {}, 'closed', 'gone'],
  [408, { error: 'timeout' }, 'waiting', 'server_error'],
  [409, { error: 'conflict' }, 'waiting', 'gap'],
  [429, { error: 'rate_limited', retry_after_ms: 60_000 }, 'waiting', 'rate_limited'],
  [
    429,
    { error: 'too_many_connections', max_connections: 5, current_connections: 5, retry_after_ms: 60_000 },
    'blocked',
    'too_many_connections',
  ],
  [500, {}, 'waiting', 'server_error'],
  [502, {}, 'waiting', 'server_error'],
  [503, { error: 'backpressure', retry_after_ms: 60_000 }, 'waiting', 'backpressure'],
  [503, { error: 'draining', retry_after_ms: 60_000 }, 'waiting', 'draining'],
  [503, { status: 'draining' }, 'waiting', 'draining'],
  [503, { error: 'sse_disabled', fallback: '/x' }, 'blocked', 'disabled'],
])('%i %j is %s %s', async (status, body, state, reason) => {
  const server = new FakeServer();
  server.refuse(status, body);
  const { stream, failures } = client(server, { backoff: { baseMs: 60_000, capMs: 60_000 } });
  stream.start();
  await until(() => stream.status.state === state);
  expect(stream.status.reason).toBe(reason);
  if (body?.retry_after_ms) expect(stream.status.retryAt - Date.now()).toBeGreaterThan(59_000);
  if (body && status >= 400) {
    expect(failures[0]).toBeInstanceOf(HttpError);
    expect(failures[0]).toBeInstanceOf(
      status === 429 ? RateLimitedError : reason === 'draining' ? DrainingError : HttpError,
    );
    expect(failures[0].traceId).toBe(stream.traceId);
  }
  expect(stream.status.limit).toEqual(
    reason === 'too_many_connections' ? { max: 5, current: 5, scope: undefined } : null,
  );
  stream.stop();
});

test('Retry-After counts where the body says nothing', async () => {
  const server = new FakeServer();
  server.refuse(503, undefined, { 'Retry-After': '120' });
  const { stream } = client(server);
  stream.start();
  await until(() => stream.status.retryAt);
  expect(stream.status.retryAt - Date.now()).toBeGreaterThan(119_000);
  stream.stop();
});

test('events come in order over cuts, and the cursor moves after the handlers ran', async () => {
  const server = new FakeServer();
  const { stream } = client(server, { bufferedRetryMs: 5 });
  const seen = [];
  stream.on('message', ({ data, id }) => {
    const event = JSON.parse(data);
    if (event.type === 'hello') return;
    expect(stream.lastEventId).not.toBe(id);
    seen.push(event.n);
  });
  stream.start();
  await until(() => server.streams === 1);
  for (let n = 0; n < 20; n++) {
    server.emit({ type: 'x', n });
    if (n % 5 === 4) server.cut();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await until(() => seen.length === 20);
  expect(seen).toEqual([...Array(20).keys()]);
  stream.stop();
  expect(stream.status).toMatchObject({ state: 'closed', reason: 'stopped' });
});

test('a handler that throws is reported, and stops nothing', async () => {
  const server = new FakeServer();
  const { stream } = client(server);
  const seen = [];
  const reported = [];
  const earlier = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => reported.push(error.message));
  stream.on('event', () => {
    throw new Error('a bug in a page');
  });
  stream.on('event', () => seen.push(1));
  stream.start();
  await until(() => server.streams === 1);
  server.emit({ type: 'x' });
  await until(() => seen.length === 2 && reported.length === 2);
  process.removeAllListeners('uncaughtException');
  earlier.forEach((one) => process.on('uncaughtException', one));
  expect(reported).toEqual(['a bug in a page', 'a bug in a page']);
  stream.stop();
});

test('a drain is no failure: the stream is closed at once and comes back', async () => {
  const server = new FakeServer();
  const { stream, states } = client(server);
  stream.start();
  await until(() => stream.status.state === 'open');
  server.control('server_shutdown', { reason: 'draining', retry_after_ms: 5 });
  await until(() => opens(server).length === 2 && stream.status.state === 'open');
  expect(states).toContain('waiting draining');
  expect(stream.status.attempt).toBe(0);
  stream.stop();
});

test.each([
  [{ reason: 'replaced', reconnect: false, retry_after_ms: 0 }, 'closed', 'replaced'],
  [{ reason: 'revoked', reconnect: false, retry_after_ms: 0 }, 'closed', 'revoked'],
  [{ reason: 'max_age', reconnect: true, retry_after_ms: 60_000 }, 'waiting', 'max_age'],
  [{ reason: 'slow_consumer', reconnect: true, retry_after_ms: 60_000 }, 'waiting', 'slow_consumer'],
  [{ reason: 'server_shutdown', reconnect: false, retry_after_ms: 60_000 }, 'waiting', 'draining'],
])('bye %j is %s %s', async (bye, state, reason) => {
  const server = new FakeServer();
  const { stream } = client(server);
  stream.start();
  await until(() => stream.status.state === 'open');
  server.control('bye', bye);
  await until(() => stream.status.state === state);
  expect(stream.status.reason).toBe(reason);
  expect(stream.status.attempt).toBe(0);
  stream.stop();
});

test('a refused sign-in is refreshed once', async () => {
  const server = new FakeServer();
  const allow = server.refuse(401, { error: 'unauthenticated' });
  let token = 'old';
  const asked = [];
  const { stream } = client(server, {
    headers: () => ({ Authorization: token }),
    onUnauthorized: () => {
      asked.push(token);
      token = 'new';
      allow();
    },
  });
  stream.start();
  await until(() => stream.status.state === 'open');
  expect(asked).toEqual(['old']);
  expect(opens(server).at(-1).headers.get('Authorization')).toBe('new');
  server.refuse(401, {});
  server.cut();
  await until(() => stream.status.state === 'closed');
  expect(asked).toEqual(['old', 'new']);
  expect(stream.status.reason).toBe('auth');
});

test('a log that cannot be continued is a gap, and goes on live', async () => {
  const server = new FakeServer();
  const { stream } = client(server, { lastEventId: 'v1.p.other.7' });
  const gaps = [];
  const seen = [];
  stream.on('gap', (gap) => gaps.push(gap));
  stream.on('message', ({ data }) => seen.push(JSON.parse(data).type));
  stream.start();
  await until(() => gaps.length === 1);
  server.emit({ type: 'x' });
  await until(() => seen.includes('x'));
  expect(gaps[0].reason).toBe('unknown_epoch');
  expect(stream.lastEventId).toBe(server.log[0].id);
  stream.stop();
});

test('silence ends a stream, comments count as life, and staleness shows before', async () => {
  const server = new FakeServer();
  const { stream, states } = client(server, { silenceMs: 120 });
  const stale = [];
  stream.on('status', (status) => stale.push(status.stale));
  stream.start();
  await until(() => stream.status.state === 'open');
  const beats = setInterval(() => server.send(': keepalive\n\n'), 30);
  await new Promise((resolve) => setTimeout(resolve, 300));
  clearInterval(beats);
  expect(opens(server)).toHaveLength(1);
  await until(() => opens(server).length === 2);
  expect(states).toContain('waiting silence');
  expect(stale).toContain(true);
  await until(() => stream.status.state === 'open');
  expect(stream.status.stale).toBe(false);
  stream.stop();
});

test('a proxy that holds back everything, or ends every stream at once, is seen', async () => {
  const never = async (_url, { signal }) => {
    const body = new ReadableStream({
      start: (controller) => signal.addEventListener('abort', () => controller.error(signal.reason)),
    });
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  };
  const held = new SSEClient(url, { fetch: never, openTimeoutMs: 40, ...fast }).start();
  await until(() => held.status.state === 'blocked');
  expect(held.status.reason).toBe('buffered');
  held.stop();
  let count = 0;
  const short = async () => (
    count++,
    new Response('data: 1\n\n', { headers: { 'Content-Type': 'text/event-stream' } })
  );
  const ended = new SSEClient(url, { fetch: short, ...fast }).start();
  await until(() => ended.status.state === 'blocked');
  expect([count, ended.status.reason]).toEqual([3, 'buffered']);
  ended.stop();
});

test('an opening that takes too long is tried again, three times', async () => {
  let count = 0;
  const hang = (_url, { signal }) =>
    new Promise((_, reject) => (count++, signal.addEventListener('abort', () => reject(signal.reason))));
  const stream = new SSEClient(url, { fetch: hang, openTimeoutMs: 20, ...fast }).start();
  await until(() => stream.status.state === 'blocked');
  expect([count, stream.status.attempt, stream.status.reason]).toEqual([3, 2, 'buffered']);
  stream.stop();
});

test('failures are counted until a stream was stable, and given up where that is asked for', async () => {
  const server = new FakeServer();
  const allow = server.refuse(500);
  const { stream } = client(server, { maxAttempts: 3, stableMs: 20 });
  stream.start();
  await until(() => stream.status.state === 'closed');
  expect(stream.status.reason).toBe('gave_up');
  expect(opens(server)).toHaveLength(4);
  allow();
  stream.start();
  await until(() => stream.status.state === 'open');
  await new Promise((resolve) => setTimeout(resolve, 30));
  server.cut();
  await until(() => opens(server).length === 6 && stream.status.state === 'open');
  expect(stream.status.attempt).toBe(1);
  stream.stop();
});

test('it can be read by for await, which ends it', async () => {
  const server = new FakeServer();
  const { stream } = client(server);
  const seen = [];
  for await (const { data } of stream) {
    const { type, n } = JSON.parse(data);
    if (type === 'hello') for (let n = 0; n < 3; n++) server.emit({ type: 'x', n });
    else seen.push(n);
    if (n === 2) break;
  }
  expect(seen).toEqual([0, 1, 2]);
  expect(stream.status.state).toBe('closed');
  await until(() => server.streams === 0);
});

test('an abort signal stops it, and every request says not to be stored', async () => {
  const server = new FakeServer();
  const controller = new AbortController();
  const inits = [];
  const fetch = (input, init) => (inits.push(init), server.fetch(input, init));
  const { stream } = client(server, { signal: controller.signal, fetch });
  stream.start();
  await until(() => stream.status.state === 'open');
  controller.abort();
  expect(stream.status.state).toBe('closed');
  expect(stream.start().status.state).toBe('closed');
  expect(inits.every(({ cache }) => cache === 'no-store')).toBe(true);
});
