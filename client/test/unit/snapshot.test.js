/** What a stream begins with, and what its last event says. */

import { expect, test } from 'vitest';
import { JobsStream, PersistentChatConnection } from '../../src/index.js';
import { SSEClient } from '../../src/sse.js';
import { FakeServer } from '../../src/testing.js';
import { until } from '../support/until.js';

const job = (id) => ({ id, state: 'queued', finished_at: null });
const hello = 'retry: 1\ndata: {"type":"hello"}\n\n';
const part = (jobs, more, id) =>
  `data: ${JSON.stringify({ type: 'job.snapshot', jobs, more })}\n${id ? `id: ${id}\n` : ''}\n`;

/** A server whose streams are these texts, one after the other; the last one stays open. */
function scripted(texts) {
  const cursors = [];
  const server = new FakeServer();
  const fetch = async (url, options) => {
    if (!/stream/.test(`${url}`)) return server.fetch(url, options);
    cursors.push(new Headers(options.headers).get('Last-Event-ID'));
    const text = texts[cursors.length - 1];
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(text));
        if (cursors.length < texts.length) controller.close();
      },
    });
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  };
  const api = server.api({ fetch, stream: { backoff: { baseMs: 2, capMs: 5 } } });
  return { api, fetch, cursors };
}

test('the parts of a snapshot are one, and what was cut off between them begins anew', async () => {
  const cut = hello + part([job('1')], true);
  const whole = cut + part([job('2')], true) + part([job('3')], false, 'v1.end');
  const { api, cursors } = scripted([cut, whole]);
  const events = [];
  const stream = new JobsStream({ api });
  stream.on('event', (event) => events.push(event));
  stream.start();
  await until(() => events.length === 1);
  expect(events[0].jobs.map(({ id }) => id)).toEqual(['1', '2', '3']);
  expect([...stream.jobs.keys()]).toEqual(['1', '2', '3']);
  expect(cursors).toEqual([null, null]);
  expect(stream.stream.lastEventId).toBe('v1.end');
  stream.stop();
});

test('a connection hands out one snapshot of jobs', async () => {
  const { api } = scripted([hello + part([job('1')], true) + part([job('2')], false, 'v1.end')]);
  const seen = [];
  const connection = new PersistentChatConnection({ api, project_id: 'p', user: 'ada', include: 'jobs' });
  connection.on('job.snapshot', ({ jobs }) => seen.push(jobs.map(({ id }) => id)));
  await connection.connect();
  await until(() => seen.length === 1);
  expect(seen).toEqual([['1', '2']]);
  expect(connection.cursor).toBe('v1.end');
  connection.disconnect();
});

test('a reset is had again where the stream is cut off before the snapshot behind it', async () => {
  const reset = `event: reset\ndata: {"reason":"expired","cursor":"v1.project"}\n\n`;
  const { fetch, cursors } = scripted([hello + reset, hello + reset + part([], false, 'v1.end')]);
  const gaps = [];
  const stream = new SSEClient('http://parley.test/api/jobs/stream', {
    fetch,
    lastEventId: 'v1.old',
    backoff: { baseMs: 2, capMs: 5 },
  });
  stream.on('gap', ({ cursor }) => gaps.push(cursor));
  stream.start();
  await until(() => stream.lastEventId === 'v1.end');
  expect(cursors).toEqual(['v1.old', 'v1.old']);
  expect(gaps).toEqual(['v1.project', 'v1.project']);
  stream.stop();
});

test('who was told not to come back goes on where it was when it is started again', async () => {
  const bye = 'event: bye\ndata: {"reason":"replaced","reconnect":false,"retry_after_ms":1}\nid: v1.final\n\n';
  const first = `retry: 1\ndata: {"type":"hello"}\nid: v1.here\n\n${bye}`;
  const { fetch, cursors } = scripted([first, hello]);
  const stream = new SSEClient('http://parley.test/sse/stream', { fetch });
  stream.start();
  await until(() => stream.status.state === 'closed');
  expect(stream.status.reason).toBe('replaced');
  stream.start();
  await until(() => cursors.length === 2);
  expect(cursors).toEqual([null, 'v1.here']);
  stream.stop();
});
