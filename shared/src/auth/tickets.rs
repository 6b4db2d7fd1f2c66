//! Tickets: what a page that cannot send headers opens one stream with.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use http::{header, request::Parts};
use rand::{TryRng as _, rngs::SysRng};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{Auth, Refused, Roles, StreamUser, User};
use crate::{
    http::{ClaimedSession, claimed_session, query_value},
    ids::{ProjectId, SessionId},
    journal::Position,
    store::{Error, Reader, Row, Tx, Value},
    sweep,
    time::Timestamp,
};

/// How long a ticket can be spent.
const LIFETIME: Duration = Duration::from_secs(30);
/// How much of it nobody can guess.
const SECRET_BYTES: usize = 32;

/// A new ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    secret: SecretString,
}

impl Ticket {
    /// Mints a ticket from the system's randomness.
    pub fn mint() -> anyhow::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        SysRng.try_fill_bytes(&mut bytes).context("the system has no randomness")?;
        let mut secret = String::with_capacity(2 * SECRET_BYTES);
        for byte in bytes {
            write!(secret, "{byte:02x}")?;
        }
        Ok(Self { secret: secret.into() })
    }

    /// Returns what opens a stream.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Returns how long it can be spent.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        LIFETIME
    }

    /// Writes down for whom it opens a stream: of a project, or one that is of none.
    pub fn issue(
        &self,
        tx: &mut Tx<'_>,
        user: &User,
        project: Option<ProjectId>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let roles = serde_json::to_string(&user.roles.names()).map_err(|_| Error::Gone)?;
        let params = [
            Value::Bytes(&digest(self.secret())),
            (&user.id).into(),
            (&user.name).into(),
            (&roles).into(),
            (&user.session).into(),
            project.into(),
            user.expires_at.into(),
            now.after(LIFETIME).into(),
        ];
        let sql = "INSERT INTO tickets (digest, user_id, name, roles, session, project_id, token_expires_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        tx.execute(sql, &params).map(drop)
    }
}

/// What a ticket that was issued is good for.
#[derive(Clone, Debug)]
struct Issued {
    user: User,
    project: Option<ProjectId>,
    expires_at: Timestamp,
}

const ISSUED: &str = "SELECT user_id, name, roles, session, project_id, token_expires_at, expires_at \
                      FROM tickets WHERE digest = $1";

impl Issued {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        let user = User {
            id: row.get(0)?,
            name: row.get(1)?,
            roles: Roles::of(&row.json::<Vec<String>>(2)?),
            session: row.get(3)?,
            expires_at: row.get(5)?,
        };
        Ok(Self { user, project: row.get(4)?, expires_at: row.get(6)? })
    }

    /// Says whether it opens the stream that is asked for.
    fn opens(
        &self,
        project: Option<ProjectId>,
        session: Option<&SessionId>,
        now: Timestamp,
    ) -> bool {
        let token_expires_at = self.user.expires_at.unwrap_or(self.expires_at);
        self.project == project
            && session.is_none_or(|session| *session == self.user.session)
            && now < self.expires_at.min(token_expires_at)
    }
}

/// Returns the ticket that a request shows, if that is the credential which counts.
pub(super) fn in_query(parts: &Parts, query_tokens: bool) -> Option<SecretString> {
    let query = parts.uri.query().unwrap_or_default();
    let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
    let before = headers.any(|value| !value.is_empty())
        || query_tokens && query_value(query, "bearer_token").is_some();
    if before { None } else { query_value(query, "ticket").map(Into::into) }
}

/// A ticket that was shown and is good.
#[derive(Clone, Debug)]
pub(super) struct ShownTicket {
    digest: [u8; 32],
    project: Option<ProjectId>,
}

impl Auth {
    /// Finds whose the ticket is that a request shows. It is not spent by that.
    pub(super) async fn ticket_user(
        &self,
        parts: &Parts,
        ticket: &SecretString,
        now: Timestamp,
    ) -> Result<StreamUser, Refused> {
        self.require_access()?;
        let session = match claimed_session(parts) {
            None | Some(ClaimedSession::Minted(_)) => None,
            Some(ClaimedSession::Shown(session)) => Some(session),
            Some(ClaimedSession::Invalid) => return Err(Refused::InvalidSession),
        };
        let query = parts.uri.query().unwrap_or_default();
        let project = query_value(query, "project_id").or_else(|| query_value(query, "projectId"));
        let project = project.map(|project| project.parse::<ProjectId>()).transpose();
        let project = project.map_err(|_| Refused::Unauthenticated)?;
        let digest = digest(ticket.expose_secret());
        let find =
            move |reader: &Reader<'_>| reader.find(ISSUED, &[Value::Bytes(&digest)], Issued::read);
        let found = self.inner.sessions.store().read(find).await?;
        let issued = found.filter(|issued| issued.opens(project, session.as_ref(), now));
        let Issued { user, project, .. } = issued.ok_or(Refused::Unauthenticated)?;
        Ok(StreamUser { user, ticket: Some(ShownTicket { digest, project }) })
    }

    /// Deletes tickets that nobody has spent in time. Returns how many.
    pub async fn trim_tickets(&self, now: Timestamp) -> Result<usize, Error> {
        let step = move |tx: &mut Tx<'_>| {
            sweep::delete_some(tx, "tickets", "digest", "expires_at <= $1", &[now.into()])
        };
        sweep::delete_all(self.inner.sessions.store(), step).await
    }
}

impl StreamUser {
    /// Returns the project whose stream is the only one that the caller's ticket opens.
    #[must_use]
    pub fn only(&self) -> Option<ProjectId> {
        self.ticket.as_ref().and_then(|ticket| ticket.project)
    }

    /// Lets the caller in as [`User::require`] does, and spends the ticket: of all who show it, on whichever replica, one
    /// deletes it. A stream that is refused after all leaves it as it was, with its transaction.
    pub fn enter(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<Position, Refused> {
        if let Some(ShownTicket { digest, .. }) = &self.ticket {
            let sql = "DELETE FROM tickets WHERE digest = $1 AND expires_at > $2";
            if tx.execute(sql, &[Value::Bytes(digest), now.into()])? == 0 {
                return Err(Refused::Unauthenticated);
            }
        }
        self.user.require(tx, now)
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
