//! One token: what its head may say, before anything of it is believed.

use jsonwebtoken::{Algorithm, decode_header};

/// The longest token in bytes: half of the longest head. Providers list hundreds of groups in one.
const MAX_BYTES: usize = 16 * 1024;

/// A token whose head is in order; nothing is verified yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// The key that the head names; issuers with a single key may name none.
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    /// The head's `typ` in lower case.
    pub(super) kind: Option<String>,
}

/// Why a pair of tokens is not taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A token is wrong, for the operator's eyes.
    Token(&'static str),
    /// The signature is not by the key.
    Signature,
    /// The token names a key that the issuer does not have, or not yet.
    NoSuchKey,
    /// The issuer vouches for a user, but the user claim is missing or no text of 1 to 255 characters.
    UserClaim,
    /// The issuer's keys were never there.
    NoKeys,
}

impl<'a> Token<'a> {
    /// Reads the head. Fields that say where a key lies (`jku`, `x5u`, `x5c`) are ignored: keys come from the issuer alone.
    /// A head with a whole key of its own is refused.
    pub(super) fn parse(text: &'a str) -> Result<Self, Unfit> {
        if text.len() > MAX_BYTES {
            return Err(Unfit::Token("the token is too long"));
        }
        let head = decode_header(text).map_err(|_| Unfit::Token("the head cannot be read"))?;
        if head.jwk.is_some() || head.url.is_some() {
            return Err(Unfit::Token("the head brings its own key"));
        }
        let is_more_than_signed = head.crit.is_some()
            || head.enc.is_some()
            || head.zip.is_some()
            || head.cty.is_some()
            || head.extras.inner().contains_key("b64");
        if is_more_than_signed {
            return Err(Unfit::Token("the head asks for more than a signature"));
        }
        let kind = head.typ.map(|kind| kind.to_ascii_lowercase());
        Ok(Self { text, kid: head.kid, algorithm: head.alg, kind })
    }

    /// Returns whether the head says that it is an access token, as RFC 9068 has it.
    pub(super) fn is_at_jwt(&self) -> bool {
        matches!(self.kind.as_deref(), Some("at+jwt" | "application/at+jwt"))
    }
}
