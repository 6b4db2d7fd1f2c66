/** @file Sign-in with an OpenID Connect provider: code flow with PKCE, refresh, and sign-out. Tokens stay in this page's memory. */

/**
 * @typedef {object} Settings
 * @property {string} issuer
 * @property {string} client_id
 * @property {string} scope
 * @property {[string, string][]} parameters
 * @property {string} redirect_path
 * @property {boolean} id_token_only
 *
 * @typedef {object} Endpoints What the console needs of the discovery document.
 * @property {string} issuer
 * @property {string} authorization_endpoint
 * @property {string} token_endpoint
 * @property {string} [end_session_endpoint]
 * @property {string} [revocation_endpoint]
 * @property {boolean} [authorization_response_iss_parameter_supported]
 *
 * @typedef {object} Tokens
 * @property {string} access
 * @property {string} id
 * @property {string | null} refresh
 * @property {number} expiresAt By this machine's clock: when the first of both ends.
 * @property {number} refreshAt
 */

/** Key of the request that is under way at the provider: its state, nonce and verifier, never a token. */
const REQUEST = 'parley:sign-in';
/** The longest margin before the end of a token in which a new one is fetched. */
const MAX_MARGIN_MS = 30_000;
/** Attempts to reach the provider before a refresh fails, with pauses of 1, 2, 4 and 8 s between them. */
const MAX_ATTEMPTS = 5;
/** Answers to `prompt=none` that only say that a person has to act. */
const NEEDS_PERSON = /^(login|consent|interaction|account_selection)_required$/;

/** A request that the provider refused for good; another attempt would not change it. */
class Refusal extends Error {}

/** @param {Uint8Array | ArrayBuffer} bytes */
function base64url(bytes) {
  const text = [...new Uint8Array(bytes)].map((byte) => String.fromCharCode(byte)).join('');
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/**
 * Reads the claims of a token that came from the token endpoint itself; the server verifies its signature.
 * @param {string} token
 */
function claimsOf(token) {
  const part = token.split('.')[1] ?? '';
  const bytes = Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Lets through only addresses that a browser opens as pages. @param {string} url */
function page(url) {
  const { protocol, href } = new URL(url);
  if (!/^https?:$/.test(protocol)) throw new Error(`The provider names an address that is no page: ${url}`);
  return href;
}

/** @param {Settings} settings @returns {Promise<Endpoints>} */
async function discover({ issuer }) {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const response = await fetch(url, { credentials: 'omit', cache: 'no-store' }).catch(() => null);
  if (!response?.ok) throw new Error('The provider for sign-in cannot be reached. Please try again.');
  const endpoints = await response.json();
  if (endpoints.issuer !== issuer) throw new Error('The discovery document is of another issuer.');
  return endpoints;
}

/** @param {Settings} settings */
const redirectUri = ({ redirect_path }) => location.origin + redirect_path;

/**
 * Goes to the provider. It comes back to the redirect path, where `returned` goes on.
 * @param {Settings} settings
 * @param {{silent?: boolean}} [options] `silent` comes back at once where a person would have to act.
 */
export async function goToProvider(settings, { silent = false } = {}) {
  if (!globalThis.crypto?.subtle) throw new Error('Sign-in needs HTTPS: this page was opened without it.');
  const { authorization_endpoint } = await discover(settings);
  const request = { state: random(), nonce: random(), verifier: random(), hash: location.hash, silent };
  sessionStorage.setItem(REQUEST, JSON.stringify(request));
  const url = new URL(page(authorization_endpoint));
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(request.verifier));
  const own = {
    response_type: 'code',
    client_id: settings.client_id,
    redirect_uri: redirectUri(settings),
    scope: settings.scope,
    state: request.state,
    nonce: request.nonce,
    code_challenge: base64url(digest),
    code_challenge_method: 'S256',
  };
  for (const [name, value] of Object.entries(own)) url.searchParams.set(name, value);
  for (const [name, value] of settings.parameters) url.searchParams.append(name, value);
  if (silent) url.searchParams.set('prompt', 'none');
  location.assign(url);
  // The page is left; nothing after this is to run.
  await new Promise(() => {});
}

/**
 * Finishes a sign-in that the provider has just answered. Returns nothing if there is none, or if a person has to act.
 * @param {Settings} settings
 * @returns {Promise<Provider | null>}
 */
export async function returned(settings) {
  const answer = new URLSearchParams(location.search);
  const stored = sessionStorage.getItem(REQUEST);
  sessionStorage.removeItem(REQUEST);
  if (!answer.has('state') && location.pathname === '/') return null;
  const request = JSON.parse(stored ?? 'null');
  // The code is of no use again, and the address is not for the history.
  history.replaceState(null, '', `/${request?.hash ?? location.hash}`);
  const error = answer.get('error');
  const code = answer.get('code');
  if (!code && !error) return null;
  if (!request || answer.get('state') !== request.state)
    throw new Error('This sign-in was not begun in this tab. Please sign in again.');
  const endpoints = await discover(settings);
  const iss = answer.get('iss');
  if (iss === null ? endpoints.authorization_response_iss_parameter_supported : iss !== settings.issuer)
    throw new Error('The answer is of another provider.');
  if (error) {
    if (request.silent && NEEDS_PERSON.test(error)) return null;
    throw new Error(`The provider refused the sign-in: ${answer.get('error_description') ?? error}`);
  }
  const provider = new Provider(settings, endpoints);
  await provider.exchange(/** @type {string} */ (code), request);
  return provider;
}

/** A user's tokens, kept fresh. */
export class Provider {
  /** @type {Tokens} */
  #tokens = /** @type {any} */ (null);
  /** @type {Promise<void> | null} */
  #refreshing = null;

  /** @param {Settings} settings @param {Endpoints} endpoints */
  constructor(settings, endpoints) {
    this.settings = settings;
    this.endpoints = endpoints;
  }

  /** Returns the token that requests carry as the bearer's, a new one if it is about to end. */
  async token() {
    const { refreshAt, expiresAt } = this.#tokens;
    if (Date.now() >= refreshAt && this.#tokens.refresh) {
      // A token that is still valid is used while the provider is away.
      await this.renew().catch((error) => {
        if (Date.now() >= expiresAt) throw error;
      });
    }
    return this.settings.id_token_only ? this.#tokens.id : this.#tokens.access;
  }

  /** Returns the ID token that goes with it. */
  idToken() {
    return this.settings.id_token_only ? null : this.#tokens.id;
  }

  /** Fetches new tokens, once for all who ask at the same time. Rejects when the provider gives none. */
  renew() {
    return (this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = null)));
  }

  /**
   * Exchanges the code of a sign-in for tokens.
   * @param {string} code
   * @param {{nonce: string, verifier: string}} request
   */
  async exchange(code, { nonce, verifier }) {
    const answer = await this.#post(this.endpoints.token_endpoint, {
      grant_type: 'authorization_code',
      code,
      redirect_uri: redirectUri(this.settings),
      code_verifier: verifier,
    });
    if (!answer.id_token || claimsOf(answer.id_token).nonce !== nonce)
      throw new Error('The ID token is not of this sign-in.');
    this.#take(answer);
  }

  /**
   * Forgets the tokens, has the provider forget the refresh token, and ends the provider's own session, which leaves this page.
   */
  async end() {
    const { refresh, id } = this.#tokens;
    const { revocation_endpoint, end_session_endpoint } = this.endpoints;
    if (refresh && revocation_endpoint)
      await this.#send(revocation_endpoint, { token: refresh, token_type_hint: 'refresh_token' }).catch(() => {});
    this.#tokens = { access: '', id: '', refresh: null, expiresAt: 0, refreshAt: 0 };
    if (!end_session_endpoint) return;
    const url = new URL(page(end_session_endpoint));
    url.searchParams.set('id_token_hint', id);
    url.searchParams.set('client_id', this.settings.client_id);
    url.searchParams.set('post_logout_redirect_uri', `${location.origin}/`);
    url.searchParams.set('state', random());
    location.assign(url);
    await new Promise(() => {});
  }

  async #refresh() {
    const { refresh } = this.#tokens;
    if (!refresh) throw new Refusal('The provider gave no refresh token.');
    this.#take(await this.#post(this.endpoints.token_endpoint, { grant_type: 'refresh_token', refresh_token: refresh }));
  }

  /** @param {any} answer */
  #take({ access_token, id_token, refresh_token, expires_in }) {
    // A provider may leave the ID token out of a refresh. The old one stays good until its end.
    const id = id_token ?? this.#tokens?.id;
    const { iss, aud, exp, iat } = claimsOf(id);
    if (iss !== this.settings.issuer || ![aud].flat().includes(this.settings.client_id))
      throw new Refusal('The ID token is of another provider or client.');
    const left = id_token ? exp - iat : exp - Date.now() / 1_000;
    const lastsMs = Math.min(expires_in ?? Infinity, left) * 1_000;
    const now = Date.now();
    this.#tokens = {
      access: access_token,
      id,
      // Some providers give a new one each time, and take none twice.
      refresh: refresh_token ?? this.#tokens?.refresh ?? null,
      expiresAt: now + lastsMs,
      refreshAt: now + lastsMs - Math.min(MAX_MARGIN_MS, lastsMs / 5),
    };
  }

  /** @param {string} url @param {Record<string, string>} fields @returns {Promise<any>} */
  async #post(url, fields) {
    for (let attempt = 1; ; attempt++) {
      const response = await this.#send(url, fields).catch(() => null);
      const isAway = !response || response.status >= 500 || response.status === 429;
      if (!isAway) {
        const answer = await response.json();
        if (!response.ok) throw new Refusal(answer.error_description ?? answer.error ?? 'The provider refused.');
        return answer;
      }
      if (attempt === MAX_ATTEMPTS) throw new Error('The provider for sign-in cannot be reached.');
      await new Promise((resolve) => setTimeout(resolve, 1_000 * 2 ** (attempt - 1)));
    }
  }

  /** @param {string} url @param {Record<string, string>} fields */
  #send(url, fields) {
    const body = new URLSearchParams({ ...fields, client_id: this.settings.client_id });
    // By RFC 8707 a token is for the resource that each request for one names.
    if (fields.grant_type)
      for (const [name, value] of this.settings.parameters) if (name === 'resource') body.append(name, value);
    return fetch(url, { method: 'POST', body, credentials: 'omit', cache: 'no-store', redirect: 'error' });
  }
}
