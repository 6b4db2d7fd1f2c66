/** @file Who is signed in, in this tab: the credentials go with the tab, and nowhere else. */

import { ChatApi } from '@parley/client';

const KEY = 'parley:account';

/**
 * @typedef {object} Config
 * @property {string} auth_mode
 * @property {string | null} proc_url
 * @property {{user: string, name: string, token: string}[]} demo_users
 */

/** What the server says of itself. @returns {Promise<Config>} */
export const configuration = () => new ChatApi().get('/console/config.json');

/** @returns {{token?: string, idToken?: string, sessionId?: string} | null} */
function stored() {
  return JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
}

/** A user's way to both services. */
export class Account {
  /** @type {import('../../client/src/wire.js').Me} */
  me = /** @type {any} */ (null);

  /**
   * @param {Config} config
   * @param {{token?: string, idToken?: string, sessionId?: string}} credentials
   * @param {() => void} onSignedOut
   */
  constructor(config, credentials, onSignedOut) {
    this.credentials = credentials;
    const refused = () => {
      if (this.me) onSignedOut();
      throw new Error(this.me ? 'You are signed out. Please sign in again.' : 'The server does not know who that is.');
    };
    // Absolute, as some parts of the page have no base of their own.
    const ingressUrl = location.origin;
    this.api = new ChatApi({
      ingressUrl,
      procUrl: config.proc_url ?? ingressUrl,
      ...credentials,
      onUnauthorized: refused,
    });
  }

  /** Proves the credentials, and keeps them for this tab. */
  async enter() {
    this.me = await this.api.me();
    sessionStorage.setItem(KEY, JSON.stringify({ ...this.credentials, sessionId: this.api.sessionId }));
    return this;
  }

  get isAdmin() {
    return this.me.roles.includes('admin');
  }

  /** Ends the session on every instance. */
  async leave() {
    forget();
    await this.api.endSession(this.api.sessionId).catch(() => {});
  }
}

/** Forgets who was signed in. */
export const forget = () => sessionStorage.removeItem(KEY);

/**
 * Comes back after a reload; with a login service before the server, cookies say who it is.
 * @param {Config} config
 * @param {() => void} onSignedOut
 */
export async function comeBack(config, onSignedOut) {
  const credentials = stored();
  if (!credentials && config.auth_mode !== 'oidc') return null;
  try {
    return await new Account(config, credentials ?? {}, onSignedOut).enter();
  } catch {
    forget();
    return null;
  }
}
