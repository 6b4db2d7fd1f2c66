//! Sign-in of the console: a public client that uses the code flow with PKCE.

use anyhow::{Context, ensure};
use http::Uri;
use serde::Serialize;

use crate::auth::OidcConfig;

/// What the console needs to sign a user in with the issuer. Nothing of it is secret.
#[derive(Clone, Debug, Serialize)]
pub struct ConsoleSignIn {
    /// The issuer, whose discovery document names its endpoints.
    pub issuer: String,
    /// The console's client.
    pub client_id: String,
    /// Scopes to ask for.
    pub scope: String,
    /// Further parameters of the authorization request.
    pub parameters: Vec<(String, String)>,
    /// Path of the redirect URI.
    pub redirect_path: String,
    /// True if the ID token is sent alone, in the place of the access token.
    pub id_token_only: bool,
    /// Origin of the issuer, which the page may connect to.
    #[serde(skip)]
    pub origin: String,
}

/// Parameters that the console sets itself.
const OWN_PARAMETERS: &[&str] = &[
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

impl ConsoleSignIn {
    pub(super) fn new(config: &OidcConfig, issuer: &str) -> anyhow::Result<Self> {
        let uri: Uri = issuer.parse().context("OIDC_ISSUER cannot be used: it is no URL")?;
        let (scheme, authority) =
            uri.scheme_str().zip(uri.authority()).context("OIDC_ISSUER is no URL")?;
        let own = config.oidc_console_client_id.as_ref().filter(|client| !client.is_empty());
        let client =
            own.or(config.oidc_client_id.first()).context("AUTH_MODE=oidc needs OIDC_CLIENT_ID")?;
        ensure!(
            config.oidc_client_id.contains(client),
            "OIDC_CONSOLE_CLIENT_ID is not in OIDC_CLIENT_ID, so its tokens would be refused: add it there"
        );
        let scope = config.oidc_console_scope.trim();
        ensure!(
            scope.split_whitespace().any(|scope| scope == "openid"),
            "OIDC_CONSOLE_SCOPE has no openid, and without it the provider gives no ID token"
        );
        Ok(Self {
            issuer: issuer.to_owned(),
            client_id: client.clone(),
            scope: scope.to_owned(),
            parameters: parameters(&config.oidc_console_parameters)?,
            redirect_path: redirect_path(&config.oidc_console_redirect_path)?,
            id_token_only: config.oidc_id_token_only,
            origin: format!("{scheme}://{authority}"),
        })
    }
}

fn parameters(settings: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let settings = settings.iter().filter(|setting| !setting.trim().is_empty());
    settings
        .map(|setting| {
            let (name, value) = setting.split_once('=').unwrap_or_default();
            ensure!(
                !name.is_empty() && !value.is_empty(),
                "OIDC_CONSOLE_PARAMETERS is name=value, for example audience=https://chat.example/api, and not {setting:?}"
            );
            ensure!(
                !OWN_PARAMETERS.contains(&name),
                "OIDC_CONSOLE_PARAMETERS cannot set {name}: the console sets it itself"
            );
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Takes `/`, or a path beneath `/console/` that no file of the console has.
fn redirect_path(path: &str) -> anyhow::Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c);
    let is_beneath = path.strip_prefix("/console/").is_some_and(|rest| {
        rest.split('/').all(|part| !part.is_empty()) && rest.chars().all(plain)
    });
    ensure!(
        path == "/" || is_beneath,
        "OIDC_CONSOLE_REDIRECT_PATH is / or a path beneath /console/ of letters, digits, - and _, and not {path:?}"
    );
    Ok(path.to_owned())
}
