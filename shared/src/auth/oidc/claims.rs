//! What the two tokens have to say, each by itself and together.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{
    keys::Key,
    token::{Token, Unfit},
};
use crate::{
    auth::{Identity, OidcConfig, Roles},
    time::Timestamp,
};

/// How far the issuer's clock may be ahead of ours. At its end a token is no good at once, since streams that it opened
/// end then too.
const LEEWAY: Duration = Duration::from_secs(30);
/// The longest name to show, in characters.
const MAX_NAME_CHARS: usize = 128;

/// The claims of a token that was signed by the issuer. Of the registered ones, `nbf` alone may be missing: neither Auth0
/// nor Keycloak nor Cognito puts it into every token, and what it would delay, `exp` bounds.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
    azp: Option<String>,
    client_id: Option<String>,
    at_hash: Option<String>,
    /// What kind of token Keycloak says it is.
    typ: Option<String>,
    /// What kind of token Cognito says it is.
    token_use: Option<String>,
    #[serde(flatten)]
    rest: Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all().iter().any(|audience| audience == name)
    }
}

/// What is expected of tokens.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) issuer: String,
    client: String,
    roles_claim: String,
    algorithms: Vec<Algorithm>,
    access: Validation,
    id: Validation,
}

impl Rules {
    pub(super) fn new(config: &OidcConfig) -> anyhow::Result<Self> {
        let required = |name: &str, value: &Option<String>| {
            let value = value.clone().filter(|value| !value.is_empty());
            value.with_context(|| format!("AUTH_MODE=oidc needs {name}"))
        };
        let issuer = required("OIDC_ISSUER", &config.oidc_issuer)?;
        let audience = required("OIDC_AUDIENCE", &config.oidc_audience)?;
        let client = required("OIDC_CLIENT_ID", &config.oidc_client_id)?;
        ensure!(
            audience != client,
            "OIDC_AUDIENCE and OIDC_CLIENT_ID are the same: an ID token could not be told from an access token"
        );
        let validation = |audience: &str| {
            let mut validation = Validation::default();
            validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
            validation.set_issuer(&[&issuer]);
            validation.set_audience(&[audience]);
            // By `in_time`, with the time passed in and without a leeway at the end.
            validation.validate_exp = false;
            validation
        };
        Ok(Self {
            roles_claim: config.oidc_roles_claim.clone(),
            algorithms: config.oidc_algorithms.clone(),
            access: validation(&audience),
            id: validation(&client),
            issuer,
            client,
        })
    }

    /// Refuses by what the heads say alone, before any key is looked for.
    pub(super) fn heads(&self, access: &Token<'_>, id: &Token<'_>) -> Result<(), Unfit> {
        let allowed = |token: &Token<'_>| self.algorithms.contains(&token.algorithm);
        require(allowed(access) && allowed(id), "the algorithm is not allowed")?;
        // Not every issuer says it, and not all say `at+jwt`, so the claims have to tell the tokens apart too.
        let kind = access.kind.as_deref();
        let is_access = matches!(kind, None | Some("jwt" | "at+jwt" | "application/at+jwt"));
        require(is_access, "`typ` is not of an access token")?;
        require(matches!(id.kind.as_deref(), None | Some("jwt")), "`typ` is not of an ID token")
    }

    pub(super) fn access(
        &self,
        token: &Token<'_>,
        key: &Key,
        now: Timestamp,
    ) -> Result<Claims, Unfit> {
        let claims = self.verify(token, key, &self.access, now)?;
        let is_id = claims.aud.has(&self.client)
            || claims.at_hash.is_some()
            || claims.rest.get("nonce").is_some()
            || claims.typ.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
            || claims.token_use.as_deref().is_some_and(|kind| kind != "access");
        require(!is_id, "it is another token than an access token")?;
        let clients = [&claims.azp, &claims.client_id].into_iter().flatten();
        let is_ours = clients.into_iter().all(|client| *client == self.client);
        require(is_ours, "the access token is another client's")?;
        Ok(claims)
    }

    pub(super) fn id(&self, token: &Token<'_>, key: &Key, now: Timestamp) -> Result<Claims, Unfit> {
        let claims = self.verify(token, key, &self.id, now)?;
        let is_other = claims.typ.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("id"))
            || claims.token_use.as_deref().is_some_and(|kind| kind != "id");
        require(!is_other, "it is another token than an ID token")?;
        let is_ours = match &claims.azp {
            Some(client) => *client == self.client,
            None => claims.aud.all().len() == 1,
        };
        require(is_ours, "the ID token is another client's")?;
        Ok(claims)
    }

    fn verify(
        &self,
        token: &Token<'_>,
        key: &Key,
        validation: &Validation,
        now: Timestamp,
    ) -> Result<Claims, Unfit> {
        // The library wants none beside those of the key's kind; that this one is allowed is known from `heads`.
        let validation = Validation { algorithms: vec![token.algorithm], ..validation.clone() };
        let decoded = decode::<Claims>(token.text, &key.decoding, &validation)
            .map_err(|_| Unfit::Token("the signature or a claim is wrong"))?;
        let claims = decoded.claims;
        // The library would also take a list with the issuer in it.
        require(claims.iss == self.issuer, "`iss` is not the issuer")?;
        claims.in_time(now)?;
        Ok(claims)
    }

    /// Returns who the bearer of both tokens is, and until when.
    pub(super) fn pair(
        &self,
        access: &Token<'_>,
        access_claims: &Claims,
        id: &Token<'_>,
        id_claims: &Claims,
    ) -> Result<Identity, Unfit> {
        require(access_claims.sub == id_claims.sub, "the tokens are of two users")?;
        if let Some(hash) = &id_claims.at_hash {
            let is_of_it = *hash == half_hash(access.text, id.algorithm);
            require(is_of_it, "`at_hash` is of another access token")?;
        }
        let user = access_claims.sub.parse().map_err(|_| Unfit::Subject)?;
        let names = ["name", "preferred_username", "nickname"];
        let name = names.iter().find_map(|name| shown(id_claims.rest.get(*name)?.as_str()?));
        let name = name.unwrap_or_else(|| id_claims.sub.clone());
        let expires_at = seconds(access_claims.exp.min(id_claims.exp));
        let roles = self.roles(access_claims);
        Ok(Identity { id: user, name, roles, expires_at: Some(expires_at) })
    }

    /// Authorisation is what the access token says alone; what it says in another shape gives nothing.
    fn roles(&self, access: &Claims) -> Roles {
        let claim = match self.roles_claim.strip_prefix('/') {
            Some(_) => access.rest.pointer(&self.roles_claim),
            None => access.rest.get(&self.roles_claim),
        };
        let admin = match claim {
            Some(Value::Array(roles)) => roles.iter().any(|role| role == "admin"),
            Some(Value::String(roles)) => roles.split_whitespace().any(|role| role == "admin"),
            _ => false,
        };
        Roles { admin }
    }
}

impl Claims {
    fn in_time(&self, now: Timestamp) -> Result<(), Unfit> {
        require(now < seconds(self.exp), "the token is over")?;
        let latest = now.after(LEEWAY);
        let begun = [self.nbf, self.iat].into_iter().flatten().all(|time| seconds(time) <= latest);
        require(begun, "the token is not good yet")
    }
}

fn require(is_so: bool, otherwise: &'static str) -> Result<(), Unfit> {
    if is_so { Ok(()) } else { Err(Unfit::Token(otherwise)) }
}

fn seconds(since_epoch: u64) -> Timestamp {
    let seconds = i64::try_from(since_epoch).unwrap_or(i64::MAX);
    Timestamp::from_ms(seconds.saturating_mul(1_000))
}

/// The left half of the token's digest, by the hash of the ID token's signature.
fn half_hash(token: &str, algorithm: Algorithm) -> String {
    let digest = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => Sha384::digest(token).to_vec(),
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => Sha512::digest(token).to_vec(),
        _ => Sha256::digest(token).to_vec(),
    };
    URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2])
}

/// A name as it can be stored and shown; whoever has an odd one is let in all the same.
fn shown(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
