//! Who is calling: credentials, users, sessions.

mod ended;
mod sessions;
mod simple;
mod tickets;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header, request::Parts};
use secrecy::SecretString;

pub use self::{
    ended::{Ended, Endings},
    sessions::{Session, sessions_of},
    simple::Roles,
    tickets::Ticket,
};
use self::{sessions::Sessions, simple::Directory, tickets::ShownTicket};
use crate::{
    http::Failure,
    http::{claimed_session, query_value},
    ids::{SessionId, UserId},
    lifecycle::Lifecycle,
    store::{Error, Store},
    time::Timestamp,
};

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
    /// Name of the cookie that holds the access token.
    #[arg(long, env = "AUTH_TOKEN_COOKIE_NAME", default_value = "__Secure-LATC")]
    pub auth_token_cookie_name: String,
    /// Whether streams take `bearer_token` in the query, for `EventSource`, which cannot send headers.
    #[arg(long, env = "ALLOW_QUERY_TOKENS", default_value_t = true, action = clap::ArgAction::Set)]
    pub allow_query_tokens: bool,
}

/// How callers prove who they are.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthMode {
    /// One static token a user.
    Simple,
}

/// Knows every caller; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Auth {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: AuthConfig,
    directory: Directory,
    sessions: Sessions,
}

/// A caller who has proved who they are.
#[derive(Clone, Debug)]
pub struct User {
    /// The caller.
    pub id: UserId,
    /// The name to show.
    pub name: String,
    /// What the caller may do besides their memberships.
    pub roles: Roles,
    /// The session the call is in.
    pub session: SessionId,
    /// When the credential is no longer good, `None` if it stays good.
    pub expires_at: Option<Timestamp>,
}

/// A caller of a stream, who may have put the token or a ticket into the query. They are let in by
/// [`StreamUser::enter`], which spends the ticket.
#[derive(Clone, Debug)]
pub struct StreamUser {
    /// The caller.
    pub user: User,
    ticket: Option<ShownTicket>,
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("credentials are missing or not valid")]
    Unauthenticated,
    #[error("the session is another user's")]
    ForeignSession,
    #[error("a session id has 1 to 128 characters of A-Z a-z 0-9 . _ -")]
    InvalidSession,
    #[error(transparent)]
    Store(#[from] Error),
}

impl Auth {
    /// Reads the users and refuses what is unsafe: demo users anywhere but on loopback.
    pub fn new(config: &AuthConfig, store: Store, listen: SocketAddr) -> anyhow::Result<Self> {
        let AuthMode::Simple = config.auth_mode;
        let directory = match &config.auth_users_file {
            Some(file) => Directory::read(file)?,
            None if listen.ip().is_loopback() => Directory::demo(),
            None => anyhow::bail!(
                "the demo users are for loopback only and {listen} is not: set AUTH_USERS_FILE"
            ),
        };
        let sessions = Sessions::new(store);
        Ok(Self { inner: Arc::new(Inner { config: config.clone(), directory, sessions }) })
    }

    /// Returns the mode's name as the wire shows it.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        "simple"
    }

    /// Returns the name to show for a user, `None` if there is no such user.
    #[must_use]
    pub fn name(&self, user: &UserId) -> Option<String> {
        self.inner.directory.name(user)
    }

    /// Forgets sessions that nobody has used for a month. Returns how many.
    pub async fn trim_sessions(&self, now: Timestamp) -> Result<usize, Error> {
        self.inner.sessions.trim(now).await
    }

    /// Returns who sends a request, of a stream or of anything else.
    pub(crate) async fn identify(
        &self,
        parts: &mut Parts,
        of_stream: bool,
    ) -> Result<User, Refused> {
        if of_stream {
            self.stream_user(parts).await.map(|caller| caller.user)
        } else {
            self.request_user(parts).await
        }
    }

    /// Leaves word for whoever asks next, so that it is found out once.
    async fn request_user(&self, parts: &mut Parts) -> Result<User, Refused> {
        if let Some(user) = parts.extensions.get::<User>() {
            return Ok(user.clone());
        }
        let user = self.user(parts, false).await?;
        parts.extensions.insert(user.clone());
        Ok(user)
    }

    async fn stream_user(&self, parts: &mut Parts) -> Result<StreamUser, Refused> {
        if let Some(caller) = parts.extensions.get::<StreamUser>() {
            return Ok(caller.clone());
        }
        let caller = match tickets::in_query(parts, self.inner.config.allow_query_tokens) {
            Some(ticket) => self.ticket_user(parts, &ticket, Timestamp::now()).await?,
            None => StreamUser { user: self.user(parts, true).await?, ticket: None },
        };
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }

    async fn user(&self, parts: &Parts, query_tokens: bool) -> Result<User, Refused> {
        let token = self.token(parts, query_tokens).ok_or(Refused::Unauthenticated)?;
        let known = self.inner.directory.find(&token).ok_or(Refused::Unauthenticated)?;
        let now = Timestamp::now();
        if known.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Refused::Unauthenticated);
        }
        let claimed = claimed_session(parts).ok_or(Refused::InvalidSession)?;
        let session = self.inner.sessions.bind(claimed, &known.user, now).await?;
        Ok(User {
            id: known.user.clone(),
            name: known.name.clone(),
            roles: known.roles,
            session,
            expires_at: known.expires_at,
        })
    }

    /// The first credential found wins, even if it is not valid.
    fn token(&self, parts: &Parts, query_tokens: bool) -> Option<SecretString> {
        let config = &self.inner.config;
        if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().into());
        }
        if query_tokens
            && config.allow_query_tokens
            && let Some(token) = query_value(parts.uri.query().unwrap_or_default(), "bearer_token")
        {
            return Some(token.into());
        }
        cookie(&parts.headers, &config.auth_token_cookie_name)
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<SecretString> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.into())
}

impl<S> FromRequestParts<S> for User
where
    Auth: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        Auth::from_ref(state).request_user(parts).await
    }
}

impl<S> FromRequestParts<S> for StreamUser
where
    Auth: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        Auth::from_ref(state).stream_user(parts).await
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            Self::Unauthenticated => {
                Failure::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
            }
            Self::ForeignSession => Failure::new(StatusCode::FORBIDDEN, "forbidden", message),
            Self::InvalidSession => {
                Failure::new(StatusCode::BAD_REQUEST, "invalid_request", message)
            }
            Self::Store(Error::Overloaded) => Failure::retry(
                StatusCode::SERVICE_UNAVAILABLE,
                "backpressure",
                "too many writes are waiting",
            ),
            Self::Store(error) if error.is_temporary() => {
                tracing::warn!(%error, "a session could not be read");
                Failure::retry(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "a part of the service that this needs is not available",
                )
            }
            Self::Store(error) => {
                tracing::error!(%error, "a session could not be read");
                Failure::internal()
            }
        }
        .into_response()
    }
}

/// Deletes what is no longer needed, once a minute, until shutdown.
pub async fn sweep(auth: Auth, lifecycle: Lifecycle) {
    let shutdown = lifecycle.shutdown();
    let mut tick = tokio::time::interval(std::time::Duration::from_mins(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let now = Timestamp::now();
        if let Err(error) = auth.trim_sessions(now).await.and(auth.trim_tickets(now).await) {
            tracing::warn!(%error, "sessions and tickets were not trimmed");
        }
    }
}

#[cfg(test)]
mod tests;
