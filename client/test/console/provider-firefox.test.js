/** The console's sign-in with a certified provider in Firefox: once in, over the end of a token, and out. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { startFirefox } from '../support/browsers.js';
import { API, CLIENT, startProvider } from '../support/provider.js';
import { startProxy } from '../support/proxy.js';
import { startServer } from '../support/server.js';
import { until } from '../support/until.js';

let provider, server, proxy, browser;
beforeAll(async () => {
  [provider, browser] = await Promise.all([startProvider(), startFirefox()]);
  server = await startServer({
    AUTH_MODE: 'oidc',
    OIDC_ISSUER: provider.issuer,
    OIDC_AUDIENCE: API,
    OIDC_CLIENT_ID: CLIENT,
    OIDC_CONSOLE_PARAMETERS: `resource=${API},prompt=consent`,
  });
  proxy = await startProxy(server);
  provider.serve(proxy.url);
}, 60_000);
afterAll(async () => {
  await browser?.close();
  await proxy?.stop();
  await server?.stop();
  await provider?.stop();
});

test('Firefox signs in, keeps its stream over the end of a token, and signs out everywhere', async () => {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(20_000);
  const button = (text) => page.locator(`::-p-xpath(//button[normalize-space()="${text}"])`);
  await page.goto(proxy.url);
  await button('Sign in').click();
  await page.locator('input[name=login]').fill('ada');
  await page.locator('input[name=password]').fill('any');
  await button('Sign-in').click();
  await button('Continue').click();
  await button('Create project').click();
  const send = async (text) => {
    await page.locator('::-p-aria(Message general)').fill(text);
    await page.keyboard.press('Enter');
    await page.locator(`::-p-xpath(//*[@class="text" and normalize-space()="${text}"])`).wait();
  };
  await send('before');
  const opens = proxy.opens.length;
  // The stream ends with its token and is opened again with a new one, where it was.
  await until(() => proxy.opens.length > opens, () => `${opens} opens`, 30_000);
  expect(proxy.opens.slice(opens).every(({ lastEventId }) => lastEventId)).toBe(true);
  expect(provider.grants).toContain('refresh_token');
  await send('after');
  const texts = await page.$$eval('.message .text', (all) => all.map(({ textContent }) => textContent));
  expect(texts).toEqual(['before', 'after']);
  await page.locator('details.who summary').click();
  await button('Sign out everywhere').click();
  await button('Yes, sign me out').click();
  await button('Sign in').wait();
  expect(new URL(page.url()).pathname).toBe('/');
}, 120_000);
