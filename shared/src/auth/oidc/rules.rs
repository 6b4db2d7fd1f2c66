//! Rules that tokens must keep, each by itself and together, as the settings say.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, decode, errors::ErrorKind};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{
    claims::Claims,
    keys::Key,
    require,
    token::{Token, Unfit},
};
use crate::{
    auth::{Identity, OidcConfig, Roles},
    ids::UserId,
    names::without_invisible,
    time::Timestamp,
};

/// How far the issuer's clock may be ahead of ours. At its end a token is no good at once, since streams that it opened
/// end then too.
const LEEWAY: Duration = Duration::from_secs(30);
/// The longest name to show, in characters.
const MAX_NAME_CHARS: usize = 128;
/// The longest claim that can be a user's id, in characters: OpenID Connect allows 255.
const MAX_USER_CLAIM_CHARS: usize = 255;

/// Claims that name a user for now: another user can have the same value later, and would be the first one then.
const REUSABLE_CLAIMS: &[&str] = &[
    "email",
    "upn",
    "preferred_username",
    "unique_name",
    "name",
    "nickname",
    "given_name",
    "family_name",
    "phone_number",
];
/// Claims that many users share, or that are another in each token.
const SHARED_CLAIMS: &[&str] = &[
    "iss",
    "aud",
    "azp",
    "client_id",
    "cid",
    "appid",
    "tid",
    "hd",
    "exp",
    "nbf",
    "iat",
    "auth_time",
    "jti",
    "nonce",
    "at_hash",
    "typ",
    "token_use",
    "scope",
    "scp",
    "roles",
    "groups",
];

/// Which tokens a caller shows.
#[derive(Debug)]
enum Shown {
    /// An access token for one of the audiences, and an ID token.
    Pair(Audiences),
    /// The ID token alone, in the place of the access token.
    IdAlone,
}

/// Rules for the audience of access tokens.
#[derive(Debug)]
struct Audiences {
    claim: String,
    names: Vec<String>,
    /// True if a client is an audience too, so that `aud` does not tell an access token from an ID token.
    include_client: bool,
}

/// A claim that a token must have.
#[derive(Debug)]
struct Required {
    claim: String,
    value: String,
}

/// Rules for the tokens of one issuer.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) issuer: String,
    issuers: Vec<String>,
    clients: Vec<String>,
    shown: Shown,
    required: Vec<Required>,
    access_user_claim: String,
    id_user_claim: String,
    roles_claim: String,
    algorithms: Vec<Algorithm>,
}

/// Returns the values of a list that are not empty, at least one.
fn listed(name: &str, values: &[String]) -> anyhow::Result<Vec<String>> {
    let values: Vec<_> = filled(values).collect();
    ensure!(!values.is_empty(), "AUTH_MODE=oidc needs {name}");
    Ok(values)
}

fn filled(values: &[String]) -> impl Iterator<Item = String> {
    values.iter().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl Rules {
    /// Reads the settings. Refuses combinations that would let in a token of another kind, or another user.
    pub(super) fn new(config: &OidcConfig) -> anyhow::Result<Self> {
        let issuer = config.oidc_issuer.clone().filter(|issuer| !issuer.is_empty());
        let issuer = issuer.context("AUTH_MODE=oidc needs OIDC_ISSUER")?;
        let clients = listed("OIDC_CLIENT_ID", &config.oidc_client_id)?;
        let required = required(&config.oidc_required_claim)?;
        let shown = if config.oidc_id_token_only {
            ensure!(
                !required.is_empty(),
                "OIDC_ID_TOKEN_ONLY=true needs OIDC_REQUIRED_CLAIM, for example hd=example.org: \
                 without it every account of the provider can sign in"
            );
            Shown::IdAlone
        } else {
            let names = listed("OIDC_AUDIENCE", &config.oidc_audience)?;
            let claim = config.oidc_audience_claim.trim().to_owned();
            ensure!(
                !claim.is_empty(),
                "OIDC_AUDIENCE_CLAIM is empty: it is the name of a claim, usually aud"
            );
            let include_client = names.iter().any(|name| clients.contains(name));
            Shown::Pair(Audiences { claim, names, include_client })
        };
        let (access_user_claim, id_user_claim) = user_claims(&config.oidc_user_claim)?;
        let issuers =
            [issuer.clone()].into_iter().chain(filled(&config.oidc_issuer_aliases)).collect();
        Ok(Self {
            issuer,
            issuers,
            clients,
            shown,
            required,
            access_user_claim,
            id_user_claim,
            roles_claim: config.oidc_roles_claim.clone(),
            algorithms: config.oidc_algorithms.clone(),
        })
    }

    /// Returns whether callers show an ID token alone.
    pub(super) fn take_id_token_alone(&self) -> bool {
        matches!(self.shown, Shown::IdAlone)
    }

    /// Refuses an access token by its head alone, before a key is looked for.
    pub(super) fn access_head(&self, token: &Token<'_>) -> Result<(), Unfit> {
        require(self.algorithms.contains(&token.algorithm), "the algorithm is not allowed")?;
        // Many issuers leave `typ` out or do not write `at+jwt`, so the claims have to tell the tokens apart too.
        let is_access = matches!(token.kind.as_deref(), None | Some("jwt")) || token.is_at_jwt();
        require(is_access, "`typ` is not of an access token")
    }

    /// Refuses an ID token by its head alone, before a key is looked for.
    pub(super) fn id_head(&self, token: &Token<'_>) -> Result<(), Unfit> {
        require(self.algorithms.contains(&token.algorithm), "the algorithm is not allowed")?;
        require(matches!(token.kind.as_deref(), None | Some("jwt")), "`typ` is not of an ID token")
    }

    /// Verifies an access token and returns its claims.
    pub(super) fn access(
        &self,
        token: &Token<'_>,
        key: &Key,
        now: Timestamp,
    ) -> Result<Claims, Unfit> {
        let Shown::Pair(audiences) = &self.shown else {
            return Err(Unfit::Token("an ID token alone is taken"));
        };
        let claims = self.verify(token, key, now)?;
        let names = claims.names(&audiences.claim);
        let is_for_us = names.iter().any(|name| audiences.names.iter().any(|ours| ours == name));
        require(is_for_us, "the audience of the access token is another")?;
        // A token for another API stays that, whatever its other claims say.
        let is_for_another = claims.aud.as_ref().is_some_and(|aud| !aud.has_any(&audiences.names));
        require(!is_for_another, "`aud` of the access token is another")?;
        let is_for_a_client = claims.aud.as_ref().is_some_and(|aud| aud.has_any(&self.clients));
        let is_access = !claims.is_of_another_kind_than_access()
            && if audiences.include_client {
                claims.grants_access() || token.is_at_jwt()
            } else {
                !is_for_a_client
            };
        require(is_access, "it is another token than an access token")?;
        let is_ours = claims.clients().all(|client| self.clients.contains(client));
        require(is_ours, "the access token is another client's")?;
        Ok(claims)
    }

    /// Verifies an ID token and returns its claims.
    pub(super) fn id(&self, token: &Token<'_>, key: &Key, now: Timestamp) -> Result<Claims, Unfit> {
        let claims = self.verify(token, key, now)?;
        let audience = claims.aud.as_ref().filter(|aud| aud.has_any(&self.clients));
        let audience = audience.ok_or(Unfit::Token("the audience of the ID token is another"))?;
        let must_not_grant = match &self.shown {
            Shown::Pair(audiences) => audiences.include_client,
            Shown::IdAlone => true,
        };
        let grants = must_not_grant && claims.grants_access();
        require(
            !grants && !claims.is_of_another_kind_than_id(),
            "it is another token than an ID token",
        )?;
        let is_ours = match claims.authorized_party() {
            Some(client) => self.clients.contains(client),
            None => audience.all().len() == 1,
        };
        require(is_ours, "the ID token is another client's")?;
        Ok(claims)
    }

    fn verify(&self, token: &Token<'_>, key: &Key, now: Timestamp) -> Result<Claims, Unfit> {
        // The library verifies the signature alone; every claim is looked at here. It wants no algorithms beside those of
        // the key's kind; that this one is allowed is known from the head.
        let mut validation = Validation::new(token.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = decode::<Claims>(token.text, &key.decoding, &validation).map_err(
            |error| match error.kind() {
                ErrorKind::InvalidSignature => Unfit::Signature,
                _ => Unfit::Token("a claim is wrong"),
            },
        )?;
        let claims = decoded.claims;
        require(self.issuers.contains(&claims.iss), "`iss` is not the issuer")?;
        claims.in_time(now, now.after(LEEWAY))?;
        Ok(claims)
    }

    /// Returns the bearer of both tokens, and until when they are good.
    pub(super) fn pair(
        &self,
        access: &Token<'_>,
        access_claims: &Claims,
        id: &Token<'_>,
        id_claims: &Claims,
    ) -> Result<Identity, Unfit> {
        let user = access_claims.text(&self.access_user_claim).ok_or(Unfit::UserClaim)?;
        let same = id_claims.text(&self.id_user_claim).ok_or(Unfit::UserClaim)?;
        require(user == same, "the tokens are of two users")?;
        if let Some(hash) = &id_claims.at_hash {
            let is_of_it = *hash == half_hash(access.text, id.algorithm);
            require(is_of_it, "`at_hash` is of another access token")?;
        }
        self.require_claims(access_claims)?;
        let mut identity = self.identity(user, id_claims)?;
        identity.expires_at = Some(access_claims.exp.min(id_claims.exp).at());
        identity.roles = self.roles(access_claims);
        Ok(identity)
    }

    /// Returns the bearer of an ID token that comes alone. It gives no role: an ID token is no grant.
    pub(super) fn alone(&self, claims: &Claims) -> Result<Identity, Unfit> {
        let user = claims.text(&self.id_user_claim).ok_or(Unfit::UserClaim)?;
        self.require_claims(claims)?;
        self.identity(user, claims)
    }

    fn require_claims(&self, claims: &Claims) -> Result<(), Unfit> {
        let has_all =
            self.required.iter().all(|Required { claim, value }| claims.has(claim, value));
        require(has_all, "a claim of OIDC_REQUIRED_CLAIM is missing or another")
    }

    fn identity(&self, user: &str, id_claims: &Claims) -> Result<Identity, Unfit> {
        let names = ["name", "preferred_username", "nickname"];
        let name = names.iter().find_map(|name| shown(id_claims.text(name)?));
        let id = self.user_id(user)?;
        let name = name.or_else(|| shown(user)).unwrap_or_else(|| id.to_string());
        let expires_at = Some(id_claims.exp.at());
        Ok(Identity { id, name, roles: Roles::default(), expires_at })
    }

    /// Returns the user's id: the claim itself where it is a valid id that nobody else's can be, else a derived one.
    fn user_id(&self, claim: &str) -> Result<UserId, Unfit> {
        let is_text = (1..=MAX_USER_CLAIM_CHARS).contains(&claim.chars().count())
            && !claim.chars().any(char::is_control);
        if !is_text {
            return Err(Unfit::UserClaim);
        }
        let own = claim.parse::<UserId>().ok().filter(|id| !id.is_reserved());
        Ok(own.unwrap_or_else(|| UserId::derive(&self.issuer, claim)))
    }

    /// Returns the roles that the access token lists. A claim of another shape gives none.
    fn roles(&self, access: &Claims) -> Roles {
        let admin = match access.find(&self.roles_claim) {
            Some(Value::Array(roles)) => roles.iter().any(|role| role == "admin"),
            Some(Value::String(roles)) => roles.split_whitespace().any(|role| role == "admin"),
            _ => false,
        };
        Roles { admin }
    }
}

fn required(settings: &[String]) -> anyhow::Result<Vec<Required>> {
    filled(settings)
        .map(|setting| {
            let (claim, value) = setting.split_once('=').unwrap_or_default();
            ensure!(
                !claim.is_empty() && !value.is_empty(),
                "OIDC_REQUIRED_CLAIM is name=value, for example hd=example.org, and not {setting:?}"
            );
            Ok(Required { claim: claim.into(), value: value.into() })
        })
        .collect()
}

/// Returns the claims of the access token and of the ID token that are the user's id.
fn user_claims(setting: &[String]) -> anyhow::Result<(String, String)> {
    let claims: Vec<_> = filled(setting).collect();
    for claim in &claims {
        ensure!(
            !REUSABLE_CLAIMS.contains(&claim.as_str()),
            "OIDC_USER_CLAIM cannot be {claim}: another person can get the same {claim} later and would be that user"
        );
        ensure!(
            !SHARED_CLAIMS.contains(&claim.as_str()),
            "OIDC_USER_CLAIM cannot be {claim}: it does not tell one user from another"
        );
    }
    match claims.as_slice() {
        [both] => Ok((both.clone(), both.clone())),
        [access, id] => Ok((access.clone(), id.clone())),
        _ => anyhow::bail!(
            "OIDC_USER_CLAIM names one claim, or one of the access token and one of the ID token"
        ),
    }
}

/// Returns the left half of the token's digest, by the hash of the ID token's signature.
fn half_hash(token: &str, algorithm: Algorithm) -> String {
    let digest = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => Sha384::digest(token).to_vec(),
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => Sha512::digest(token).to_vec(),
        _ => Sha256::digest(token).to_vec(),
    };
    URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2])
}

/// Returns a name as it can be stored and shown, `None` if nothing of it is left.
fn shown(name: &str) -> Option<String> {
    let name: String = without_invisible(name).chars().take(MAX_NAME_CHARS).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
