/** @file Signing in: with the provider, as a demo user, or with tokens. */

import { goToProvider } from '../provider.js';
import { avatar, button, form, h } from '../dom.js';

/** @param {import('../main.js').Context['app']} app */
export function signInPage(app) {
  const { auth_mode, demo_users, oidc } = app.config;
  const secret = (/** @type {string} */ name, /** @type {string} */ label) =>
    h(
      'label',
      {},
      label,
      h('input', { name, type: 'password', required: true, autocomplete: 'off', spellcheck: 'false' }),
    );
  const demo = demo_users.map(({ name, user, token }) =>
    button(
      h(
        'span',
        { class: 'row' },
        avatar(name),
        h('span', {}, name, user === 'admin' && h('span', { class: 'muted' }, ' sees the server’s insides')),
      ),
      () => app.signIn({ token }),
      { class: 'wide' },
    ),
  );
  const tokens = form(
    { class: 'stack' },
    ({ token, idToken }) => app.signIn({ token, idToken: idToken || undefined }),
    secret('token', oidc?.id_token_only ? 'ID token' : auth_mode === 'oidc' ? 'Access token' : 'Token'),
    auth_mode === 'oidc' && !oidc?.id_token_only && secret('idToken', 'ID token'),
    h('button', { type: 'submit', class: oidc ? null : 'primary' }, oidc ? 'Sign in with tokens' : 'Sign in'),
  );
  return h(
    'div',
    { class: 'sign-in card' },
    h('img', { src: '/console/icon.svg', alt: '', width: 44, height: 44 }),
    h('h1', {}, 'Parley'),
    demo.length > 0 && h('p', { class: 'muted' }, 'This server has demo users, for a first look on this machine.'),
    oidc && button('Sign in', () => goToProvider(oidc), { class: 'primary wide' }),
    h('div', { class: 'stack' }, ...demo),
    demo.length > 0 || oidc ? h('details', {}, h('summary', {}, oidc ? 'Use tokens' : 'Use a token'), tokens) : tokens,
    h('p', { class: 'muted small' }, oidc ? 'Tokens stay in this page and are forgotten with it.' : 'Tokens stay in this tab and are forgotten with it.'),
  );
}
