/** The browsers of Debian. A context is a browser of its own, with its own locks and storage. */

import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import { until } from './until.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

/** Playwright's Chromium: its tabs are all visible. */
export async function startChromium() {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox'],
    // The back/forward cache is part of what is tested.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  });
  return { newContext: () => browser.newContext(), close: () => browser.close() };
}

/** Puppeteer's Chromium: its tabs are hidden by each other, and freeze. */
export async function startRealChromium() {
  const browser = await puppeteer.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox'],
    ignoreDefaultArgs: [
      '--disable-backgrounding-occluded-windows',
      '--disable-renderer-backgrounding',
      '--disable-background-timer-throttling',
    ],
  });
  return { newContext: () => browser.createBrowserContext(), close: () => browser.close() };
}

export async function startFirefox() {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX });
  return { newContext: () => browser.createBrowserContext(), close: () => browser.close() };
}

/** Opens a tab of the tests; resolves once it has its stream. */
export async function openTab(context, url, query) {
  const page = await context.newPage();
  await page.goto(`${url}/test/browser/page.html?${new URLSearchParams(query)}`);
  // Not by the tools' own waiting: it needs frames, which hidden tabs do not have.
  await until(() => page.evaluate(() => window.tab?.connection.status.state === 'open'), undefined, 15_000);
  return page;
}

export const status = (page) => page.evaluate(() => window.tab.connection.status);
export const role = (page) => page.evaluate(() => window.tab.connection.status.role);
export const seen = (page) => page.evaluate(() => window.tab.seen);
export const gaps = (page) => page.evaluate(() => window.tab.gaps);

/** Returns the tab that leads, if one of these does. */
export async function leaderOf(pages) {
  const roles = await Promise.all(pages.map(role));
  return pages[roles.indexOf('leader')];
}
