/** @file The user who is signed in, in this tab. */

import { ChatApi } from '@parley/client';
import { goToProvider, returned } from './provider.js';

/** Credentials of `simple` mode; with a provider, only the session, since its tokens are never stored. */
const KEY = 'parley:account';

/**
 * @typedef {object} Config
 * @property {string} auth_mode
 * @property {string | null} proc_url
 * @property {{user: string, name: string, token: string}[]} demo_users
 * @property {import('./provider.js').Settings | null} oidc
 *
 * @typedef {{token?: string, idToken?: string, sessionId?: string}} Credentials
 */

/** What the server says of itself. @returns {Promise<Config>} */
export const configuration = () => new ChatApi().get('/console/config.json');

/** @returns {(Credentials & {provider?: boolean}) | null} */
function stored() {
  return JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
}

/** A user's way to both services. */
export class Account {
  /** @type {import('../../client/src/wire.js').Me} */
  me = /** @type {any} */ (null);

  /**
   * @param {Config} config
   * @param {Credentials} credentials
   * @param {() => void} onSignedOut
   * @param {import('./provider.js').Provider | null} [provider] Where the tokens come from.
   */
  constructor(config, credentials, onSignedOut, provider = null) {
    this.config = config;
    this.credentials = credentials;
    this.provider = provider;
    // Absolute, as some parts of the page have no base of their own.
    const ingressUrl = location.origin;
    this.api = new ChatApi({
      ingressUrl,
      procUrl: config.proc_url ?? ingressUrl,
      ...credentials,
      ...(provider && { token: () => provider.token(), idToken: () => provider.idToken() }),
      onUnauthorized: async () => {
        if (await this.#renewed()) return;
        if (this.me) onSignedOut();
        throw new Error(this.me ? 'You are signed out. Please sign in again.' : 'The server does not know who that is.');
      },
    });
  }

  /** Proves the credentials, and keeps for this tab what may be kept. */
  async enter() {
    this.me = await this.api.me();
    const { sessionId } = this.api;
    if (this.provider) sessionStorage.setItem(KEY, JSON.stringify({ provider: true, sessionId }));
    else if (this.config.auth_mode !== 'oidc')
      sessionStorage.setItem(KEY, JSON.stringify({ ...this.credentials, sessionId }));
    return this;
  }

  get isAdmin() {
    return this.me.roles.includes('admin');
  }

  /** Ends the user's other sessions, on every instance. */
  async endOthers() {
    await this.api.endSession();
  }

  /** Ends the session on every instance, and the provider's session. */
  async leave() {
    forget();
    await this.api.endSession(this.api.sessionId).catch(() => {});
    await this.provider?.end();
  }

  /** Whether new tokens were fetched and are taken: a session that was ended stays so with any token. */
  async #renewed() {
    const { provider } = this;
    if (!provider) return false;
    try {
      await provider.renew();
    } catch {
      return false;
    }
    const headers = await this.api.headers();
    const response = await fetch('/api/auth/me', { headers, cache: 'no-store' }).catch(() => null);
    return response?.status !== 401;
  }
}

/** Forgets who was signed in. */
export const forget = () => sessionStorage.removeItem(KEY);

/**
 * Comes back from the provider or after a reload; with a login service before the server, cookies say who it is.
 * @param {Config} config
 * @param {() => void} onSignedOut
 */
export async function comeBack(config, onSignedOut) {
  const { provider: hadProvider, ...credentials } = stored() ?? {};
  if (config.oidc) {
    const isAnswer = new URLSearchParams(location.search).has('state') || location.pathname !== '/';
    const provider = await returned(config.oidc).catch((error) => {
      forget();
      throw error;
    });
    const enter = (/** @type {Credentials} */ those) => new Account(config, those, onSignedOut, provider).enter();
    // The session before is another's if another user signed in at the provider since.
    if (provider) return enter(credentials).catch((error) => (error.status === 403 ? enter({}) : Promise.reject(error)));
    if (hadProvider) {
      // The tokens went with the page before; the provider may still know the user, but is asked only once.
      if (!isAnswer) await goToProvider(config.oidc, { silent: true });
      forget();
      return null;
    }
  } else if (!credentials.token) return null;
  try {
    return await new Account(config, credentials, onSignedOut).enter();
  } catch {
    forget();
    return null;
  }
}
