//! Claims of one token, read after its signature was verified.

use serde::Deserialize;
use serde_json::Value;

use super::token::Unfit;
use crate::time::Timestamp;

/// The latest time that a claim may name: the end of the year 9999, in seconds.
const LATEST_SECONDS: f64 = 253_402_300_799.0;

/// Claims of a token that was signed by the issuer. `nbf` may be missing: neither Auth0 nor Keycloak nor Cognito puts it
/// into every token, and `exp` bounds the delay that it would bring. Cognito's access tokens have no `aud` either.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Option<Names>,
    pub(super) exp: NumericDate,
    pub(super) nbf: Option<NumericDate>,
    pub(super) iat: Option<NumericDate>,
    /// The client that the token was made for, by OpenID Connect and Entra ID v2.
    azp: Option<String>,
    /// The client by RFC 9068 and Cognito.
    client_id: Option<String>,
    /// The client by Okta.
    cid: Option<String>,
    /// The client by Entra ID v1.
    appid: Option<String>,
    pub(super) at_hash: Option<String>,
    /// Kind of the token, by Keycloak.
    pub(super) typ: Option<String>,
    /// Kind of the token, by Cognito.
    pub(super) token_use: Option<String>,
    #[serde(flatten)]
    rest: Value,
}

/// A claim that is a text or a list of texts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Many(Vec<String>),
}

impl Names {
    pub(super) fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// Returns whether one of these names is among the given ones.
    pub(super) fn has_any(&self, names: &[String]) -> bool {
        self.all().iter().any(|name| names.contains(name))
    }
}

/// A moment as RFC 7519 §2 writes it: seconds since the epoch, which may have a fraction.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct NumericDate(Timestamp);

impl TryFrom<f64> for NumericDate {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        if !(0.0..=LATEST_SECONDS).contains(&seconds) {
            return Err("a time is from 1970 to 9999");
        }
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked above")]
        let milliseconds = (seconds * 1_000.0).floor() as i64;
        Ok(Self(Timestamp::from_ms(milliseconds)))
    }
}

impl NumericDate {
    pub(super) fn at(self) -> Timestamp {
        self.0
    }
}

impl Claims {
    /// Returns the clients that the token names. More than one claim may name one.
    pub(super) fn clients(&self) -> impl Iterator<Item = &String> {
        [&self.azp, &self.client_id, &self.cid, &self.appid].into_iter().flatten()
    }

    /// Returns the authorized party of an ID token.
    pub(super) fn authorized_party(&self) -> Option<&String> {
        self.azp.as_ref()
    }

    /// Returns the names in a claim, none if it is missing or of another shape.
    pub(super) fn names(&self, claim: &str) -> Vec<&str> {
        match claim {
            "aud" => self.aud.iter().flat_map(Names::all).map(String::as_str).collect(),
            "azp" => self.azp.as_deref().into_iter().collect(),
            "client_id" => self.client_id.as_deref().into_iter().collect(),
            "cid" => self.cid.as_deref().into_iter().collect(),
            "appid" => self.appid.as_deref().into_iter().collect(),
            _ => match self.rest.get(claim) {
                Some(Value::String(name)) => vec![name],
                Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
                _ => vec![],
            },
        }
    }

    /// Returns a claim that is a text.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        if claim == "sub" { Some(&self.sub) } else { self.rest.get(claim)?.as_str() }
    }

    /// Returns a claim by its name or its JSON pointer, unless it is one that this type has a field for.
    pub(super) fn find(&self, claim: &str) -> Option<&Value> {
        if claim.starts_with('/') { self.rest.pointer(claim) } else { self.rest.get(claim) }
    }

    /// Returns whether a claim has this value, as text, number or truth value, by itself or in a list.
    pub(super) fn has(&self, claim: &str, value: &str) -> bool {
        let is_it = |found: &Value| match found {
            Value::String(text) => text == value,
            Value::Bool(truth) => value == if *truth { "true" } else { "false" },
            Value::Number(number) => number.to_string() == value,
            _ => false,
        };
        let in_rest = match self.rest.get(claim) {
            Some(Value::Array(values)) => values.iter().any(is_it),
            Some(found) => is_it(found),
            None => false,
        };
        in_rest || self.text(claim) == Some(value) || self.names(claim).contains(&value)
    }

    /// Returns whether the token says of itself that it grants access, as an ID token never does.
    pub(super) fn grants_access(&self) -> bool {
        let is_there = |claim: &str| self.rest.get(claim).is_some_and(|value| !value.is_null());
        is_there("scp") || is_there("scope") || self.token_use.as_deref() == Some("access")
    }

    /// Returns whether the token has a claim that only ID tokens have, or says that it is of another kind.
    pub(super) fn is_of_another_kind_than_access(&self) -> bool {
        self.at_hash.is_some()
            || self.rest.get("nonce").is_some()
            || self.typ.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
            || self.token_use.as_deref().is_some_and(|kind| kind != "access")
    }

    /// Returns whether the token says that it is of another kind than an ID token.
    pub(super) fn is_of_another_kind_than_id(&self) -> bool {
        self.typ.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("id"))
            || self.token_use.as_deref().is_some_and(|kind| kind != "id")
    }

    /// Refuses a token that is over, or that begins later than the issuer's clock may be ahead of ours.
    pub(super) fn in_time(&self, now: Timestamp, latest: Timestamp) -> Result<(), Unfit> {
        super::require(now < self.exp.at(), "the token is over")?;
        let begun = [self.nbf, self.iat].into_iter().flatten().all(|time| time.at() <= latest);
        super::require(begun, "the token is not good yet")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: &Value) -> Result<Claims, serde_json::Error> {
        let mut claims = json!({"iss": "https://auth.example", "sub": "ada", "exp": 2_000_000_000});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(claims)
    }

    #[test]
    fn times_may_have_a_fraction_and_no_other_odd_shape() {
        for (exp, expected) in [
            (json!(2_000_000_000), Some(2_000_000_000_000)),
            (json!(2_000_000_000.75), Some(2_000_000_000_750)),
            (json!(2e9), Some(2_000_000_000_000)),
            (json!(0.0), Some(0)),
            (json!(-1), None),
            (json!(-0.5), None),
            (json!(1e300), None),
            (json!(253_402_300_800_i64), None),
            (json!("2000000000"), None),
            (json!([2_000_000_000]), None),
            (json!(null), None),
            (json!(true), None),
        ] {
            let found = read(&json!({"exp": exp})).ok().map(|claims| claims.exp.at().as_ms());
            assert_eq!(found, expected, "{exp}");
        }
    }

    #[test]
    fn a_claim_has_a_value_by_itself_or_in_a_list() {
        let claims = read(&json!({
            "hd": "example.org", "groups": ["a", "b"], "email_verified": true, "level": 3,
            "aud": ["x", "y"], "azp": "web", "object": {"a": "b"},
        }));
        let claims = claims.unwrap();
        for (claim, value, has) in [
            ("hd", "example.org", true),
            ("hd", "example.com", false),
            ("hd", "", false),
            ("groups", "b", true),
            ("groups", "c", false),
            ("email_verified", "true", true),
            ("email_verified", "false", false),
            ("level", "3", true),
            ("aud", "y", true),
            ("azp", "web", true),
            ("sub", "ada", true),
            ("object", "b", false),
            ("missing", "", false),
        ] {
            assert_eq!(claims.has(claim, value), has, "{claim}={value}");
        }
    }
}
