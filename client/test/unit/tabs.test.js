/** Tabs in memory: every handler is called with the whole log, once and in order, whatever happens to leaders and streams. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LeaderElector, PersistentChatConnection, TabBus } from '../../src/index.js';
import { FakeBrowser, FakeServer } from '../../src/testing.js';
import { until } from '../support/until.js';

const fast = { backoff: { baseMs: 2, capMs: 10, jitterMs: 1 }, stableMs: 0 };

function tab(server, platform, more) {
  const seen = [];
  const gaps = [];
  const connection = new PersistentChatConnection({
    api: server.api(),
    project_id: 'p',
    user: 'ada',
    platform,
    stream: fast,
    pollMs: 1,
    onMessage: (event) => seen.push(event.n),
    ...more,
  });
  connection.on('gap', (gap) => gaps.push(gap));
  return { connection, seen, gaps };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const emit = (server, n) => server.emit({ type: 'message.created', n });

test('seven tabs have one stream and the same events', async () => {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  const tabs = numbers(7).map(() => tab(server, platform));
  await Promise.all(tabs.map(({ connection }) => connection.connect()));
  await until(() => tabs.every(({ connection }) => connection.status.state === 'open'));
  expect(server.streams).toBe(1);
  numbers(50).forEach((n) => emit(server, n));
  await until(() => tabs.every(({ seen }) => seen.length === 50));
  for (const { seen } of tabs) expect(seen).toEqual(numbers(50));
  expect(tabs.map(({ connection }) => connection.status.role).sort()).toEqual([...Array(6).fill('follower'), 'leader']);
  tabs.forEach(({ connection }) => connection.disconnect());
  await until(() => server.streams === 0);
});

/** A server with five events, and a tab that leads after them. */
async function afterFive() {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  numbers(5).forEach((n) => emit(server, n));
  const first = tab(server, platform);
  await first.connection.connect();
  await until(() => first.connection.status.state === 'open');
  return { server, platform, first };
}

test('a tab that starts in the past is told by the leader or by the server', async () => {
  const { server, platform, first } = await afterFive();
  for (let n = 5; n < 10; n++) emit(server, n);
  await until(() => first.seen.length === 5);
  const polls = () => server.requests.filter(({ url }) => url.pathname.endsWith('/events')).length;
  const recent = tab(server, platform, { since: server.log[6].id });
  await recent.connection.connect();
  await until(() => recent.seen.length === 3);
  expect(polls()).toBe(0);
  const older = tab(server, platform, { since: server.log[1].id });
  await older.connection.connect();
  await until(() => older.seen.length === 8);
  expect(polls()).toBeGreaterThan(0);
  emit(server, 10);
  await until(() => [first, recent, older].every(({ seen }) => seen.at(-1) === 10));
  expect(older.seen).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10]);
  [first, recent, older].forEach(({ connection }) => connection.disconnect());
});

test('a tab that cannot read what it missed asks until it can', async () => {
  const { server, platform, first } = await afterFive();
  const allow = server.route('GET', /events$/, () => ({ status: 500 }));
  const late = tab(server, platform, { since: server.log[1].id });
  const failures = [];
  late.connection.on('failure', (error) => failures.push(error.status));
  await late.connection.connect();
  emit(server, 5);
  await until(() => failures.length > 0);
  expect(late.seen).toEqual([]);
  allow();
  await until(() => late.seen.length === 4);
  emit(server, 6);
  await until(() => late.seen.length === 5);
  expect(late.seen).toEqual([2, 3, 4, 5, 6]);
  expect(late.gaps).toEqual([]);
  [first, late].forEach(({ connection }) => connection.disconnect());
});

test('without locks one tab leads, and when it leaves another one', async () => {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  const start = server.emit({ type: 'channel.created' }).id;
  const tabs = numbers(3).map(() => tab(server, { ...platform, locks: undefined }, { since: start }));
  const leaders = () => tabs.filter(({ connection: { status } }) => status.role === 'leader' && status.state === 'open');
  await Promise.all(tabs.map(({ connection }) => connection.connect()));
  await until(() => leaders().length === 1);
  emit(server, 0);
  const [first] = leaders();
  first.connection.disconnect();
  await until(() => leaders().length === 1);
  emit(server, 1);
  const others = tabs.filter((one) => one !== first);
  await until(() => others.every(({ seen }) => seen.filter((n) => n !== undefined).length === 2));
  for (const { seen } of others) expect(seen.filter((n) => n !== undefined)).toEqual([0, 1]);
  expect(server.streams).toBe(1);
  tabs.forEach(({ connection }) => connection.disconnect());
});

test('with jobs, a tab that starts in the past is told of them as they are', async () => {
  const server = new FakeServer();
  server.route('GET', /integrations\/jobs$/, () => ({ body: { jobs: [{ id: 'j', state: 'succeeded' }], next: null } }));
  const { platform } = new FakeBrowser();
  numbers(3).forEach((n) => emit(server, n));
  const jobs = [];
  const onMessage = (event) => event.jobs && jobs.push(event.jobs[0].state);
  const [leader, late] = [
    tab(server, platform, { include: 'jobs' }),
    tab(server, platform, { include: 'jobs', since: server.log[0].id, onMessage }),
  ];
  await leader.connection.connect();
  await until(() => leader.connection.cursor);
  await late.connection.connect();
  await until(() => jobs.length === 1);
  expect(jobs).toEqual(['succeeded']);
  expect(late.gaps).toEqual([]);
  expect(late.connection.cursor).toBe(leader.connection.cursor);
  [leader, late].forEach(({ connection }) => connection.disconnect());
});

test('a lost log is a gap in every tab, and then live', async () => {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  const tabs = numbers(3).map(() => tab(server, platform));
  await Promise.all(tabs.map(({ connection }) => connection.connect()));
  await until(() => tabs.every(({ connection }) => connection.status.state === 'open'));
  emit(server, 0);
  await until(() => tabs.every(({ seen }) => seen.length === 1));
  server.forget();
  server.cut();
  await until(() => tabs.every(({ gaps }) => gaps.length === 1));
  emit(server, 1);
  await until(() => tabs.every(({ seen }) => seen.length === 2));
  for (const { gaps } of tabs) expect(gaps[0].reason).toBe('unknown_epoch');
  tabs.forEach(({ connection }) => connection.disconnect());
});

test('refused streams are polled for, in every tab, until there is one', async () => {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  const body = {
    error: 'too_many_connections',
    current_connections: 5,
    max_connections: 5,
    scope: 'user',
    retry_after_ms: 300,
  };
  const allow = server.refuse(429, body);
  const tabs = numbers(2).map(() => tab(server, platform));
  await Promise.all(tabs.map(({ connection }) => connection.connect()));
  await until(() => tabs.every(({ connection }) => connection.status.state === 'blocked' && connection.cursor));
  expect(tabs[1].connection.status.limit).toEqual({ max: 5, current: 5, scope: 'user' });
  numbers(20).forEach((n) => emit(server, n));
  await until(() => tabs.every(({ seen }) => seen.length === 20));
  allow();
  await until(() => tabs.every(({ connection }) => connection.status.state === 'open'));
  emit(server, 20);
  await until(() => tabs.every(({ seen }) => seen.length === 21));
  for (const { seen } of tabs) expect(seen).toEqual(numbers(21));
  tabs.forEach(({ connection }) => connection.disconnect());
});

test('two users of one browser do not meet', async () => {
  const server = new FakeServer();
  const { platform } = new FakeBrowser();
  const tabs = ['ada', 'grace'].map((user) => tab(server, platform, { user }));
  await Promise.all(tabs.map(({ connection }) => connection.connect()));
  await until(() => tabs.every(({ connection }) => connection.status.state === 'open'));
  expect(server.streams).toBe(2);
  for (const { connection } of tabs)
    expect(connection.getConnectionInfo()).toEqual({ mode: 'leader', connected: true });
  tabs.forEach(({ connection }) => connection.disconnect());
});

test('tabs of another version are not understood', async () => {
  const { platform } = new FakeBrowser();
  const bus = new TabBus('name', platform);
  const heard = [];
  bus.on('message', (message) => heard.push(message));
  bus.open();
  const other = new platform.BroadcastChannel('name');
  other.postMessage({ v: 2, kind: 'lead', term: 9 });
  other.postMessage('nonsense');
  other.postMessage({ v: 1, from: 'x', kind: 'hello' });
  await until(() => heard.length > 0);
  expect(heard).toEqual([{ v: 1, from: 'x', kind: 'hello' }]);
  bus.close();
});

test('each leader has a higher term than those before, and a stolen one notices', async () => {
  const { platform } = new FakeBrowser();
  const electors = [1, 2].map(() => new LeaderElector('name', platform));
  const log = [];
  const terms = [];
  electors.forEach((elector, index) => {
    elector.on('leader', ({ term }) => {
      log.push(`${index} leads`);
      terms.push(term);
      // Tabs tell each other.
      electors.forEach((one) => (one.term = Math.max(one.term, term)));
    });
    elector.on('lost', () => log.push(`${index} lost`));
  });
  electors[0].start();
  await until(() => electors[0].leading);
  electors[1].start();
  electors[1].steal();
  await until(() => log.length === 3);
  expect(log.slice().sort()).toEqual(['0 leads', '0 lost', '1 leads']);
  electors[1].stop();
  await until(() => electors[0].leading);
  expect(terms).toHaveLength(3);
  expect(terms[0]).toBeLessThan(terms[1]);
  expect(terms[1]).toBeLessThan(terms[2]);
  electors[0].stop();
});

test('whatever happens, every tab sees the log once and in order', async () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('emit'), count: fc.integer({ min: 1, max: 5 }) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('typing') }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('leave', 'return'), tab: fc.nat(3) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('cut', 'drain', 'half', 'steal') }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('pause'), ms: fc.integer({ min: 0, max: 6 }) }) },
  );
  const run = async (steps) => {
    const server = new FakeServer();
    const browser = new FakeBrowser();
    const { platform } = browser;
    const start = server.emit({ type: 'channel.created' }).id;
    const made = numbers(4).map(() => tab(server, platform, { since: start }));
    await Promise.all(made.map(({ connection }) => connection.connect()));
    let n = 0;
    for (const step of steps) {
      const { connection } = made[step.tab ?? 0];
      if (step.kind === 'emit') for (let i = 0; i < step.count; i++) emit(server, n++);
      if (step.kind === 'typing') server.send(`data: {"type":"user.typing","at":"${Math.random()}"}\n\n`);
      if (step.kind === 'leave') connection.disconnect();
      if (step.kind === 'return') await connection.connect();
      if (step.kind === 'cut') server.cut();
      if (step.kind === 'drain') server.drain();
      if (step.kind === 'steal') browser.steal();
      if (step.kind === 'half') server.send('data: {"type":"mess');
      if (step.kind === 'half') server.cut();
      if (step.kind === 'pause') await new Promise((resolve) => setTimeout(resolve, step.ms));
    }
    await Promise.all(made.map(({ connection }) => connection.connect()));
    emit(server, n++);
    const seen = () => made.map(({ seen }) => seen.filter((one) => one !== undefined));
    await until(
      () => seen().every((one) => one.length >= n),
      () => JSON.stringify([n, seen(), made.map(({ connection }) => connection.status)]),
    );
    for (const one of seen()) expect(one).toEqual(numbers(n));
    for (const { gaps } of made) expect(gaps).toEqual([]);
    made.forEach(({ connection }) => connection.disconnect());
  };
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 25 }), run), { numRuns: 300 });
}, 30_000);
