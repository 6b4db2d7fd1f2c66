/** @file What is around every page: the bar, the ways to the other pages, light and dark. */

import { avatar, bdi, button, h, listen, notices, plain, put } from './dom.js';
import { icon } from './icons.js';

/** @typedef {import('./main.js').Context['app']} App */

const THEME = 'parley:theme';
const THEMES = ['auto', 'light', 'dark'];
document.documentElement.dataset.theme = localStorage.getItem(THEME) ?? 'auto';

/**
 * Puts a page into its frame.
 * @param {App} app
 * @param {HTMLElement} main
 * @param {string} page
 * @param {AbortSignal} signal
 */
export function frame(app, main, page, signal) {
  const { room } = app;
  const side = h('nav', { class: 'side', id: 'side', 'aria-label': 'Pages' });
  const menu = h(
    'button',
    { type: 'button', class: 'menu quiet', 'aria-expanded': 'false', 'aria-controls': 'side', 'aria-label': 'Menu' },
    icon('menu'),
  );
  const open = (/** @type {boolean} */ is) => {
    side.toggleAttribute('data-open', is);
    menu.setAttribute('aria-expanded', `${is}`);
  };
  menu.onclick = () => open(!side.hasAttribute('data-open'));
  const status = h('parley-connection-status');
  if (room) status.connection = room.connection;
  put(
    document.body,
    h(
      'a',
      { class: 'skip', href: '#main', onclick: (/** @type {Event} */ event) => (event.preventDefault(), main.focus()) },
      'Skip to content',
    ),
    h(
      'header',
      { class: 'bar' },
      menu,
      h(
        'a',
        { class: 'brand', href: '#/' },
        h('img', { src: '/console/icon.svg', alt: '', width: 24, height: 24 }),
        h('span', {}, 'Parley'),
      ),
      room && h('a', { class: 'state', href: `#/p/${room.id}/connection`, title: 'Connection' }, status),
      themeSwitch(),
      who(app),
    ),
    side,
    main,
    notices,
  );
  const fill = () => put(side, ...links(app, page));
  fill();
  if (room) listen(room, 'channels unread project members', fill, signal);
  listen(side, 'click', ({ target }) => target.closest('a') && open(false), signal);
  listen(document, 'keydown', ({ key }) => key === 'Escape' && open(false), signal);
  listen(main, 'click', () => open(false), signal);
}

/** Brings reader and keyboard to a page that was just put there. @param {HTMLElement} main */
export function lead(main) {
  const title = main.querySelector('h1')?.textContent;
  document.title = title ? `${title} · Parley` : 'Parley';
  if (document.activeElement === document.body) main.focus({ preventScroll: true });
}

/** @param {App} app @param {string} page */
function links({ room, account }, page) {
  const link = (/** @type {string} */ href, /** @type {string} */ name, /** @type {any[]} */ ...children) =>
    h('a', { href, 'aria-current': name === page ? 'page' : null }, ...children);
  const list = (/** @type {any[]} */ ...items) =>
    h('ul', {}, ...items.filter(Boolean).map((item) => h('li', {}, item)));
  const all = list(
    link('#/', 'projects', icon('folder'), 'Projects'),
    account?.isAdmin && link('#/admin', 'admin', icon('gauge'), 'Administration'),
  );
  if (!room) return [all];
  const at = `#/p/${room.id}`;
  const channels = [...room.channels.values()]
    .sort((a, b) => a.name.localeCompare(b.name))
    .map(({ name }) => {
      const unread = room.unread.get(name) ?? 0;
      const here = page === 'chat' && room.current === name;
      return h(
        'a',
        {
          href: `${at}/chat/${encodeURIComponent(name)}`,
          'aria-current': here ? 'page' : null,
          class: unread ? 'unread' : null,
        },
        h('span', { class: 'hash', 'aria-hidden': 'true' }, '#'),
        h('span', { class: 'name' }, bdi(name)),
        unread > 0 && h('span', { class: 'count', 'aria-label': `${unread} new` }, unread),
      );
    });
  return [
    h('p', { class: 'where' }, bdi(room.project.name)),
    h('h2', {}, 'Channels'),
    list(
      ...channels,
      room.mayWrite && h('a', { href: `${at}/members?new`, class: 'faint' }, icon('plus'), 'New channel'),
    ),
    h('h2', {}, 'Project'),
    list(
      link(`${at}/ask`, 'ask', icon('search'), 'Search and ask'),
      link(`${at}/jobs`, 'jobs', icon('jobs'), 'Jobs and import'),
      link(`${at}/members`, 'members', icon('people'), 'Members'),
      link(`${at}/connection`, 'connection', icon('pulse'), 'Connection'),
    ),
    h('h2', {}, 'Everywhere'),
    all,
  ];
}

function themeSwitch() {
  const root = document.documentElement;
  const element = h('button', { type: 'button', class: 'quiet theme' });
  const say = () => {
    const theme = root.dataset.theme ?? 'auto';
    element.setAttribute('aria-label', `Colours: ${theme}`);
    element.title = `Colours: ${theme}`;
    put(element, icon(theme));
  };
  element.onclick = () => {
    root.dataset.theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? 'auto') + 1) % THEMES.length] ?? 'auto';
    localStorage.setItem(THEME, root.dataset.theme);
    say();
  };
  say();
  return element;
}

/** @param {App} app */
function who(app) {
  const { me } = /** @type {NonNullable<App['account']>} */ (app.account);
  return h(
    'details',
    { class: 'who' },
    h('summary', { 'aria-label': `Signed in as ${plain(me.name)}` }, avatar(me.name)),
    h(
      'div',
      { class: 'card' },
      h('p', {}, h('strong', {}, bdi(me.name)), h('br'), h('span', { class: 'muted' }, me.user)),
      button('Sign out', () => app.signOut()),
      button('Sign out everywhere', () => app.signOut({ everywhere: true })),
    ),
  );
}
