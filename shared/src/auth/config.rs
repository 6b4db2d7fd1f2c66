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
    /// Access and ID token of an OpenID Connect issuer.
    Oidc,
}

/// Settings of `oidc` mode.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct OidcConfig {
    /// The issuer of `oidc` mode, exactly as its tokens name it: an `https` URL.
    #[arg(long, env = "OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,
    /// The audience of access tokens: the name that the issuer has for this API.
    #[arg(long, env = "OIDC_AUDIENCE")]
    pub oidc_audience: Option<String>,
    /// The client that users sign in with, which is the audience of ID tokens.
    #[arg(long, env = "OIDC_CLIENT_ID")]
    pub oidc_client_id: Option<String>,
    /// Claim of the access token that lists the user's roles: its name, or a JSON pointer such as `/realm_access/roles`.
    #[arg(long, env = "OIDC_ROLES_CLAIM", default_value = "roles")]
    pub oidc_roles_claim: String,
    /// Signature algorithms that are taken, comma separated; none that has a shared secret.
    #[arg(long, env = "OIDC_ALGORITHMS", default_value = "RS256,ES256", value_delimiter = ',', value_parser = algorithm)]
    pub oidc_algorithms: Vec<Algorithm>,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let algorithm: Algorithm = text.parse().map_err(|_| "no such algorithm".to_owned())?;
    if algorithm.family() == AlgorithmFamily::Hmac {
        return Err("who can check an HMAC can also make one".into());
    }
    Ok(algorithm)
}
