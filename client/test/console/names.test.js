/** Names and addresses are read as they are, whatever direction marks they hold. */

import { expect, test } from 'vitest';
import { consoles } from './support.js';

const all = consoles();

test('a link shows its true order, and a name does not turn the text around it', async () => {
  const page = await all.open({ as: 'Ada' });
  await page.getByLabel('Name of a new project').fill('Plans \u202ebackwards');
  await page.getByRole('button', { name: 'Create project' }).click();
  await page.getByRole('heading', { name: '#general' }).waitFor();
  expect(await page.locator('.side .where bdi').textContent()).toBe('Plans backwards');
  await page.getByLabel('Message general').fill('see https://example.org/\u202egnp.exe and \u202ethis');
  await page.keyboard.press('Enter');
  const link = page.locator('.message .text a');
  await link.waitFor();
  expect(await link.textContent()).toBe('https://example.org/%E2%80%AEgnp.exe');
  expect(await link.getAttribute('href')).toBe('https://example.org/\u202egnp.exe');
  // Drawn from left to right: the host stands before the path.
  const style = await link.evaluate((element) => {
    const { unicodeBidi, direction } = getComputedStyle(element);
    return [unicodeBidi, direction];
  });
  expect(style).toEqual(['isolate', 'ltr']);
  expect(await page.locator('.message .by bdi').textContent()).toBe('Ada');
});
