/** The console in Chromium, watched: what it asks for, and what it complains about. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { startProxy } from '../support/proxy.js';
import { startServer } from '../support/server.js';

export const root = fileURLToPath(new URL('../../..', import.meta.url));
export const ARCHIVE = `${root}proc/testdata/ubuntu-irc-small.zip`;
const AXE = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

/** A server behind one origin, a browser, and the users' browsers in it. */
export function consoles(settings = {}) {
  const all = {
    server: null,
    proxy: null,
    browser: null,
    contexts: [],
    /** What none of the tests is to see: complaints, failed requests, requests elsewhere. */
    complaints: [],
    /** A browser of its own, and in it a tab with the console; `as` signs in. */
    async open({ as, url = all.proxy.url, origins = [url], ...options } = {}) {
      const context = await all.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      context.setDefaultTimeout(10_000);
      all.contexts.push(context);
      return all.tab(context, { as, url, origins });
    },
    async tab(context, { as, url = all.proxy.url, origins = [url] } = {}) {
      const page = await context.newPage();
      page.on(
        'console',
        (message) => ['error', 'warning'].includes(message.type()) && all.complaints.push(message.text()),
      );
      page.on('pageerror', (error) => all.complaints.push(error.stack));
      page.on(
        'request',
        (request) =>
          /^(http|ws)/.test(request.url()) &&
          !origins.includes(new URL(request.url()).origin) &&
          all.complaints.push(`asked ${request.url()}`),
      );
      page.on(
        'response',
        (response) => response.status() >= 400 && all.complaints.push(`${response.status()} ${response.url()}`),
      );
      await page.goto(url);
      if (as) await page.getByRole('button', { name: as }).click();
      if (as) await page.getByRole('heading', { name: 'Projects' }).waitFor();
      return page;
    },
  };
  beforeAll(async () => {
    [all.server, all.browser] = await Promise.all([
      startServer(settings),
      chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        args: ['--no-sandbox', '--disable-dev-shm-usage'],
      }),
    ]);
    all.proxy = await startProxy(all.server);
  }, 60_000);
  afterEach(async () => {
    await Promise.all(all.contexts.splice(0).map((context) => context.close()));
    expect(all.complaints.splice(0)).toEqual([]);
  });
  afterAll(async () => {
    await all.browser?.close();
    await all.proxy?.stop();
    await all.server?.stop();
  });
  return all;
}

/** Imports the archive by way of the page that is for it. */
export async function importArchive(page) {
  await page.getByRole('link', { name: 'Jobs and import' }).click();
  const [chooser] = await Promise.all([
    page.waitForEvent('filechooser'),
    page.getByText('Import a Slack export').first().click(),
  ]);
  await chooser.setFiles(ARCHIVE);
  await page.getByText('4,106 messages imported').waitFor();
}

/** What axe finds on a page that matters. @param {import('playwright-core').Page} page @param {object} options Of axe. */
export async function findings(page, options) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(
    (options) => window.axe.run(document, { resultTypes: ['violations'], ...options }),
    options,
  );
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, any }) => `${html} ${any[0]?.message ?? ''}`).join('\n')}`);
}
