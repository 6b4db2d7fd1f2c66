/** Every page, light, dark and on a phone: axe finds nothing serious, nothing is wider than the screen, and a picture is taken. */

import { mkdirSync, readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { ChatApi } from '../../src/index.js';
import { until } from '../support/until.js';
import { ARCHIVE, consoles, findings, root } from './support.js';

const all = consoles();
const FOLDER = process.env.SCREENSHOTS ?? `${root}target/screenshots`;
mkdirSync(FOLDER, { recursive: true });

/** A project in which something was said and done. */
async function furnish() {
  const as = (user) => new ChatApi({ ingressUrl: all.server.ingress, procUrl: all.server.proc, token: `dev-${user}` });
  const [ada, grace, admin] = ['ada', 'grace', 'admin'].map(as);
  const { id: project } = await ada.createProject({ name: 'Support archive' });
  for (const name of ['Website', 'Release 2.0']) await ada.createProject({ name });
  for (const user of ['grace', 'admin']) await ada.setMember(project, user, 'owner');
  const { upload_id } = await ada.upload(new Blob([readFileSync(ARCHIVE)]));
  await ada.submit('chat', 'import', { project_id: project, data: { upload_id }, wait: 25 });
  await ada.createChannel(project, { name: 'design', topic: 'How it looks, and why' });
  const say = (api, text, more) => api.sendMessage(project, { channel: 'design', text, ...more });
  const first = await say(ada, 'The old support logs are in: four channels, 4,106 messages, 2004 to 2007.');
  await grace.addReaction(project, first.id, '🎉');
  await admin.addReaction(project, first.id, '🎉');
  const second = await say(grace, 'That was quick. Can people ask questions about them now?');
  await say(
    ada,
    'Yes. Try “How do I install the nvidia drivers?”: the answer quotes what was said then, and each source leads to its message.',
    { reply_to: second.id },
  );
  await say(ada, 'The stream stays open while replicas come and go, so nobody has to reload.');
  const third = await say(grace, 'Nice. I will write a short guide today: https://example.org/guide');
  await ada.addReaction(project, third.id, '👍');
  await grace.editMessage(project, third.id, 'Nice. I will write a short guide by Friday: https://example.org/guide');
  await say(admin, 'Streams look healthy on my side.');
  await admin.submit('demo', 'count', { project_id: project, data: { to: 1200, delay_ms: 250 } });
  return project;
}

let project, old;
beforeAll(async () => {
  project = await furnish();
  const api = new ChatApi({ ingressUrl: all.server.ingress, token: 'dev-ada' });
  const search = async () => (await api.search(project, 'nvidia drivers', { channel: 'ubuntu-2006' })).messages;
  // The index is a little behind.
  await until(async () => ([old] = await search()).length > 0);
});

/** What axe looks for: colours do not change with the screen, nor anything else with the colours. */
const RULES = {
  light: {},
  dark: { runOnly: ['color-contrast'] },
  phone: { rules: { 'color-contrast': { enabled: false } } },
};

test.each(['light', 'dark', 'phone'])('pages are fit for every eye and hand: %s', { timeout: 60_000 }, async (look) => {
  const at = `/p/${project}`;
  const asked = async (page) => {
    await page.getByLabel('Question or words').fill('How do I install the nvidia drivers?');
    await page.getByRole('button', { name: 'Ask', exact: true }).click();
    await page.getByRole('heading', { name: 'Sources' }).waitFor();
  };
  const log = async (page) => {
    await page.getByText('4,106 messages imported').waitFor();
    await page.locator('summary', { hasText: 'Log' }).first().click();
  };
  const streams = async (page) => {
    for (const [index, as] of ['Ada', 'Grace', 'Grace'].entries()) {
      if (look !== 'light') break;
      await (await all.open({ as })).goto(`${all.proxy.url}/#${at}/chat/design`);
      await until(
        async () => Number(await page.locator('.figures strong').first().textContent()) > index,
        undefined,
        10_000,
      );
    }
  };
  const pages = {
    projects: ['/', '.tile'],
    chat: [`${at}/chat/design`, '.reaction'],
    history: [`${at}/chat/ubuntu-2006?at=${old.id}`, '.target'],
    ask: [`${at}/ask`, 'input[type=search]', asked],
    jobs: [`${at}/jobs`, '.badge.running', log],
    members: [`${at}/members`, '.lines li'],
    connection: [`${at}/connection`, '.facts div'],
    admin: ['/admin', '.chart .key', streams],
  };
  const size = { phone: { width: 360, height: 740 } };
  const found = [];
  const page = await all.open({
    colorScheme: look === 'dark' ? 'dark' : 'light',
    ...(size[look] && { viewport: size[look], hasTouch: true, isMobile: true }),
  });
  const check = async (name) => {
    found.push(...(await findings(page, RULES[look])).map((finding) => `${name}: ${finding}`));
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (wide > 0) found.push(`${name}: ${wide} px too wide`);
    await page.mouse.move(0, 0);
    await page.screenshot({ path: `${FOLDER}/${name}-${look}.png` });
  };
  await page.getByRole('button', { name: 'Admin' }).waitFor();
  await check('sign-in');
  await page.getByRole('button', { name: 'Admin' }).click();
  await page.getByRole('heading', { name: 'Projects' }).waitFor();
  for (const [name, [path, sign, then]] of Object.entries(pages)) {
    await page.goto(`${all.proxy.url}/#${path}`);
    await page.locator(sign).first().waitFor();
    await then?.(page);
    await check(name);
  }
  if (look === 'phone') {
    await page.goto(`${all.proxy.url}/#${at}/chat/design`);
    await page.getByRole('heading', { name: '#design' }).waitFor();
    await page.getByRole('button', { name: 'Menu' }).click();
    await page.getByRole('link', { name: 'Search and ask' }).waitFor();
    await check('menu');
  }
  expect(found).toEqual([]);
});

test('the keyboard alone is enough', async () => {
  const page = await all.open();
  const press = (key) => page.keyboard.press(key);
  const focused = () =>
    page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim());
  const tabTo = async (name) => {
    for (let steps = 0; steps < 40; steps++) {
      await press('Tab');
      if ((await focused()).includes(name)) return;
    }
    throw new Error(`${name} cannot be reached: ${await focused()}`);
  };
  await page.getByRole('button', { name: 'Grace' }).waitFor();
  await tabTo('Grace');
  await press('Enter');
  await page.getByRole('heading', { name: 'Projects' }).waitFor();
  await tabTo('Create project');
  await press('Enter');
  await page.getByRole('heading', { name: '#general' }).waitFor();
  await tabTo('Message general');
  await page.keyboard.type('by hand');
  await press('Enter');
  await page.getByRole('article').waitFor();
  await tabTo('Colours: auto');
  await press('Enter');
  await press('Enter');
  expect(await page.evaluate(() => getComputedStyle(document.body).colorScheme)).toBe('dark');
});
