//! Settings of authentication.

use std::path::PathBuf;

use jsonwebtoken::{Algorithm, AlgorithmFamily};

/// Settings of authentication.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct AuthConfig {
    /// How callers prove who they are.
    #[arg(long, env = "AUTH_MODE", value_enum, default_value = "simple")]
    pub auth_mode: AuthMode,
    /// JSON file of users for `simple` mode: `[{"user", "name", "token", "roles", "expires_at"}]`. Without it: demo users on loopback.
    #[arg(long, env = "AUTH_USERS_FILE")]
    pub auth_users_file: Option<PathBuf>,
    #[command(flatten)]
    pub oidc: OidcConfig,
    /// Name of the cookie that holds the access token.
    #[arg(long, env = "AUTH_TOKEN_COOKIE_NAME", default_value = "__Secure-LATC")]
    pub auth_token_cookie_name: String,
    /// Name of the cookie that holds the ID token.
    #[arg(long, env = "ID_TOKEN_COOKIE_NAME", default_value = "__Secure-LITC")]
    pub id_token_cookie_name: String,
    /// Whether streams take `bearer_token` and `id_token` in the query, for `EventSource`, which cannot send headers.
    #[arg(long, env = "ALLOW_QUERY_TOKENS", default_value_t = true, action = clap::ArgAction::Set)]
    pub allow_query_tokens: bool,
}

/// How callers prove who they are.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMode {
    /// One static token a user.
    Simple,
    /// Access and ID token of an OpenID Connect issuer, or the ID token alone.
    Oidc,
}

/// Settings of `oidc` mode. `docs/sign-in.md` lists what to set for each provider.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct OidcConfig {
    /// The issuer of `oidc` mode, exactly as its tokens name it: an `https` URL. Its discovery document lists the keys.
    #[arg(long, env = "OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,
    /// Other names that the same issuer has in `iss`, comma separated. The keys of `OIDC_ISSUER` sign their tokens too.
    #[arg(long, env = "OIDC_ISSUER_ALIASES", value_delimiter = ',')]
    pub oidc_issuer_aliases: Vec<String>,
    /// The audience of access tokens: the name that the issuer has for this API. A list, comma separated, where it has several.
    #[arg(long, env = "OIDC_AUDIENCE", value_delimiter = ',')]
    pub oidc_audience: Vec<String>,
    /// Claim of the access token that counts as its audience; `client_id` for Cognito, whose access tokens have no `aud`.
    #[arg(long, env = "OIDC_AUDIENCE_CLAIM", default_value = "aud")]
    pub oidc_audience_claim: String,
    /// The clients that users sign in with, comma separated: audiences of ID tokens, and the clients of access tokens.
    #[arg(long, env = "OIDC_CLIENT_ID", value_delimiter = ',')]
    pub oidc_client_id: Vec<String>,
    /// Claim that is the user's id: of the access token, and after a comma of the ID token where it has another name there.
    #[arg(long, env = "OIDC_USER_CLAIM", default_value = "sub", value_delimiter = ',')]
    pub oidc_user_claim: Vec<String>,
    /// Takes an ID token alone as the bearer token, for providers whose access tokens only they can read. It gives no role.
    #[arg(long, env = "OIDC_ID_TOKEN_ONLY", default_value_t = false, action = clap::ArgAction::Set)]
    pub oidc_id_token_only: bool,
    /// Claims that the access token must have (the ID token where it comes alone): `name=value`, comma separated.
    #[arg(long, env = "OIDC_REQUIRED_CLAIM", value_delimiter = ',')]
    pub oidc_required_claim: Vec<String>,
    /// Claim of the access token that lists the user's roles: its name, or a JSON pointer such as `/realm_access/roles`.
    #[arg(long, env = "OIDC_ROLES_CLAIM", default_value = "roles")]
    pub oidc_roles_claim: String,
    /// Signature algorithms that are taken, comma separated; none that has a shared secret.
    #[arg(long, env = "OIDC_ALGORITHMS", default_value = "RS256,ES256", value_delimiter = ',', value_parser = algorithm)]
    pub oidc_algorithms: Vec<Algorithm>,
    /// The client that the console signs in with, a public one with PKCE. Default: the first of `OIDC_CLIENT_ID`.
    #[arg(long, env = "OIDC_CONSOLE_CLIENT_ID")]
    pub oidc_console_client_id: Option<String>,
    /// Scopes that the console asks for. Without `offline_access` many providers give no refresh token.
    #[arg(long, env = "OIDC_CONSOLE_SCOPE", default_value = "openid profile offline_access")]
    pub oidc_console_scope: String,
    /// What the console adds to its request for a sign-in: `name=value`, comma separated, such as Auth0's `audience=…`.
    #[arg(long, env = "OIDC_CONSOLE_PARAMETERS", value_delimiter = ',')]
    pub oidc_console_parameters: Vec<String>,
    /// Path of the console's redirect URI: `/`, or one beneath `/console/`. Signing out comes back to `/`.
    #[arg(long, env = "OIDC_CONSOLE_REDIRECT_PATH", default_value = "/console/signed-in")]
    pub oidc_console_redirect_path: String,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let algorithm: Algorithm = text.parse().map_err(|_| "no such algorithm".to_owned())?;
    if algorithm.family() == AlgorithmFamily::Hmac {
        return Err("who can check an HMAC can also make one".into());
    }
    Ok(algorithm)
}
