/** The cases that every browser has to pass. */

import { expect, test } from 'vitest';
import { ChatApi } from '../../src/index.js';
import { role, seen, status } from '../support/browsers.js';
import { startServer } from '../support/server.js';
import { until } from '../support/until.js';

/** @param {ReturnType<typeof import('../support/stage.js').stage>} on */
export function sharedCases(on) {
  test('seven tabs have one stream, and requests are answered', async () => {
    const pages = await on.tabs(7);
    expect(on.proxy.streams.size).toBe(1);
    await on.send(10);
    await on.allSee(pages);
    const admin = new ChatApi({ ingressUrl: on.server.ingress, token: 'dev-admin' });
    expect((await admin.connections('ada', on.project)).count).toBe(1);
    const mine = await pages[3].evaluate(() => window.tab.api.sendMessage(window.tab.project_id, { text: 'm10' }));
    on.sent++;
    expect(mine.author).toBe('ada');
    await on.allSee(pages);
  });

  test.each(['close', 'navigate', 'reload'])(
    'after %s of the leader another tab leads within a second',
    async (how) => {
      const pages = await on.tabs(3);
      await on.send(3);
      await on.allSee(pages);
      const { leader, others } = await on.roles(pages);
      if (how === 'close') await leader.close();
      if (how === 'navigate') await leader.goto('about:blank');
      if (how === 'reload') await leader.reload();
      expect(await on.nextLeads(how === 'reload' ? pages : others)).toBeLessThan(1_000);
      await on.send(3);
      await on.allSee(others);
    },
  );

  test('two accounts in one browser do not read each other', async () => {
    const ada = await on.tab();
    await new ChatApi({ ingressUrl: on.server.ingress, token: 'dev-grace' }).me();
    await on.api.setMember(on.project, 'grace', 'viewer');
    const grace = await on.tab({ token: 'dev-grace' });
    expect([await role(ada), await role(grace)]).toEqual(['leader', 'leader']);
    expect(on.proxy.streams.size).toBe(2);
    await on.send(2);
    await on.allSee([ada, grace]);
    await on.api.removeMember(on.project, 'grace');
    await until(async () => (await status(grace)).state === 'closed', undefined, 10_000);
    await on.send(1);
    await on.allSee([ada]);
    expect(await seen(grace)).toEqual(['m0', 'm1']);
  });

  test('a drain under load is at most a yellow dot', async () => {
    const first = await startServer();
    await on.use(first, on.proxy.url);
    const pages = await on.tabs(3);
    const watch = () => {
      window.colors = [];
      const element = document.querySelector('parley-connection-status');
      window.tab.connection.on('status', () => window.colors.push(element.dataset.color));
    };
    await Promise.all(pages.map((page) => page.evaluate(watch)));
    const sending = on.send(30);
    await until(() => on.sent > 5);
    // As in a rolling restart another instance, on the same data, is there when this one goes.
    await first.end('SIGTERM');
    const second = await startServer({}, first.folder);
    on.proxy.target = second;
    await sending;
    await on.allSee(pages, 20_000);
    for (const page of pages)
      expect(await page.evaluate(() => [...new Set(window.colors)].sort())).toEqual(['green', 'yellow']);
    await second.stop();
  }, 60_000);
}
