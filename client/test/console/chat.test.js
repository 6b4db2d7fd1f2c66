/** The chat in the console: live between two people, and through a long history. */

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ChatApi } from '../../src/index.js';
import { until } from '../support/until.js';
import { ARCHIVE, consoles, root } from './support.js';

const all = consoles({ PRESENCE_GRACE: '100ms' });
const apiOf = (user) => new ChatApi({ ingressUrl: all.server.ingress, procUrl: all.server.proc, token: `dev-${user}` });
const write = async (page, text) => {
  await page.getByRole('textbox', { name: 'Message general' }).fill(text);
  await page.keyboard.press('Enter');
};
const message = (page, text) => page.getByRole('article').filter({ hasText: text }).first();
const act = async (page, text, name) => {
  await message(page, text).hover();
  await message(page, text).getByRole('button', { name }).click();
};
const enter = async (user, project, path = '') => {
  const page = await all.open({ as: user });
  await page.goto(`${all.proxy.url}/#/p/${project}${path}`);
  return page;
};

test('two people see each other write, edit, react, answer, delete and leave', async () => {
  const ada = await all.open({ as: 'Ada' });
  await ada.getByRole('button', { name: 'Create project' }).click();
  await ada.getByRole('link', { name: 'Members' }).click();
  const project = new URL(ada.url()).hash.split('/')[2];
  await ada.getByLabel('User').fill('grace');
  await ada.getByRole('button', { name: 'Add member' }).click();
  await ada.getByText('grace · offline').waitFor();
  const grace = await enter('Grace', project);
  await grace.getByRole('heading', { name: '#general' }).waitFor();
  await ada.getByText('grace · online').waitFor();
  await ada.getByRole('link', { name: 'general' }).click();

  await ada.getByRole('textbox', { name: 'Message general' }).pressSequentially('h');
  await grace.getByText('Ada is typing…').waitFor();
  await write(ada, 'hello');
  await message(grace, 'hello').waitFor();
  await act(grace, 'hello', 'React with 🎉');
  await message(ada, 'hello').getByRole('button', { name: '🎉 1 by Grace' }).click();
  await message(grace, 'hello').getByRole('button', { name: '🎉 2 by Grace, Ada' }).waitFor();
  await act(grace, 'hello', 'Reply');
  await write(grace, 'good morning');
  await message(ada, 'good morning').getByRole('button', { name: 'Ada hello' }).waitFor();
  await act(ada, 'good morning', 'React with 👀');
  await act(grace, 'good morning', 'Edit');
  await grace.getByLabel('Text of the message').fill('good evening');
  await grace.keyboard.press('Enter');
  await message(ada, 'good evening (edited)').waitFor();
  await act(ada, 'hello', 'Delete');
  await ada.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await message(grace, 'This message was deleted.').waitFor();

  // What comes while another page is looked at is counted.
  await grace.getByRole('link', { name: 'Connection' }).last().click();
  await write(ada, 'are you there?');
  await grace.getByLabel('1 new').waitFor();
  await grace.getByRole('cell', { name: 'message.created' }).first().waitFor();
  await ada.getByRole('link', { name: 'Members' }).click();
  await ada.getByRole('button', { name: 'Remove Grace' }).click();
  await ada.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await grace.getByText('You are not in this project any more.').waitFor();
  await grace.getByRole('heading', { name: 'Projects' }).waitFor();
  // Her browser asked about a project that is not there for her: that is what 404 says.
  const refusals = all.complaints.splice(0);
  expect(refusals.filter((text) => !/404/.test(text))).toEqual([]);
});

test('a long history is read in both directions without a hole while it goes on', async () => {
  const api = apiOf('ada');
  const { id: project } = await api.createProject({ name: 'history' });
  const { upload_id } = await api.upload(new Blob([readFileSync(ARCHIVE)]));
  await api.submit('chat', 'import', { project_id: project, data: { upload_id }, wait: 25 });
  const channel = 'ubuntu-2005';
  const history = async () => {
    const ids = [];
    for (let before; before !== null;) {
      const page = await api.messages(project, { channel, before, limit: 200 });
      ids.unshift(...page.messages.map(({ id }) => id).reverse());
      before = page.next;
    }
    return ids;
  };
  const old = await history();
  expect(old.length).toBeGreaterThan(500);
  const middle = old[old.length >> 1];
  const page = await enter('Ada', project, `/chat/${channel}?at=${middle}`);
  await page.locator(`.target[data-id="${middle}"]`).waitFor();

  const list = page.locator('.messages');
  const shown = () => list.locator('.message').evaluateAll((elements) => elements.map(({ dataset }) => dataset.id));
  /** Goes one way to the end; what is shown never has a hole. */
  const seen = new Set();
  const go = async (where, isThere) => {
    await until(
      async () => {
        const isOver = await isThere();
        const window = await shown();
        const all = await now();
        const from = all.indexOf(window[0]);
        expect(window).toEqual(all.slice(from, from + window.length));
        window.forEach((id) => seen.add(id));
        if (isOver) return true;
        await list.evaluate((element, where) => (element.scrollTop = where === 'up' ? 0 : element.scrollHeight), where);
        await until(async () => (await isThere()) || (await list.getAttribute('aria-busy')) === 'false');
      },
      undefined,
      25_000,
    );
  };
  const sent = [];
  const now = async () => [...old, ...sent];
  await go('up', () => page.getByText(`This is where #${channel} begins.`).isVisible());
  for (const text of ['one', 'two', 'three']) sent.push((await api.sendMessage(project, { channel, text })).id);
  await go('down', () => page.locator(`[data-id="${sent[2]}"]`).isVisible());
  expect([...seen].sort()).toEqual([...old, ...sent].sort());
  // And then it goes on live.
  sent.push((await api.sendMessage(project, { channel, text: 'four' })).id);
  await page.locator(`[data-id="${sent[3]}"]`).waitFor();
});

test('two tabs have one stream, and each says which part it has', async () => {
  const { id: project } = await apiOf('ada').createProject({ name: 'tabs' });
  const first = await enter('Ada', project, '/connection');
  await first.getByText('leader: this tab has the stream').waitFor();
  const second = await all.tab(first.context(), { as: 'Ada' });
  await second.goto(`${all.proxy.url}/#/p/${project}/connection`);
  await second.getByText('follower: another tab has the stream').waitFor();
  expect((await apiOf('admin').connections('ada', project)).count).toBe(1);
  await first.close();
  await second.getByText('leader: this tab has the stream').waitFor();
  await second.getByText(/^[1-9]\d* heartbeats?$/).waitFor();
});

test('what stands in for the package is the package', () => {
  const withoutMap = (text) => text.replace(/^\/\/# sourceMappingURL.*\n?/m, '');
  const installed = readFileSync(`${root}client/node_modules/eventsource-parser/dist/index.js`, 'utf8');
  expect(readFileSync(`${root}ingress/console/vendor/eventsource-parser/index.js`, 'utf8')).toBe(
    withoutMap(installed),
  );
});
