/** Answers, from a small server of their own that speaks as the contract says. */

import http from 'node:http';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { ChatApi, streamAnswer } from '../../src/index.js';
import { until } from '../support/until.js';

const fast = { baseMs: 5, capMs: 20, jitterMs: 1 };
const words = ['What ', 'was ', 'decided ', 'is ', 'this.'];
const sources = [{ message_id: 'm', channel: 'general', author: 'ada', created_at: '', snippet: 'this', score: 1 }];
let server, api, requests, answers, script;

beforeAll(async () => {
  server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://x');
    requests.push({
      method: request.method,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      last: request.headers['last-event-id'],
    });
    if (request.method === 'POST') {
      answers[0].cancelled = true;
      return response.end('{}');
    }
    const last = request.headers['last-event-id'];
    const step = script.shift() ?? {};
    if (step.status)
      return response
        .writeHead(step.status, { 'Content-Type': 'application/json' })
        .end(JSON.stringify(step.body ?? {}));
    if (!last && !answers.some(({ name }) => name === url.searchParams.get('stream_id')))
      answers.push({ name: url.searchParams.get('stream_id') });
    const from = last ? Number(last.split('.')[2]) : 0;
    if (from > words.length) return response.writeHead(204).end();
    response.writeHead(200, {
      'Content-Type': 'text/event-stream; charset=utf-8',
      'X-Trace-ID': 't',
      'X-Silence-Threshold': '15',
      'X-Stream-Max-Seconds': '60',
    });
    const write = (id, event, data) =>
      response.write(
        `${id === null ? '' : `id: v1.a.${id}\n`}${event ? `event: ${event}\n` : ''}data: ${JSON.stringify({ trace_id: 't', stream_id: 'a1', ...data })}\n\n`,
      );
    if (step.silent) return response.flushHeaders();
    if (!step.noHello) write(from, '', { type: 'hello', streamId: 'a1', cursor: `v1.a.${from}`, resumed: !!last });
    if (step.noHello) response.write(': \n\n');
    const upTo = step.cutAfter ?? words.length;
    for (let index = Math.max(0, from - (step.repeat ?? 0)); index < upTo; index++)
      write(index + 1, 'content_chunk', { index, text: words[index] });
    write(null, 'heartbeat', { heartbeat_count: 1, remaining_seconds: 55 });
    if (step.wait)
      return void until(() => answers[0].cancelled).then(
        () => (write(words.length + 1, 'complete', { reason: 'cancelled' }), response.end()),
      );
    if (step.error) write(words.length + 1, 'error', { code: 'unavailable', message: 'no words' });
    else if (step.cap) write(upTo, 'complete', { reason: 'duration_cap', duration: 60, sources });
    else if (step.cutAfter !== undefined) return setTimeout(() => response.destroy(), 20);
    else
      write(words.length + 1, 'complete', {
        reason: 'finished',
        duration: 1,
        total_chunks: 5,
        total_tokens: 5,
        sources,
      });
    response.end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(() => (server.closeAllConnections(), server.close()));
beforeEach(() => {
  requests = [];
  answers = [];
  script = [];
  api = new ChatApi({ ingressUrl: `http://127.0.0.1:${server.address().port}`, token: 'dev-ada' });
});

const ask = (more) => streamAnswer({ api, project_id: 'p', query: 'What was decided?', backoff: fast, ...more });

test('an answer comes in pieces, with its sources', async () => {
  const answer = ask({ max_tokens: 100 });
  const beats = [];
  answer.on('heartbeat', (beat) => beats.push(beat));
  let text = '';
  for await (const piece of answer) text += piece;
  expect(text).toBe(words.join(''));
  expect(await answer.done).toMatchObject({ reason: 'finished', total_chunks: 5 });
  expect(answer).toMatchObject({ text, sources, streamId: 'a1', traceId: 't' });
  expect(beats[0].remaining_seconds).toBe(55);
  expect(requests).toEqual([
    {
      method: 'GET',
      path: '/stream/search',
      query: { query: 'What was decided?', project_id: 'p', max_tokens: '100', stream_id: expect.any(String) },
      last: undefined,
    },
  ]);
});

test('cuts continue the same answer, without a chunk missing or doubled', async () => {
  script = [
    { cutAfter: 1 },
    { cutAfter: 3, repeat: 1 },
    { status: 503, body: { error: 'draining', retry_after_ms: 1 } },
    { repeat: 2 },
  ];
  const answer = ask();
  const chunks = [];
  answer.on('content', ({ index }) => chunks.push(index));
  await answer.done;
  expect(chunks).toEqual([0, 1, 2, 3, 4]);
  expect(answer.text).toBe(words.join(''));
  expect(answers).toHaveLength(1);
  expect(requests.map(({ last }) => last)).toEqual([undefined, 'v1.a.1', 'v1.a.3', 'v1.a.3']);
});

test('what was cut before it had a cursor is asked for under the same name', async () => {
  script = [{ noHello: true, cutAfter: 0 }, {}];
  const answer = ask();
  await answer.done;
  expect(answer.text).toBe(words.join(''));
  expect(requests.map(({ last }) => last)).toEqual([undefined, undefined]);
  expect(answers).toHaveLength(1);
});

test('the cap of the stream is not seen when the answer goes on, and ends it when it does not', async () => {
  script = [{ cap: true, cutAfter: 3 }, {}];
  const whole = ask();
  expect((await whole.done).reason).toBe('finished');
  expect(whole.text).toBe(words.join(''));
  script = [{ cap: true, cutAfter: 3 }, { status: 204 }];
  const capped = ask();
  expect(await capped.done).toMatchObject({ reason: 'duration_cap', sources });
  expect(capped.text).toBe('What was decided ');
});

test('detach stops reading and nothing else; resume reads on', async () => {
  script = [{ cutAfter: 2 }, {}];
  const answer = ask();
  await until(() => answer.text === 'What was ');
  answer.detach();
  await new Promise((resolve) => setTimeout(resolve, 40));
  expect(requests).toHaveLength(1);
  answer.resume();
  await answer.done;
  expect(answer.text).toBe(words.join(''));
  expect(requests.every(({ method }) => method === 'GET')).toBe(true);
});

test('another life of the page goes on at the cursor', async () => {
  script = [{}];
  const answer = ask({ lastEventId: 'v1.a.3' });
  await answer.done;
  expect(answer.text).toBe('is this.');
  script = [{ status: 204 }];
  expect((await ask({ lastEventId: 'v1.a.6' }).done).reason).toBe('finished');
});

test('cancel has the server stop, and its end is waited for', async () => {
  script = [{ wait: true }];
  const answer = ask();
  await until(() => answer.text === words.join(''));
  await answer.cancel();
  expect(await answer.done).toMatchObject({ reason: 'cancelled' });
  expect(requests.at(-1)).toMatchObject({ method: 'POST', path: '/api/chat/answers/a1/cancel' });
});

test('an error of the answer, a refusal and too many failures are errors', async () => {
  script = [{ error: true }];
  await expect(ask().done).rejects.toMatchObject({ message: 'no words', code: 'unavailable' });
  script = [{ status: 403, body: { error: 'forbidden', message: 'not yours' } }];
  await expect(ask().done).rejects.toMatchObject({ status: 403 });
  script = Array.from({ length: 9 }, () => ({ status: 500 }));
  requests = [];
  await expect(ask().done).rejects.toMatchObject({ status: 500 });
  expect(requests).toHaveLength(4);
});

test('a stream that falls silent is reconnected', async () => {
  script = [{ cutAfter: 2 }, { silent: true }, {}];
  const answer = ask({ silenceMs: 40, openTimeoutMs: 40 });
  await answer.done;
  expect(answer.text).toBe(words.join(''));
});
