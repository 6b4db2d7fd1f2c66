/** Streams are read as the standard says, however they are cut: `eventsource` is asked for its opinion. */

import { EventSource } from 'eventsource';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SSEClient } from '../../src/sse.js';

const line = fc.oneof(
  fc.constantFrom(
    'data: a',
    'data:b',
    'data',
    'data:  two',
    ': comment',
    'event: named',
    'id: 7',
    'id',
    'retry: 9999',
    'nonsense: x',
    'data: ü€😀',
    '',
  ),
  fc.string({ maxLength: 8 }).map((text) => `data: ${text.replace(/[\r\n]/g, '')}`),
);
const end = fc.constantFrom('\n', '\r\n', '\r');
const text = fc.array(fc.tuple(line, end), { maxLength: 20 }).map((lines) => lines.map((one) => one.join('')).join(''));

/** Answers once with these bytes, cut at these places, and with nothing more after that. */
function fetchOf(bytes, cuts) {
  let first = true;
  return async () => {
    if (!first) return new Response(null, { status: 204 });
    first = false;
    const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
    const body = new ReadableStream({
      async start(controller) {
        let from = 0;
        for (const to of [...places, bytes.length]) {
          if (to > from) controller.enqueue(bytes.slice(from, to));
          from = to;
          await null;
        }
        controller.close();
      },
    });
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  };
}

const ours = (fetch) =>
  new Promise((resolve) => {
    const seen = [];
    const stream = new SSEClient('http://parley.test/', { fetch, backoff: { baseMs: 0, jitterMs: 0 } });
    stream.on('event', ({ event, data }) => seen.push([event, data]));
    // The end, before the server's own `retry` is waited for.
    stream.on('status', ({ state }) => state === 'waiting' && stream.stop());
    stream.on('closed', () => resolve([seen, stream.lastEventId]));
    stream.start();
  });

const theirs = (fetch) =>
  new Promise((resolve) => {
    const seen = [];
    let last = '';
    const source = new EventSource('http://parley.test/', { fetch });
    for (const name of ['message', 'named'])
      source.addEventListener(name, ({ type, data, lastEventId }) => (seen.push([type, data]), (last = lastEventId)));
    source.onerror = () => (source.close(), resolve([seen, last]));
  });

test('any text, cut anywhere, is what the standard makes of it', async () => {
  await fc.assert(
    fc.asyncProperty(text, fc.array(fc.nat(), { maxLength: 12 }), async (text, cuts) => {
      const bytes = new TextEncoder().encode(`:\n${text}`);
      const [[mine, lastEventId], [oracle, last]] = await Promise.all([
        ours(fetchOf(bytes, cuts)),
        theirs(fetchOf(bytes, [])),
      ]);
      expect(mine).toEqual(oracle);
      expect(lastEventId ?? '').toBe(last);
    }),
    { numRuns: 300 },
  );
});

test('one byte at a time is the same text', async () => {
  const bytes = new TextEncoder().encode('id: 1\ndata: ü€😀\n\nevent: x\r\ndata: a\r\ndata: b\r\n\r\n: c\rdata: d\r\r');
  expect(await ours(fetchOf(bytes, [...bytes.keys()]))).toEqual([
    [
      ['message', 'ü€😀'],
      ['x', 'a\nb'],
      ['message', 'd'],
    ],
    '1',
  ]);
});
