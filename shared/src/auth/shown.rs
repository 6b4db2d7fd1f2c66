//! Credential that a request shows, by digest alone: budgets and caches are kept by it, and no token stays in memory.

use http::request::Parts;
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};

use super::{Auth, Credentials, Identity, Issuer, Refused, Route, tickets};
use crate::http::{ClaimedSession, claimed_session};

/// Digest of the one credential that counts for a request.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shown {
    digest: [u8; 32],
    is_ticket: bool,
}

impl Shown {
    /// Returns the digest.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Returns whether the credential is good for one stream alone.
    pub(crate) fn is_ticket(&self) -> bool {
        self.is_ticket
    }
}

impl Auth {
    /// Returns the digest of the credential that counts for a request, `None` if there is none that can be read. Neither
    /// other cookies nor the rest of the query change the digest of a token. A ticket is digested with the query and the
    /// session: a ticket that does not fit one stream may fit another.
    pub(crate) fn shown(&self, parts: &Parts, route: Route) -> Option<Shown> {
        let config = &self.inner.config;
        if route == Route::Stream
            && let Some(ticket) = tickets::in_query(parts, config.allow_query_tokens)
        {
            let session = match claimed_session(parts) {
                Some(ClaimedSession::Shown(session)) => session.to_string(),
                _ => String::new(),
            };
            let query = parts.uri.query().unwrap_or_default();
            let digest = digest(&["ticket", ticket.expose_secret(), query, &session]);
            return Some(Shown { digest, is_ticket: true });
        }
        let shown = Credentials::of(parts, route, config).ok()?;
        // A static token alone decides, whatever stands beside it.
        let id = shown.id.as_ref().filter(|_| matches!(self.inner.issuer, Issuer::Oidc(_)));
        let id = id.map_or("", |id| id.expose_secret());
        let digest = digest(&["token", shown.access.expose_secret(), id]);
        Some(Shown { digest, is_ticket: false })
    }

    /// Verifies the credential of a request without a session and without spending a ticket. Returns the identity of a
    /// token, `None` for a ticket that is good.
    pub(crate) async fn vouch(
        &self,
        parts: &Parts,
        route: Route,
    ) -> Result<Option<Identity>, Refused> {
        let now = self.now();
        if route == Route::Stream
            && let Some(ticket) = tickets::in_query(parts, self.inner.config.allow_query_tokens)
        {
            self.ticket_user(parts, &ticket, now).await?;
            return Ok(None);
        }
        self.verify(parts, route, now).await.map(Some)
    }
}

/// Lengths come first, so that no two lists of texts are the same bytes.
fn digest(texts: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.len().to_le_bytes());
        digest.update(text);
    }
    digest.finalize().into()
}
