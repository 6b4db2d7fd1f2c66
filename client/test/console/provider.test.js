/** The console's sign-in with a certified provider: code flow, refresh under a stream, sign-out everywhere. */

import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { API, CLIENT, startProvider, TOKEN_SECONDS } from '../support/provider.js';
import { until } from '../support/until.js';
import { consoles } from './support.js';

/** @type {Awaited<ReturnType<typeof startProvider>>} */
let provider;
const settings = {};
beforeAll(async () => {
  provider = await startProvider();
  Object.assign(settings, {
    AUTH_MODE: 'oidc',
    OIDC_ISSUER: provider.issuer,
    OIDC_AUDIENCE: API,
    OIDC_CLIENT_ID: CLIENT,
    // The provider gives a refresh token only to a user who agrees.
    OIDC_CONSOLE_PARAMETERS: `resource=${API},prompt=consent`,
  });
});
const all = consoles(settings);
beforeAll(() => provider.serve(all.proxy.url));
afterAll(() => provider?.stop());
afterEach(() => {
  // Before a sign-in, and after one was ended, the server does not know the page's user.
  const expected = /^401 .*\/api\/|status of 401/;
  const others = all.complaints.filter((complaint) => !expected.test(complaint));
  all.complaints.splice(0, Infinity, ...others);
});

const open = () => all.open({ origins: [all.proxy.url, provider.issuer] });

/** @param {import('playwright-core').Page} page @param {string} user */
async function signIn(page, user) {
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.locator('input[name=login]').fill(user);
  await page.locator('input[name=password]').fill('any');
  await page.getByRole('button', { name: 'Sign-in' }).click();
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByRole('heading', { name: 'Projects' }).waitFor();
}

/** @param {import('playwright-core').Page} page @param {string} button */
async function fromTheMenu(page, button) {
  await page.locator('details.who summary').click();
  await page.getByRole('button', { name: button, exact: true }).click();
}

/** @param {import('playwright-core').Page} page */
async function agreeToSignOut(page) {
  await page.getByRole('button', { name: 'Yes, sign me out' }).click();
  await page.getByRole('button', { name: 'Sign in', exact: true }).waitFor();
}

test('a user signs in, a stream outlasts its tokens, and signing out everywhere ends both sessions', async () => {
  const ada = await open();
  await signIn(ada, 'ada');
  expect(new URL(ada.url()).pathname + new URL(ada.url()).search).toBe('/');
  await ada.getByRole('button', { name: 'Create project' }).click();
  await ada.getByRole('heading', { name: '#general' }).waitFor();
  const grace = await open();
  await signIn(grace, 'grace');
  const project = ada.url();
  await ada.getByRole('link', { name: 'Members' }).click();
  await ada.getByLabel('User', { exact: true }).fill('grace');
  await ada.getByRole('button', { name: 'Add member' }).click();
  await ada.getByText('Grace is in').waitFor();
  await ada.getByRole('link', { name: 'general' }).click();
  await grace.goto(project);
  const composer = grace.getByLabel('Message general');
  await composer.waitFor();

  // No token is where another page could read it.
  const kept = await ada.evaluate(() => JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.cookie]));
  expect(kept).not.toMatch(/eyJ/);

  // Messages arrive for three lifetimes of a token.
  const [opens, refreshes] = [all.proxy.opens.length, provider.grants.filter((grant) => grant === 'refresh_token').length];
  const end = Date.now() + 3 * TOKEN_SECONDS * 1_000;
  const sent = [];
  while (Date.now() < end) {
    sent.push(`message ${sent.length}`);
    await composer.fill(sent.at(-1));
    await composer.press('Enter');
    await grace.getByText(sent.at(-1), { exact: true }).waitFor();
  }
  await ada.getByText(sent.at(-1), { exact: true }).waitFor();
  expect(await ada.locator('.message .text').allTextContents()).toEqual(sent);
  // Both users' streams ended with their tokens, twice at least, and came back where they were.
  const again = all.proxy.opens.slice(opens);
  expect(again.length).toBeGreaterThanOrEqual(4);
  expect(again.every(({ lastEventId }) => lastEventId)).toBe(true);
  const refreshed = provider.grants.filter((grant) => grant === 'refresh_token').length - refreshes;
  expect(refreshed).toBeGreaterThanOrEqual(4);

  // Another browser of Ada's is signed out by this one, and the provider asks for a password again.
  const other = await open();
  await signIn(other, 'ada');
  await other.goto(project);
  await other.getByText(sent.at(-1), { exact: true }).waitFor();
  await fromTheMenu(ada, 'Sign out everywhere');
  await agreeToSignOut(ada);
  await other.getByRole('button', { name: 'Sign in', exact: true }).waitFor();
  await ada.getByRole('button', { name: 'Sign in', exact: true }).click();
  await ada.locator('input[name=password]').waitFor();
  // Grace's session is her own.
  await composer.fill('still here');
  await composer.press('Enter');
  await grace.getByText('still here', { exact: true }).waitFor();
}, 120_000);

test('a reload asks the provider and not the user', async () => {
  const page = await open();
  await signIn(page, 'ada');
  await page.getByRole('button', { name: 'Create project' }).click();
  await page.getByRole('heading', { name: '#general' }).waitFor();
  const url = page.url();
  await page.reload();
  await page.getByRole('heading', { name: '#general' }).waitFor();
  expect(page.url()).toBe(url);
  await fromTheMenu(page, 'Sign out');
  await agreeToSignOut(page);
  // Signed out is signed out: nothing comes back by itself.
  await page.reload();
  await page.getByRole('button', { name: 'Sign in', exact: true }).waitFor();
});

test('an answer that this tab did not ask for is refused and asks for no token', async () => {
  const grants = provider.grants.length;
  const page = await open();
  for (const query of ['code=stolen&state=other', 'error=access_denied&state=other']) {
    await page.goto(`${all.proxy.url}/console/signed-in?${query}`);
    await page.getByText('This sign-in was not begun in this tab').waitFor();
    await page.getByRole('button', { name: 'Sign in', exact: true }).waitFor();
    expect(new URL(page.url()).search).toBe('');
  }
  // A right state with a foreign code, as an attacker's page could not make it.
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.locator('input[name=login]').waitFor();
  const { state } = Object.fromEntries(new URL(await page.evaluate(() => performance.getEntriesByType('navigation')[0].name)).searchParams);
  await page.goto(`${all.proxy.url}/console/signed-in?code=stolen&state=${state ?? 'none'}&iss=https://evil.example`);
  await until(() => page.getByText(/not begun in this tab|of another provider/).isVisible());
  expect(provider.grants.length).toBe(grants);
});

test('the page may connect to the issuer and to nothing else', async () => {
  for (const path of ['/', '/console/signed-in']) {
    const { headers } = await fetch(all.proxy.url + path);
    expect(headers.get('content-security-policy')).toContain(`connect-src 'self' ${provider.issuer}; `);
  }
  const { oidc } = await (await fetch(`${all.proxy.url}/console/config.json`)).json();
  expect(oidc).toEqual({
    issuer: provider.issuer,
    client_id: CLIENT,
    scope: 'openid profile offline_access',
    parameters: [
      ['resource', API],
      ['prompt', 'consent'],
    ],
    redirect_path: '/console/signed-in',
    id_token_only: false,
  });
});
