/** @file The console: signs in, and shows the page that the address names. */

import '@parley/client/ui';
import { Account, comeBack, configuration, forget } from './account.js';
import { complain, h, listen, notice, notices, put } from './dom.js';
import { Room } from './room.js';
import { frame, lead } from './shell.js';
import { adminPage } from './pages/admin.js';
import { askPage } from './pages/ask.js';
import { chatPage } from './pages/chat.js';
import { connectionPage } from './pages/connection.js';
import { jobsPage } from './pages/jobs.js';
import { membersPage } from './pages/members.js';
import { projectsPage } from './pages/projects.js';
import { signInPage } from './pages/sign-in.js';

/**
 * What a page is given: where it is, who looks at it, the open project if it is of one, and what ends when it is left.
 * @typedef {object} Context
 * @property {typeof app} app
 * @property {Account} account
 * @property {Room} room
 * @property {URLSearchParams} params
 * @property {string[]} rest
 * @property {AbortSignal} signal
 * @typedef {(context: Context) => Node | Promise<Node>} Page
 */

/** @type {Record<string, Page>} */
const OF_PROJECT = { chat: chatPage, ask: askPage, jobs: jobsPage, members: membersPage, connection: connectionPage };

const config = await configuration();
const app = {
  config,
  /** @type {Account | null} */
  account: null,
  /** @type {Room | null} */
  room: null,
  /** @param {{token?: string, idToken?: string}} credentials */
  async signIn(credentials) {
    app.account = await new Account(config, credentials, expired).enter();
    if (!location.hash.startsWith('#/p/')) location.hash = '#/';
    await show();
  },
  /** @param {{everywhere?: boolean}} [options] `everywhere` ends the user's other sessions first. */
  async signOut({ everywhere = false } = {}) {
    const { account } = app;
    // The page shows a failure while the user can still try again.
    if (everywhere) await account?.endOthers();
    leaveRoom();
    app.account = null;
    await account?.leave();
    location.hash = '#/';
    await show();
  },
};

function expired() {
  leaveRoom();
  app.account = null;
  forget();
  void show();
}

function leaveRoom() {
  app.room?.close();
  app.room = null;
}

/** @param {Account} account @param {string} id */
async function enterRoom(account, id) {
  if (app.room?.id !== id) {
    leaveRoom();
    const room = new Room(account, id);
    app.room = room;
    listen(
      room,
      'removed',
      () => {
        notice('You are not in this project any more.');
        location.hash = '#/';
      },
      room.signal,
    );
    await room.open();
  }
  return /** @type {Room} */ (app.room);
}

let shown = new AbortController();

/** Shows the page of the address; the one before ends. */
async function show() {
  shown.abort();
  const { signal } = (shown = new AbortController());
  const [path = '', query] = location.hash.slice(1).split('?');
  const [, area, id, name = 'chat', ...rest] = path.split('/').map(decodeURIComponent);
  const { account } = app;
  const main = h('main', { id: 'main', tabindex: '-1' });
  try {
    if (!account) {
      put(document.body, notices, main);
      put(main, signInPage(app));
      return;
    }
    const context = { app, account, params: new URLSearchParams(query), rest, signal };
    if (area === 'p' && id && OF_PROJECT[name]) {
      const room = await enterRoom(account, id);
      if (signal.aborted) return;
      frame(app, main, name, signal);
      put(main, await OF_PROJECT[name]({ ...context, room }));
    } else {
      leaveRoom();
      frame(app, main, area === 'admin' ? 'admin' : 'projects', signal);
      put(main, await (area === 'admin' ? adminPage : projectsPage)(/** @type {any} */ (context)));
    }
    if (!signal.aborted) lead(main);
  } catch (error) {
    if (signal.aborted) return;
    leaveRoom();
    if (!app.account) return void show();
    frame(app, main, '', signal);
    put(
      main,
      h(
        'div',
        { class: 'page' },
        h('h1', {}, 'This did not work'),
        h('p', {}, `${/** @type {any} */ (error).message ?? error}`),
        h('p', {}, h('a', { href: '#/' }, 'All projects')),
      ),
    );
  }
}

// What is not caught anywhere else is seen, not only in the console.
addEventListener('unhandledrejection', ({ reason }) => complain(reason));
addEventListener('hashchange', () => void show());
app.account = await comeBack(config, expired).catch((error) => (complain(error), null));
await show();
