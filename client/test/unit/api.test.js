/** Requests: what is repeated, what is shared, what is one after another. */

import { expect, test } from 'vitest';
import { HttpError, RateLimitedError } from '../../src/index.js';
import { FakeServer } from '../../src/testing.js';

const count = (server, part) => server.requests.filter(({ url }) => url.pathname.includes(part)).length;

test('what is refused for now is repeated five times, and then told', async () => {
  const server = new FakeServer();
  let refusals = 4;
  server.route('GET', /projects$/, () =>
    refusals-- > 0 ? { status: 429, body: { error: 'rate_limited', retry_after_ms: 1 } } : { body: { projects: [] } },
  );
  expect(await server.api().projects()).toEqual({ projects: [] });
  expect(server.requests).toHaveLength(5);
  refusals = 9;
  const error = await server
    .api()
    .projects()
    .catch((error) => error);
  expect(error).toBeInstanceOf(RateLimitedError);
  expect(error).toMatchObject({ status: 429, code: 'rate_limited', retryAfterMs: 1 });
  expect(server.requests).toHaveLength(10);
});

test('nothing is repeated before the server wants it', async () => {
  const server = new FakeServer();
  let refusals = 1;
  server.route('GET', /me$/, () =>
    refusals-- > 0 ? { status: 503, body: { error: 'draining', retry_after_ms: 80 } } : { body: { user: 'ada' } },
  );
  const from = Date.now();
  await server.api().me();
  expect(Date.now() - from).toBeGreaterThanOrEqual(79);
});

test.each([400, 403, 404, 409, 413, 422, 500])('%i is not repeated', async (status) => {
  const server = new FakeServer();
  server.route('GET', /me$/, () => ({ status, body: { error: 'code', message: 'words', trace_id: 't' } }));
  const error = await server
    .api()
    .me()
    .catch((error) => error);
  expect(error).toBeInstanceOf(HttpError);
  expect(error).toMatchObject({ status, code: 'code', message: 'words' });
  expect(server.requests).toHaveLength(1);
});

test('a cut network is tried again only where twice is once', async () => {
  const server = new FakeServer();
  let cuts = 2;
  const fetch = async (input, init) => {
    const response = await server.fetch(input, init);
    // The server has done it, and nobody hears.
    if (cuts-- > 0) throw new TypeError('network');
    return response;
  };
  const api = server.api({ fetch });
  const message = await api.sendMessage('p', { text: 'hello' });
  expect(message.text).toBe('hello');
  expect(server.log).toHaveLength(1);
  cuts = 1;
  await expect(api.createProject({ name: 'x' })).rejects.toThrow('network');
});

test('sends go one after another, in their order, also after one that failed', async () => {
  const server = new FakeServer();
  let open = 0;
  let most = 0;
  const fetch = async (input, init) => {
    most = Math.max(most, ++open);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
    open--;
    return init.body?.includes('"bad"')
      ? new Response('{"error":"invalid_field"}', { status: 422 })
      : server.fetch(input, init);
  };
  const api = server.api({ fetch });
  const sends = ['a', 'bad', 'b', 'c'].map((text) => api.sendMessage('p', { text }).catch((error) => error.code));
  const sent = await Promise.all(sends);
  expect(most).toBe(1);
  expect(sent[1]).toBe('invalid_field');
  expect(server.log.map(({ event }) => event.message.text)).toEqual(['a', 'b', 'c']);
});

test('the same read at the same time is made once, and anew later', async () => {
  const server = new FakeServer();
  const api = server.api();
  const [a, b] = await Promise.all([api.me(), api.me()]);
  expect(a).toBe(b);
  await api.me();
  expect(count(server, '/me')).toBe(2);
});

test('a refused sign-in is refreshed once for all requests', async () => {
  const server = new FakeServer();
  let token = 'old';
  let refreshes = 0;
  server.route('GET', /project/, ({ headers }) =>
    headers.get('Authorization') === 'Bearer new' ? { body: {} } : { status: 401, body: { error: 'unauthenticated' } },
  );
  const onUnauthorized = async () => {
    refreshes++;
    await new Promise((resolve) => setTimeout(resolve, 5));
    token = 'new';
  };
  const api = server.api({ token: () => token, onUnauthorized });
  await Promise.all([api.projects(), api.project('a'), api.project('b')]);
  expect(refreshes).toBe(1);
  token = 'old';
  server.route('GET', /project/, () => ({ status: 401, body: {} }));
  await expect(api.projects()).rejects.toMatchObject({ status: 401 });
});

test('both services have their paths, and the session is the one that the server named', async () => {
  const server = new FakeServer();
  server.route('GET', /jobs|projects/, () => ({ body: {} }));
  const api = server.api({ ingressUrl: 'http://a.test', procUrl: 'http://b.test', token: 't', idToken: () => 'i' });
  await api.projects({ limit: 2 });
  await api.jobs({ project_id: 'p/q' });
  const [first, second] = server.requests;
  expect(first.url.href).toBe('http://a.test/api/chat/projects?limit=2');
  expect(second.url.href).toBe('http://b.test/api/integrations/jobs?project_id=p%2Fq');
  expect(second.headers.get('User-Session-ID')).toBe('s');
  expect(second.headers.get('X-ID-Token')).toBe('i');
});
