/** A new user's path through the console, by mouse alone, with nothing from elsewhere and no complaint. */

import { expect, test } from 'vitest';
import { until } from '../support/until.js';
import { consoles, importArchive } from './support.js';

// With the limits that the server is shipped with: the page keeps to them.
const all = consoles({
  FLOOD_LIMIT: '400/200',
  RATE_LIMIT_READS: '50/10',
  RATE_LIMIT_SENDS: '20/5',
  RATE_LIMIT_OPENS: '15/1',
  RATE_LIMIT_SUBMITS: '10/1',
});

test('by mouse alone: sign in, make a project, import an archive, ask, and see a source in its place', async () => {
  const page = await all.open();
  await page.getByRole('button', { name: 'Ada' }).click();
  await page.getByRole('button', { name: 'Create project' }).click();
  await page.getByRole('heading', { name: '#general' }).waitFor();

  await page.evaluate(() => {
    window.bars = new Set();
    const look = () =>
      document.querySelectorAll('.job progress:not([hidden])').forEach(({ position }) => window.bars.add(position));
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  await importArchive(page);
  // It goes on, by an amount unknown at first, and then it is done.
  const bars = await page.evaluate(() => [...window.bars]);
  expect(bars[0]).toBe(-1);
  expect(bars.at(-1)).toBe(1);
  // Channels of the archive are there without a reload.
  for (const year of [2004, 2005, 2006, 2007]) await page.getByRole('link', { name: `ubuntu-${year}` }).waitFor();

  await page.getByRole('link', { name: 'Search and ask' }).click();
  await page.getByRole('button', { name: 'What problems were there?' }).click();
  // The index is a little behind what was just imported.
  await until(async () => {
    await page.getByText(/^Finished/).waitFor();
    if (await page.getByRole('heading', { name: 'Sources' }).isVisible()) return true;
    // At a person's pace: nobody may ask more than ten times a minute.
    await page.waitForTimeout(2_000);
    await page.getByRole('button', { name: 'Ask', exact: true }).click();
  }, undefined, 30_000);
  const answer = await page.locator('.answer').textContent();
  const source = page.locator('.source').first();
  const quoted = (await source.locator('> span').last().textContent()).trim();
  expect(answer.length).toBeGreaterThan(100);
  await source.click();
  const target = page.locator('.message.target');
  await target.waitFor();
  expect((await target.locator('.text').textContent()).replace(/\s+/g, ' ')).toContain(
    quoted.replaceAll('…', '').trim().slice(0, 40),
  );
  // It is where it was said: others before and after it, and it is in view.
  const { before, after, isInView } = await target.evaluate((element) => {
    const list = element.closest('.messages');
    const messages = [...list.querySelectorAll('.message')];
    const at = messages.indexOf(element);
    const [inner, outer] = [element.getBoundingClientRect(), list.getBoundingClientRect()];
    return {
      before: at,
      after: messages.length - at - 1,
      isInView: inner.top >= outer.top && inner.bottom <= outer.bottom,
    };
  });
  expect(before).toBeGreaterThan(0);
  expect(after).toBeGreaterThan(0);
  expect(isInView).toBe(true);
});

test('at the ingress itself the page finds proc at its own port, and asks nobody else', async () => {
  const { ingress, proc } = all.server;
  const page = await all.open({ as: 'Ada', url: ingress, origins: [ingress, proc] });
  await page.getByRole('button', { name: 'Create project' }).click();
  await page.getByRole('heading', { name: '#general' }).waitFor();
  await importArchive(page);
});

test('the page has the strictest policy that it can have', async () => {
  const policy = async (url) => (await fetch(url)).headers.get('content-security-policy');
  const strict =
    /^default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'$/;
  expect(await policy(all.proxy.url)).toMatch(strict);
  expect(await policy(`${all.proxy.url}/api/auth/me`)).toBe("default-src 'none'; frame-ancestors 'none'");
});

test('what a message says is never markup', async () => {
  const page = await all.open({ as: 'Ada' });
  await page.getByRole('button', { name: 'Create project' }).click();
  const hostile =
    '<img src=x onerror="window.hit=1"><script>window.hit=1</script> javascript:alert(1) https://example.org/a?b=1.';
  await page.getByLabel('Message general').fill(hostile);
  await page.keyboard.press('Enter');
  const text = page.locator('.message .text').first();
  await text.waitFor();
  expect(await text.textContent()).toBe(hostile);
  expect(await text.locator('a').evaluateAll((links) => links.map(({ href }) => href))).toEqual([
    'https://example.org/a?b=1',
  ]);
  expect(await page.evaluate(() => window.hit)).toBe(undefined);
});
