// @vitest-environment happy-dom
/** What people see. */

import { afterEach, expect, test, vi } from 'vitest';
import { IDLE } from '../../src/status.js';
import '../../src/ui.js';

function shown(status, texts) {
  const handlers = new Set();
  const connection = {
    status: { ...IDLE, ...status },
    on: (_type, handler) => (handlers.add(handler), () => handlers.delete(handler)),
    retryNow: vi.fn(),
  };
  const element = document.createElement('parley-connection-status');
  if (texts) element.texts = texts;
  element.connection = connection;
  document.body.append(element);
  const part = (name) => element.querySelector(`.parley-${name}`);
  const change = (next) => {
    connection.status = { ...connection.status, ...next };
    handlers.forEach((handler) => handler());
  };
  return { element, connection, change, part, handlers, text: () => part('text').textContent };
}
afterEach(() => document.body.replaceChildren());

test.each([
  [{ state: 'open' }, 'green', 'Connected'],
  [{ state: 'open', stale: true }, 'yellow', 'Connected'],
  [{ state: 'connecting' }, 'yellow', 'Connecting…'],
  [{ state: 'waiting', reason: 'draining', retryAt: Date.now() + 900 }, 'yellow', 'Reconnecting in 1 s'],
  [{ state: 'waiting', reason: 'network', retryAt: Date.now() + 4_500 }, 'orange', 'Reconnecting in 5 s'],
  [{ state: 'waiting', reason: 'offline', retryAt: Date.now() + 29_500 }, 'orange', 'No network. Next try in 30 s'],
  [
    { state: 'blocked', reason: 'too_many_connections', retryAt: Date.now() + 9_000 },
    'orange',
    'Too many chat windows open on other devices. Messages come a little later.',
  ],
  [{ state: 'closed', reason: 'stopped' }, 'grey', 'Disconnected'],
  [{ state: 'closed', reason: 'auth' }, 'grey', 'Please sign in again'],
  [{ state: 'idle' }, 'grey', 'Not connected'],
])('%j is %s and says so', (status, color, text) => {
  const { element, text: says } = shown(status);
  expect(element.dataset.color).toBe(color);
  expect(says()).toBe(text);
});

test('followers are told whose events they see', () => {
  const { part, change } = shown({ state: 'open', role: 'follower' });
  expect(part('note').textContent).toBe('This tab is receiving messages from another window.');
  change({ role: 'leader' });
  expect(part('note').textContent).toBe('');
});

test('the countdown goes down, and the button tries at once', () => {
  vi.useFakeTimers();
  const { text, part, connection, change } = shown({
    state: 'waiting',
    reason: 'network',
    retryAt: Date.now() + 3_000,
  });
  expect(text()).toBe('Reconnecting in 3 s');
  vi.advanceTimersByTime(1_000);
  expect(text()).toBe('Reconnecting in 2 s');
  part('retry').click();
  expect(connection.retryNow).toHaveBeenCalledOnce();
  change({ state: 'open', reason: null, retryAt: null });
  expect(part('retry').hidden).toBe(true);
  vi.useRealTimers();
});

test('it is said to screen readers, in words of the page if it has some, and nothing is left behind', () => {
  const { element, part, handlers } = shown({ state: 'open' }, { open: 'Verbunden' });
  expect(part('text').getAttribute('role')).toBe('status');
  expect(part('text').textContent).toBe('Verbunden');
  element.connection = null;
  expect(handlers.size).toBe(0);
});
