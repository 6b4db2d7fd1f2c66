/** Show 3: every service of a cluster is restarted, one after the other, while twenty tabs chat. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { ChatApi } from '../../src/index.js';
import { startChromium, status } from '../support/browsers.js';
import { until } from '../support/until.js';
import { isOff, startCluster } from './cluster.js';

const USERS = ['ada', 'grace', 'edsger', 'barbara'].map((user) => ({
  user,
  name: user,
  token: `the-token-of-${user}`,
  roles: [],
}));
const TABS_PER_USER = 5;
/** With five tabs less than `RATE_LIMIT_SENDS` lets a user send. */
const SEND_EVERY_MS = 1_500;
const PARTS = ['ingress-0', 'ingress-1', 'ingress-2', 'proc-0', 'proc-1'];

if (isOff) console.warn('\n*** LEFT OUT, since PARLEY_CLUSTER=off: twenty tabs through a rolling restart ***\n');

let cluster;
let browser;
beforeAll(async () => {
  if (isOff) return;
  [cluster, browser] = await Promise.all([startCluster(USERS), startChromium()]);
}, 60_000);
afterAll(async () => {
  await browser?.close();
  await cluster?.stop();
}, 60_000);

/** The project's log after a cursor, as the server has it. */
async function logOf(api, project, after) {
  const events = [];
  for (;;) {
    const page = await api.events(project, { after });
    expect(page.reset ?? null).toBe(null);
    if (!page.events.length) return events;
    events.push(...page.events);
    after = page.cursor;
  }
}

/** What is told in passing, and is in no log. */
const isLogged = ({ type }) => type !== 'user.typing' && type !== 'user.presence';

/** The longest time that a dot was not green, in milliseconds; the start is not counted. */
function longestYellowMs(shown) {
  const changes = shown.slice(shown.findIndex(({ color }) => color === 'green'));
  const away = changes.map(({ color, at }, index) =>
    color === 'green' ? 0 : changes.slice(index).find((later) => later.color === 'green').at - at,
  );
  return Math.max(...away);
}

test.skipIf(isOff)('a rolling restart under twenty tabs is at most a yellow dot', async () => {
  const [owner, ...others] = USERS.map(({ token }) => new ChatApi({ ingressUrl: cluster.url, token }));
  const project = (await owner.createProject({ name: 'rolling' })).id;
  for (const other of others) await owner.setMember(project, (await other.me()).user, 'member');
  const since = (await owner.messages(project)).cursor;

  const open = async ({ token }) => {
    const context = await browser.newContext();
    const one = async () => {
      const page = await context.newPage();
      await page.goto(`${cluster.url}/test/cluster/tab.html?${new URLSearchParams({ project, since, token })}`);
      await until(async () => (await status(page)).state === 'open', undefined, 15_000);
      return page;
    };
    return Promise.all(Array.from({ length: TABS_PER_USER }, one));
  };
  const pages = (await Promise.all(USERS.map(open))).flat();
  const roles = await Promise.all(pages.map(async (page) => (await status(page)).role));
  expect(roles.filter((role) => role === 'leader')).toHaveLength(USERS.length);

  const start = (page, index) =>
    page.evaluate((how) => window.tab.start(...how), [
      `tab ${index}`,
      SEND_EVERY_MS,
      (index * SEND_EVERY_MS) / pages.length,
    ]);
  await Promise.all(pages.map(start));
  const from = Date.now();
  for (const part of PARTS) await cluster.restart(part);
  const restartsMs = Date.now() - from;
  await Promise.all(pages.map((page) => page.evaluate(() => window.tab.stop())));

  const log = await logOf(owner, project, since);
  const count = (page) => page.evaluate(() => window.tab.events.filter(({ type }) => type === 'message.created').length);
  const isThere = async (page) => (await status(page)).state === 'open' && (await count(page)) >= log.length;
  for (const page of pages) await until(() => isThere(page), undefined, 15_000);

  const told = await Promise.all(pages.map((page) => page.evaluate(() => window.tab.told())));
  for (const [index, { events, gaps, shown, answers, failures }] of told.entries()) {
    expect(events.filter(isLogged), `tab ${index}`).toEqual(log);
    expect(gaps).toEqual([]);
    expect([...new Set(shown.map(({ color }) => color))].sort(), JSON.stringify(shown)).toEqual(['green', 'yellow']);
    // Each tab's stream was at one of the replicas, and every replica went.
    expect(shown.map(({ reason }) => reason)).toContain('draining');
    expect(failures).toEqual([]);
    const sent = Object.values(answers);
    for (const statuses of sent) expect([200, 201], `${statuses}`).toContain(statuses.at(-1));
    const own = log.filter(({ message }) => message.text.startsWith(`tab ${index} #`));
    expect(own.map(({ message }) => message.text)).toEqual(sent.map((_, number) => `tab ${index} #${number}`));
  }
  const repeated = told.flatMap(({ answers }) => Object.values(answers)).filter(({ length }) => length > 1);
  const yellowMs = Math.max(...told.map(({ shown }) => longestYellowMs(shown)));
  console.log(
    `${PARTS.length} restarts in ${(restartsMs / 1_000).toFixed(1)} s, ${pages.length} tabs, ${log.length} messages, ` +
      `${repeated.length} of them sent more than once; longest yellow ${(yellowMs / 1_000).toFixed(1)} s`,
  );
}, 60_000);
