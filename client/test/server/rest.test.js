/** The library against the services themselves. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { ChatApi, JobsStream, PersistentChatConnection, SSEClient, streamAnswer } from '../../src/index.js';
import { startProxy } from '../support/proxy.js';
import { startServer } from '../support/server.js';
import { until } from '../support/until.js';

let server, proxy, api, project;
beforeAll(async () => {
  server = await startServer();
  proxy = await startProxy(server);
  api = new ChatApi({ ingressUrl: server.ingress, procUrl: server.proc, token: 'dev-ada' });
  project = (await api.createProject({ name: 'rest' })).id;
});
afterAll(async () => {
  await proxy?.stop();
  await server?.stop();
});

test('every method of the REST has its route', async () => {
  expect(await api.me()).toMatchObject({ user: 'ada', auth_mode: 'simple' });
  expect((await api.sessions()).sessions.length).toBeGreaterThan(0);
  expect((await api.ticket(project)).expires_in).toBe(30);
  expect((await api.projects({ limit: 5 })).projects[0].id).toBe(project);
  expect((await api.updateProject(project, { name: 'renamed' })).name).toBe('renamed');
  expect((await api.project(project)).role).toBe('owner');
  await new ChatApi({ ingressUrl: server.ingress, token: 'dev-grace' }).me();
  expect((await api.setMember(project, 'grace', 'member')).role).toBe('member');
  expect((await api.members(project)).members).toHaveLength(2);
  expect(await api.removeMember(project, 'grace')).toBe(null);
  expect((await api.createChannel(project, { name: 'plans', topic: 'ours' })).topic).toBe('ours');
  expect((await api.updateChannel(project, 'plans', { topic: null })).topic).toBe(null);
  expect((await api.channels(project)).channels.map(({ name }) => name)).toEqual(['general', 'plans']);
  const message = await api.sendMessage(project, { text: 'hello', channel: 'plans', metadata: { a: 1 } });
  expect(await api.message(project, message.id)).toEqual(message);
  expect((await api.editMessage(project, message.id, 'hi')).text).toBe('hi');
  expect((await api.addReaction(project, message.id, '👍')).reactions).toEqual([
    { emoji: '👍', users: ['ada'], count: 1 },
  ]);
  expect((await api.removeReaction(project, message.id, '👍')).reactions).toEqual([]);
  expect((await api.markRead(project, 'plans', message.id)).user).toBe('ada');
  expect((await api.reads(project)).reads).toHaveLength(1);
  expect(await api.typing(project, 'plans')).toBe(null);
  expect((await api.setPresence(project, 'away')).state).toBe('away');
  expect((await api.presence(project)).presence.length).toBeGreaterThan(0);
  expect((await api.deleteMessage(project, message.id)).deleted_at).toBeTruthy();
  const { messages, cursor } = await api.messages(project, { channel: 'plans', limit: 1 });
  expect(messages).toHaveLength(1);
  expect(await api.events(project, { after: cursor })).toMatchObject({ events: [], reset: null });
  expect((await api.bundles()).bundles.map(({ name }) => name)).toContain('demo');
  expect((await api.bundle('demo')).operations[0].name).toBe('count');
  const job = await api.submit('demo', 'count', { project_id: project, data: { to: 2, delay_ms: 1 }, wait: 5 });
  expect(job.state).toBe('succeeded');
  expect((await api.jobs({ project_id: project })).jobs).toHaveLength(1);
  expect((await api.jobLogs(job.id)).logs).toBeDefined();
  const long = await api.submit('demo', 'count', { project_id: project, data: { to: 1_000, delay_ms: 50 } });
  expect((await api.cancelJob(long.id)).id).toBe(long.id);
  expect((await api.upload(new Blob(['x']))).bytes).toBe(1);
  const exported = await api.submit('chat', 'export', { project_id: project, data: {}, wait: 20 });
  expect(exported.state).toBe('succeeded');
  expect(await (await api.artifact(exported.id, 'export.ndjson', { range: 'bytes=0-9' })).text()).toHaveLength(10);
  const admin = new ChatApi({ ingressUrl: server.ingress, procUrl: server.proc, token: 'dev-admin' });
  expect((await admin.streamStats()).cluster.replicas).toBe(1);
  expect((await admin.connections('ada', project)).count).toBe(0);
  expect(await admin.queue()).toBeDefined();
  expect((await admin.workers()).workers.length).toBeGreaterThan(0);
  expect(await api.deleteProject((await api.createProject({ name: 'x' })).id)).toBe(null);
  expect(await api.endSession()).toBe(null);
});

test('a stream cut and delayed at random places misses nothing and doubles nothing', async () => {
  const stream = new SSEClient(`${proxy.url}/sse/stream?project_id=${project}`, {
    headers: () => api.headers(),
    backoff: { baseMs: 5, capMs: 30, jitterMs: 5 },
    bufferedRetryMs: 5,
  });
  const seen = [];
  stream.on('message', ({ data }) => {
    const { type, message } = JSON.parse(data);
    if (type === 'message.created') seen.push(message.text);
  });
  // The server's `retry` of one to three seconds would make a long test of it.
  const impatient = stream.on('status', ({ state }) => state === 'waiting' && setTimeout(() => stream.restart(), 20));
  stream.start();
  await until(() => stream.status.state === 'open');
  proxy.trickle = true;
  for (let n = 0; n < 150; n++) {
    await api.sendMessage(project, { text: `c${n}` });
    if (Math.random() < 0.2) proxy.cut();
  }
  await until(
    () => seen.length === 150,
    () => `${seen.length}`,
  );
  impatient();
  stream.stop();
  proxy.mend();
  expect(seen).toEqual(Array.from({ length: 150 }, (_, n) => `c${n}`));
});

test('without streams the same events come by long poll, and jobs too', async () => {
  const without = await startServer({ ENABLE_SSE: 'false' });
  const api = new ChatApi({ ingressUrl: without.ingress, procUrl: without.proc, token: 'dev-ada' });
  const project = (await api.createProject({ name: 'polls' })).id;
  const seen = [];
  const jobs = new Set();
  const connection = new PersistentChatConnection({
    api,
    project_id: project,
    include: 'jobs',
    pollMs: 1,
    platform: { BroadcastChannel: null },
    onMessage: (event) => (
      event.jobs?.forEach(({ state }) => jobs.add(state)),
      event.message && seen.push(event.message.text)
    ),
  });
  await connection.connect();
  await until(() => connection.status.state === 'blocked' && connection.cursor);
  expect(connection.status).toMatchObject({ reason: 'disabled', role: 'solo' });
  await api.submit('demo', 'count', { project_id: project, data: { to: 2, delay_ms: 1 }, wait: 5 });
  for (let n = 0; n < 30; n++) await api.sendMessage(project, { text: `${n}` });
  await until(
    () => seen.length === 30 && jobs.has('succeeded'),
    () => `${seen.length} ${[...jobs]}`,
    12_000,
  );
  expect(seen).toEqual(Array.from({ length: 30 }, (_, n) => `${n}`));
  connection.disconnect();
  await without.stop();
});

test('jobs are followed to their end, by poll where there are too many streams', async () => {
  const streams = [1, 2].map(() => new JobsStream({ api, pollMs: 50 }).start());
  await until(
    () =>
      streams
        .map(({ status }) => status.state)
        .sort()
        .join() === 'blocked,open',
  );
  const job = await api.submit('demo', 'count', { project_id: project, data: { to: 20, delay_ms: 20 } });
  const state = (stream) => stream.jobs.get(job.id)?.state;
  await until(() => streams.every((stream) => state(stream) === 'succeeded'));
  streams.forEach((stream) => stream.stop());
});

test('search finds, and an answer that is cut again and again comes whole, with sources that are there', async () => {
  await api.sendMessage(project, { text: 'The picnic is on Saturday by the lake.' });
  await until(async () => (await api.search(project, 'picnic')).messages.length > 0);
  const found = (await api.search(project, 'picnic lake', { limit: 1 })).messages[0];
  expect(found).toMatchObject({ author: 'ada', channel: 'general' });
  const proxied = new ChatApi({ ingressUrl: proxy.url, procUrl: proxy.url, token: 'dev-ada' });
  const answer = streamAnswer({
    api: proxied,
    project_id: project,
    query: 'When is the picnic?',
    maxReconnects: 50,
    backoff: { baseMs: 5, jitterMs: 5 },
  });
  const impatient = answer.on(
    'status',
    ({ state }) => state === 'waiting' && setTimeout(() => answer.stream.restart(), 20),
  );
  const indexes = [];
  answer.on('content', ({ index }) => (indexes.push(index), index % 4 === 1 && proxy.cut()));
  const end = await answer.done;
  impatient();
  expect(end.reason).toBe('finished');
  expect(indexes).toEqual([...indexes.keys()]);
  const whole = await api.answer(answer.streamId);
  expect(whole.text).toBe(answer.text);
  const source = answer.sources.find(({ message_id }) => message_id === found.id);
  expect(await api.message(project, source.message_id)).toMatchObject({ text: found.text });
});
