/** A certified OpenID Connect provider with a client for the console: `oidc-provider`, with its own pages for sign-in. */

import http from 'node:http';
import { Provider } from 'oidc-provider';

/** The name that the provider has for Parley's API. */
export const API = 'https://parley.example/api';
export const CLIENT = 'parley-console';
/** Lifetime of access and ID tokens in seconds: short, so that a test sees several. */
export const TOKEN_SECONDS = 8;

/** Starts to listen; `serve` is to follow once the console's address is known. */
export async function startProvider() {
  let answer = (_request, response) => response.writeHead(503).end();
  const server = http.createServer((request, response) => answer(request, response));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const all = {
    issuer,
    /** Grants of the token endpoint, in their order. @type {string[]} */
    grants: [],
    /** @param {string} origin Of the console. */
    serve(origin) {
      const provider = new Provider(issuer, {
        clients: [
          {
            client_id: CLIENT,
            token_endpoint_auth_method: 'none',
            grant_types: ['authorization_code', 'refresh_token'],
            redirect_uris: [`${origin}/console/signed-in`],
            post_logout_redirect_uris: [`${origin}/`],
          },
        ],
        clientBasedCORS: (_context, from) => from === origin,
        pkce: { required: () => true },
        claims: { openid: ['sub'], profile: ['name'] },
        conformIdTokenClaims: false,
        findAccount: (_context, id) => ({
          accountId: id,
          claims: () => ({ sub: id, name: id[0].toUpperCase() + id.slice(1) }),
        }),
        cookies: { keys: ['for tests alone'] },
        features: {
          devInteractions: { enabled: true },
          revocation: { enabled: true },
          resourceIndicators: {
            enabled: true,
            getResourceServerInfo: () => ({
              scope: '',
              audience: API,
              accessTokenFormat: 'jwt',
              accessTokenTTL: TOKEN_SECONDS,
              jwt: { sign: { alg: 'RS256' } },
            }),
          },
        },
        ttl: {
          AccessToken: TOKEN_SECONDS,
          IdToken: TOKEN_SECONDS,
          RefreshToken: 3_600,
          Grant: 3_600,
          Session: 3_600,
          Interaction: 600,
        },
      });
      // Its pages ask for a font of another origin, and a test asks nobody else.
      provider.use(async (context, next) => {
        if (context.path === '/favicon.ico') return (context.status = 204);
        await next();
        if (typeof context.body === 'string') context.body = context.body.replace(/@import url\(https:[^)]*\);/g, '');
      });
      provider.on('grant.success', (context) => all.grants.push(context.oidc.params.grant_type));
      provider.on('server_error', (_context, error) => console.error(error));
      answer = provider.callback();
    },
    stop: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
  return all;
}
