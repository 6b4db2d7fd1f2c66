/** The provider and the settings of docs/sign-in.md, as pasted. */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../support/until.js';
import { consoles, root } from './support.js';

/** Blocks of the page by their language. @param {string} language */
const blocks = (language) =>
  [...page.matchAll(/^ *```(\w+)\n(.*?)^ *```$/gms)].filter(([, of]) => of === language).map(([, , text]) => text);
const page = readFileSync(`${root}docs/sign-in.md`, 'utf8');

async function freePort() {
  const server = http.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const folder = mkdtempSync(join(tmpdir(), 'parley-docs-'));
const settings = {};
let port;
let child;
beforeAll(async () => {
  port = await freePort();
  const exports = blocks('sh').flatMap((text) => text.split('\n').filter((line) => line.trim().startsWith('export ')));
  const pairs = exports.flatMap((line) => line.trim().split(' ').slice(1));
  for (const pair of pairs) {
    const [name, ...value] = pair.split('=');
    settings[name] = value.join('=').replace(':4000', `:${port}`);
  }
});
const all = consoles(settings);
beforeAll(async () => {
  const program = blocks('js')[0]
    .replaceAll('4000', `${port}`)
    .replaceAll('http://127.0.0.1:8010', all.proxy.url)
    .replace("'oidc-provider'", `'${import.meta.resolve('oidc-provider')}'`);
  writeFileSync(join(folder, 'provider.mjs'), program);
  child = spawn(process.execPath, [join(folder, 'provider.mjs')], { stdio: ['ignore', 'ignore', 'pipe'] });
  const answers = () => fetch(`${settings.OIDC_ISSUER}/jwks`).then(({ ok }) => ok, () => false);
  await until(answers, undefined, 30_000);
});
afterAll(() => {
  child?.kill();
  rmSync(folder, { recursive: true, force: true });
});

test('a reader who follows docs/sign-in.md is signed in by any name', async () => {
  expect(Object.keys(settings)).toContain('OIDC_CONSOLE_PARAMETERS');
  const console = await all.open({ origins: [all.proxy.url, settings.OIDC_ISSUER] });
  await console.route('https://fonts.googleapis.com/**', (route) => route.fulfill({ body: '' }));
  await console.getByRole('button', { name: 'Sign in', exact: true }).click();
  await console.locator('input[name=login]').fill('any');
  await console.locator('input[name=password]').fill('any');
  await console.getByRole('button', { name: 'Sign-in' }).click();
  await console.getByRole('button', { name: 'Continue' }).click();
  await console.getByRole('heading', { name: 'Projects' }).waitFor();
  // The provider's pages ask for a font and an icon, and the server did not know the page's user at first.
  const expected = /^401 .*\/api\/|status of (401|404)|^asked https:\/\/fonts\.googleapis\.com/;
  expect(all.complaints.splice(0).filter((complaint) => !expected.test(complaint))).toEqual([]);
});
