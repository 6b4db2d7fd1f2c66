/** Tabs in Chromium against the server: whoever leads, every tab sees every message once and in order. */

import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { ChatApi } from '../../src/index.js';
import { gaps, leaderOf, openTab, role, seen, startChromium, status } from '../support/chromium.js';
import { startProxy } from '../support/proxy.js';
import { startServer } from '../support/server.js';
import { until } from '../support/until.js';

let browser, context, server, proxy, api, project, cursor;

beforeAll(async () => {
  [browser, server] = await Promise.all([startChromium(), startServer()]);
  proxy = await startProxy(server);
}, 60_000);
afterAll(async () => {
  await browser?.close();
  await proxy?.stop();
  await server?.stop();
});
beforeEach(async () => {
  Object.assign(proxy, { down: false, stalled: false, buffered: false, refuse: null, delayMs: 0, opens: [], target: server });
  api = new ChatApi({ ingressUrl: server.ingress, procUrl: server.proc, token: 'dev-ada' });
  project = (await api.createProject({ name: 'tabs' })).id;
  cursor = (await api.messages(project)).cursor;
  context = await browser.newContext();
});
afterEach(() => context?.close());

const tab = (query) => openTab(context, proxy.url, { project, since: cursor, ...query });
const tabs = (count) => Promise.all(Array.from({ length: count }, () => tab()));
const texts = (from, to) => Array.from({ length: to - from }, (_, index) => `m${from + index}`);
let sent = 0;
beforeEach(() => void (sent = 0));
const send = async (count) => {
  for (const text of texts(sent, sent + count)) await api.sendMessage(project, { text });
  sent += count;
};
const allSee = async (pages, limitMs = 15_000) => {
  await until(async () => (await Promise.all(pages.map(seen))).every((one) => one.length >= sent), async () => '', limitMs);
  for (const page of pages) expect(await seen(page)).toEqual(texts(0, sent));
  for (const page of pages) expect(await gaps(page)).toEqual([]);
};
/** How long until another of these leads and has its stream. */
const nextLeads = async (pages) => {
  const from = Date.now();
  await until(async () => {
    const leader = await leaderOf(pages);
    return leader && (await status(leader)).state === 'open';
  });
  return Date.now() - from;
};

test('seven tabs have one stream, and requests are answered', async () => {
  const pages = await tabs(7);
  expect(proxy.streams.size).toBe(1);
  await send(10);
  await allSee(pages);
  const admin = new ChatApi({ ingressUrl: server.ingress, token: 'dev-admin' });
  expect((await admin.connections('ada', project)).count).toBe(1);
  const fromPage = await pages[3].evaluate(() => window.tab.api.sendMessage(window.tab.project_id, { text: 'm10' }));
  sent++;
  expect(fromPage.author).toBe('ada');
  await allSee(pages);
});

test.each(['close', 'navigate', 'reload', 'crash'])('after %s of the leader another tab leads within a second', async (how) => {
  const pages = await tabs(3);
  await send(3);
  await allSee(pages);
  const leader = await leaderOf(pages);
  const others = pages.filter((page) => page !== leader);
  if (how === 'close') await leader.close();
  if (how === 'navigate') await leader.goto('about:blank');
  if (how === 'reload') await leader.reload();
  if (how === 'crash') {
    const session = await context.newCDPSession(leader);
    session.send('Page.crash').catch(() => {});
  }
  const tookMs = await nextLeads(how === 'reload' ? [...others, leader] : others);
  expect(tookMs).toBeLessThan(1_000);
  await send(3);
  await allSee(others);
});
