//! Where a request's credentials are, and whether the page that sent them may use them.

use http::{HeaderMap, HeaderName, header, request::Parts};
use secrecy::SecretString;

use super::{AuthConfig, Refused};
use crate::http::query_value;

const ID_TOKEN: HeaderName = HeaderName::from_static("x-id-token");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a route takes as credentials.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A stream takes tokens in the query too, and is opened by pages of its own origin only, though by GET.
    Stream,
    /// Any other route.
    Other,
}

/// What a request shows of its caller.
pub(super) struct Credentials {
    pub(super) access: SecretString,
    pub(super) id: Option<SecretString>,
    /// The browser has added the access token by itself, whoever made the page.
    pub(super) ambient: bool,
}

impl Credentials {
    /// Takes the first token found of each kind, which counts even if it is not valid. An empty one is none.
    pub(super) fn of(parts: &Parts, route: Route, config: &AuthConfig) -> Result<Self, Refused> {
        let query = match route {
            Route::Stream if config.allow_query_tokens => parts.uri.query().unwrap_or_default(),
            _ => "",
        };
        let headers = &parts.headers;
        let told = match single(headers, &header::AUTHORIZATION)? {
            Some(value) => {
                let (scheme, token) = value.split_once(' ').ok_or(Refused::Unauthenticated)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Refused::Unauthenticated);
                }
                Some(token.trim().into())
            }
            None => query_value(query, "bearer_token").map(SecretString::from),
        };
        let ambient = told.is_none();
        let access = told
            .or_else(|| cookie(headers, &config.auth_token_cookie_name))
            .ok_or(Refused::Unauthenticated)?;
        let id = match single(headers, &ID_TOKEN)? {
            Some(value) => Some(value.trim().into()),
            None => query_value(query, "id_token")
                .map(SecretString::from)
                .or_else(|| cookie(headers, &config.id_token_cookie_name)),
        };
        Ok(Self { access, id, ambient })
    }
}

/// Two of a header that proves something may be read differently by a proxy.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refused::Unauthenticated);
    }
    let value = value.filter(|value| !value.is_empty());
    value.map(|value| value.to_str().map_err(|_| Refused::Unauthenticated)).transpose()
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<SecretString> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, value)| *key == name && !value.is_empty())?;
    Some(value.into())
}

/// The origins whose pages may use a visitor's cookies, besides our own.
#[derive(Debug)]
pub(super) struct Origins(Vec<String>);

impl Origins {
    pub(super) fn new(origins: &[String]) -> Self {
        let origins = origins.iter().map(|origin| origin.trim());
        Self(origins.filter(|origin| !origin.is_empty()).map(str::to_owned).collect())
    }

    /// Says whether the page that made the request is of an origin that may. What is no browser says nothing of a page,
    /// and has no visitor whose cookies it could misuse. (The scheme of Go 1.25; the layer that tower-http has for it asks
    /// it of every request, also of those whose token is in a header.)
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let origin = text(&header::ORIGIN);
        if origin.is_some_and(|origin| self.0.iter().any(|allowed| allowed == origin)) {
            return true;
        }
        match (text(&SEC_FETCH_SITE), origin) {
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, None) => true,
            // A browser that does not say the site, or has no TLS.
            (None, Some(origin)) => {
                let authority = origin.split_once("://").map(|(_, authority)| authority);
                authority.is_some() && authority == text(&header::HOST)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(fields: &[(&'static str, &str)]) -> bool {
        let fields = fields.iter().map(|(name, value)| {
            (HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
        });
        Origins::new(&["https://app.example".into(), String::new()]).allow(&fields.collect())
    }

    #[test]
    fn pages_of_other_origins_may_not_use_cookies() {
        const HOST: (&str, &str) = ("host", "chat.example:8010");
        for (may, fields) in [
            (true, &[HOST][..]),
            (true, &[HOST, ("sec-fetch-site", "same-origin")]),
            (true, &[HOST, ("sec-fetch-site", "none")]),
            (false, &[HOST, ("sec-fetch-site", "same-site")]),
            (false, &[HOST, ("sec-fetch-site", "cross-site")]),
            (false, &[HOST, ("sec-fetch-site", "")]),
            (true, &[HOST, ("origin", "http://chat.example:8010")]),
            (false, &[HOST, ("origin", "http://chat.example")]),
            (false, &[HOST, ("origin", "http://chat.example:8010.evil.example")]),
            (false, &[HOST, ("origin", "null")]),
            (false, &[HOST, ("origin", "")]),
            (false, &[("origin", "null")]),
            (true, &[HOST, ("origin", "https://app.example")]),
            (true, &[HOST, ("origin", "https://app.example"), ("sec-fetch-site", "cross-site")]),
            (false, &[HOST, ("origin", "http://app.example"), ("sec-fetch-site", "cross-site")]),
            (false, &[HOST, ("origin", "https://app.example.evil.example")]),
            // What the browser says of the site stands above names that are alike.
            (
                false,
                &[HOST, ("origin", "http://chat.example:8010"), ("sec-fetch-site", "same-site")],
            ),
        ] {
            assert_eq!(allows(fields), may, "{fields:?}");
        }
    }
}
