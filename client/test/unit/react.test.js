// @vitest-environment happy-dom
/** Hooks, in StrictMode, which does everything twice. */

import { act, createElement, StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { expect, test } from 'vitest';
import { FakeBrowser, FakeServer } from '../../src/testing.js';
import { useChatConnection, useConnectionStatus, useSSEStream } from '../../src/react.js';
import { until } from '../support/until.js';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;

async function mount(component) {
  const root = createRoot(document.createElement('div'));
  await act(() => root.render(createElement(StrictMode, null, createElement(component))));
  return { unmount: () => act(() => root.unmount()) };
}
const settled = (holds) => act(() => until(holds));

test('a component follows a project while it is there', async () => {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  const api = server.api();
  const seen = [];
  let latest;
  const Room = () => {
    latest = useChatConnection({ api, project_id: 'p', user: 'ada', platform, onMessage: ({ n }) => seen.push(n) });
    return null;
  };
  const { unmount } = await mount(Room);
  await settled(() => latest.status.state === 'open' && latest.status.role === 'leader' && latest.connection.cursor);
  expect(server.streams).toBe(1);
  await act(async () => void server.emit({ type: 'x', n: 1 }));
  await settled(() => seen.length > 0);
  expect(seen).toEqual([1]);
  await unmount();
  await until(() => server.streams === 0);
});

test('an answer is asked for when it is started, and stopped with the component', async () => {
  const server = new FakeServer();
  const text = [];
  const open = () => server.requests.filter(({ url }) => url.pathname === '/stream/search');
  const body =
    'id: v1.a.0\ndata: {"type":"hello","streamId":"a"}\n\nid: v1.a.1\nevent: content_chunk\ndata: {"index":0,"text":"hi"}\n\nevent: heartbeat\ndata: {"heartbeat_count":1}\n\nevent: complete\ndata: {"reason":"finished","sources":[]}\n\n';
  const fetch = async (input, init) => {
    await server.fetch(input, init);
    return new Response(body, { headers: { 'Content-Type': 'text/event-stream', 'X-Trace-ID': 't' } });
  };
  const api = server.api({ fetch });
  let latest;
  const done = [];
  const beats = [];
  const Ask = () => {
    latest = useSSEStream({
      api,
      project_id: 'p',
      query: 'q',
      onContent: (piece) => text.push(piece),
      onComplete: (data) => done.push(data),
      onHeartbeat: (data) => beats.push(data),
    });
    return null;
  };
  const { unmount } = await mount(Ask);
  expect(open()).toHaveLength(0);
  expect(latest).toMatchObject({ isConnected: false, isReconnecting: false, reconnectAttempts: 0, traceId: null });
  await act(async () => latest.start());
  await settled(() => done.length === 1);
  expect(text).toEqual(['hi']);
  expect(beats).toHaveLength(1);
  expect(latest.traceId).toBe('t');
  await unmount();
  expect(open()).toHaveLength(1);
});

test('on a server there is no connection yet', () => {
  const Status = () => useConnectionStatus(null).state;
  expect(renderToString(createElement(Status))).toBe('idle');
});
