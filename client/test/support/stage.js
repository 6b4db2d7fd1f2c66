/** What every browser test stands on: a browser, the server behind the proxy, and a project whose messages are counted. */

import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { ChatApi } from '../../src/index.js';
import { gaps, leaderOf, openTab, seen, status } from './browsers.js';
import { startProxy } from './proxy.js';
import { startServer } from './server.js';
import { until } from './until.js';

const texts = (from, to) => Array.from({ length: to - from }, (_, index) => `m${from + index}`);

/** @param {() => Promise<{newContext(): Promise<any>, close(): Promise<void>}>} startBrowser */
export function stage(startBrowser) {
  const stage = {
    browser: null,
    /** The user's browser: its tabs share a stream. */
    context: null,
    server: null,
    proxy: null,
    api: null,
    project: '',
    cursor: '',
    /** How many messages there are: m0, m1, and so on. */
    sent: 0,

    /** Begins anew in a project of this server. */
    async use(server, url = server.ingress) {
      stage.proxy.target = server;
      stage.api = new ChatApi({ ingressUrl: url, procUrl: server.proc, token: 'dev-ada' });
      stage.project = (await stage.api.createProject({ name: 'tabs' })).id;
      stage.cursor = (await stage.api.messages(stage.project)).cursor;
      stage.sent = 0;
    },
    query: (more) => ({ project: stage.project, since: stage.cursor, ...more }),
    tab: (more) => openTab(stage.context, stage.proxy.url, stage.query(more)),
    tabs: (count) => Promise.all(Array.from({ length: count }, () => stage.tab())),
    /** Sends one after another. */
    async send(count) {
      for (let left = count; left > 0; left--) {
        await stage.api.sendMessage(stage.project, { text: `m${stage.sent}` });
        stage.sent++;
      }
    },
    /** Each of these tabs was told every message once, in order, and of no gap. */
    async allSee(pages, limitMs = 15_000) {
      const told = () => Promise.all(pages.map(seen));
      await until(async () => (await told()).every(({ length }) => length >= stage.sent), undefined, limitMs);
      for (const one of await told()) expect(one).toEqual(texts(0, stage.sent));
      for (const page of pages) expect(await gaps(page)).toEqual([]);
    },
    /** What this tab was told until now has no hole and no double. */
    async isWhole(page) {
      const told = await seen(page);
      expect(told).toEqual(texts(0, told.length));
    },
    /** Waits until one of these leads and has its stream; returns how long that took in milliseconds. */
    async nextLeads(pages, limitMs) {
      const from = Date.now();
      const leads = async () => {
        const leader = await leaderOf(pages);
        return leader && (await status(leader)).state === 'open';
      };
      await until(leads, undefined, limitMs);
      return Date.now() - from;
    },
    /** The leader and the others of these. */
    async roles(pages) {
      const leader = await leaderOf(pages);
      return { leader, others: pages.filter((page) => page !== leader) };
    },
  };
  beforeAll(async () => {
    [stage.browser, stage.server] = await Promise.all([startBrowser(), startServer()]);
    stage.proxy = await startProxy(stage.server);
  }, 60_000);
  afterAll(async () => {
    await stage.browser?.close();
    await stage.proxy?.stop();
    await stage.server?.stop();
  });
  beforeEach(async () => {
    stage.proxy.mend();
    await stage.use(stage.server);
    stage.context = await stage.browser.newContext();
  });
  afterEach(() => stage.context?.close());
  return stage;
}
