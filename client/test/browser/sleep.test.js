/** Tabs of Chromium that are hidden and frozen, which they are only if nothing pretends to look at them. */

import { expect, test } from 'vitest';
import { leaderOf, role, startRealChromium } from '../support/browsers.js';
import { stage } from '../support/stage.js';

const on = stage(startRealChromium);

test('a hidden leader goes on leading', async () => {
  const pages = [await on.tab(), await on.tab()];
  const [leader, other] = pages;
  expect(await role(leader)).toBe('leader');
  await other.bringToFront();
  expect(await leader.evaluate(() => document.visibilityState)).toBe('hidden');
  await new Promise((resolve) => setTimeout(resolve, 7_000));
  await on.send(5);
  await on.allSee(pages, 2_000);
  expect(await leaderOf(pages)).toBe(leader);
});

test('a frozen leader gives up the lead, and catches up when it thaws', async () => {
  const pages = [await on.tab(), await on.tab(), await on.tab()];
  await on.send(2);
  await on.allSee(pages);
  const [leader, ...others] = pages;
  expect(await role(leader)).toBe('leader');
  await others[0].bringToFront();
  const session = await leader.createCDPSession();
  await session.send('Page.setWebLifecycleState', { state: 'frozen' });
  expect(await on.nextLeads(others)).toBeLessThan(1_000);
  await on.send(3);
  await on.allSee(others);
  await session.send('Page.setWebLifecycleState', { state: 'active' });
  await on.allSee(pages);
  expect(on.proxy.streams.size).toBe(1);
});
