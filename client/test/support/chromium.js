/** Tabs of one Chromium: contexts are browsers of their own, with their own locks. */

import { chromium } from 'playwright-core';

export async function startChromium() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-dev-shm-usage'],
    // The back/forward cache is part of what is tested.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  });
  return browser;
}

/** @param {import('playwright-core').BrowserContext} context @param {string} url @param {Record<string, string>} query */
export async function openTab(context, url, query) {
  const page = await context.newPage();
  await page.goto(`${url}/test/browser/page.html?${new URLSearchParams(query)}`);
  await page.waitForFunction(() => window.tab?.connection.status.state === 'open');
  return page;
}

export const status = (page) => page.evaluate(() => window.tab.connection.status);
export const role = (page) => page.evaluate(() => window.tab.connection.status.role);
export const seen = (page) => page.evaluate(() => window.tab.seen);
export const gaps = (page) => page.evaluate(() => window.tab.gaps);
/** @returns {Promise<any>} */
export async function leaderOf(pages) {
  const roles = await Promise.all(pages.map(role));
  return pages[roles.indexOf('leader')];
}
