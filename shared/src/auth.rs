//! Who is calling: credentials, users, sessions.

mod config;
mod credentials;
mod ended;
mod oidc;
mod refused;
mod sessions;
mod shown;
mod simple;
#[cfg(test)]
mod tests;
mod tickets;

use std::{net::SocketAddr, sync::Arc};

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

pub use self::{
    config::{AuthConfig, AuthMode, OidcConfig},
    ended::{Ended, Endings, Revocations, Rewound},
    oidc::ConsoleSignIn,
    refused::Refused,
    sessions::{Session, sessions_of},
    simple::DemoUser,
    tickets::Ticket,
};
pub(crate) use self::{credentials::Route, shown::Shown};
use self::{
    credentials::{Credentials, Origins},
    oidc::Oidc,
    sessions::Sessions,
    simple::Directory,
    tickets::ShownTicket,
};
use crate::{
    config::Config,
    http::{DemoAccess, claimed_session},
    ids::{SessionId, UserId},
    parts,
    store::{Error, Store},
    time::Timestamp,
};

/// Knows every caller; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Auth {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: AuthConfig,
    issuer: Issuer,
    origins: Origins,
    sessions: Sessions,
    demo_access: DemoAccess,
}

/// Who vouches for callers.
#[derive(Debug)]
enum Issuer {
    Simple(Directory),
    Oidc(Box<Oidc>),
}

/// Who a credential is of.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The caller.
    pub id: UserId,
    /// The name to show.
    pub name: String,
    /// What the caller may do besides their memberships.
    pub roles: Roles,
    /// When the credential is no longer good, `None` if it stays good.
    pub expires_at: Option<Timestamp>,
}

/// What a user may do besides their memberships.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// May see everybody's jobs and the server's insides.
    pub admin: bool,
}

impl Roles {
    /// The names of all roles.
    pub const NAMES: &[&str] = &["admin"];

    /// Returns the roles' names.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        if self.admin { vec!["admin"] } else { vec![] }
    }

    /// Returns the roles of these names.
    fn of(names: &[String]) -> Self {
        Self { admin: names.iter().any(|name| name == "admin") }
    }
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

impl Auth {
    /// Reads the users, or begins to ask for the issuer's keys. Refuses what is unsafe: demo users anywhere but on loopback.
    pub fn new(config: &Config, parts: &parts::Parts, listen: SocketAddr) -> anyhow::Result<Self> {
        let (auth, store) = (&config.auth, &parts.store);
        let issuer = match (auth.auth_mode, &auth.auth_users_file) {
            (AuthMode::Oidc, _) => {
                Issuer::Oidc(Box::new(Oidc::new(&auth.oidc, store.clone(), &parts.lifecycle)?))
            }
            (AuthMode::Simple, Some(file)) => Issuer::Simple(Directory::read(file)?),
            (AuthMode::Simple, None) if listen.ip().is_loopback() => {
                Issuer::Simple(Directory::demo())
            }
            (AuthMode::Simple, None) => anyhow::bail!(
                "the demo users are for loopback only and {listen} is not: set AUTH_USERS_FILE"
            ),
        };
        let origins = Origins::new(&config.cors_origin);
        Ok(Self::of(auth.clone(), issuer, origins, store.clone(), parts.demo_access.clone()))
    }

    fn of(
        config: AuthConfig,
        issuer: Issuer,
        origins: Origins,
        store: Store,
        demo_access: DemoAccess,
    ) -> Self {
        let sessions = Sessions::new(store);
        Self { inner: Arc::new(Inner { config, issuer, origins, sessions, demo_access }) }
    }

    /// Returns the time by the clock that all processes of the database share: a credential ends on all of them at once.
    pub(crate) fn now(&self) -> Timestamp {
        self.inner.sessions.store().now()
    }

    /// Returns the mode's name as the wire shows it.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        match self.inner.config.auth_mode {
            AuthMode::Simple => "simple",
            AuthMode::Oidc => "oidc",
        }
    }

    /// Returns the users whom everybody on this machine may be; none if users are configured.
    #[must_use]
    pub fn demo_users(&self) -> &'static [DemoUser] {
        let AuthConfig { auth_mode, auth_users_file, .. } = &self.inner.config;
        match (auth_mode, auth_users_file) {
            (AuthMode::Simple, None) => simple::DEMO,
            _ => &[],
        }
    }

    /// Returns what the console needs to sign users in with the issuer, `None` in `simple` mode.
    #[must_use]
    pub fn console_sign_in(&self) -> Option<&ConsoleSignIn> {
        match &self.inner.issuer {
            Issuer::Simple(_) => None,
            Issuer::Oidc(oidc) => Some(&oidc.console),
        }
    }

    /// Returns the switch of demo access, `None` if there are no demo users.
    #[must_use]
    pub fn demo_access(&self) -> Option<&DemoAccess> {
        (!self.demo_users().is_empty()).then_some(&self.inner.demo_access)
    }

    /// Refuses every credential of demo users once clients of other machines are forwarded.
    fn require_access(&self) -> Result<(), Refused> {
        let is_closed = self.demo_access().is_some_and(DemoAccess::is_closed);
        if is_closed { Err(Refused::Unauthenticated) } else { Ok(()) }
    }

    /// Returns the name to show for a user, `None` if there is no such user: with OIDC, if they have never signed in.
    pub async fn name(&self, user: &UserId) -> Result<Option<String>, Error> {
        match &self.inner.issuer {
            Issuer::Simple(directory) => Ok(directory.name(user)),
            Issuer::Oidc(oidc) => oidc.users.name(user).await,
        }
    }

    /// Forgets sessions that nobody has used for a month. Returns how many.
    pub async fn trim_sessions(&self, now: Timestamp) -> Result<usize, Error> {
        self.inner.sessions.trim(now).await
    }

    /// Returns who sends a request, on such a route.
    pub(crate) async fn identify(&self, parts: &mut Parts, route: Route) -> Result<User, Refused> {
        match route {
            Route::Stream => self.stream_user(parts).await.map(|caller| caller.user),
            Route::Other => self.request_user(parts).await,
        }
    }

    /// Leaves word for whoever asks next, so that it is found out once.
    async fn request_user(&self, parts: &mut Parts) -> Result<User, Refused> {
        if let Some(user) = parts.extensions.get::<User>() {
            return Ok(user.clone());
        }
        let user = self.user(parts, Route::Other).await?;
        parts.extensions.insert(user.clone());
        Ok(user)
    }

    async fn stream_user(&self, parts: &mut Parts) -> Result<StreamUser, Refused> {
        if let Some(caller) = parts.extensions.get::<StreamUser>() {
            return Ok(caller.clone());
        }
        let caller = match tickets::in_query(parts, self.inner.config.allow_query_tokens) {
            Some(ticket) => self.ticket_user(parts, &ticket, self.now()).await?,
            None => StreamUser { user: self.user(parts, Route::Stream).await?, ticket: None },
        };
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }

    async fn user(&self, parts: &Parts, route: Route) -> Result<User, Refused> {
        let now = self.now();
        let Identity { id, name, roles, expires_at } = self.verify(parts, route, now).await?;
        let claimed = claimed_session(parts).ok_or(Refused::InvalidSession)?;
        if let Issuer::Oidc(oidc) = &self.inner.issuer {
            oidc.users.remember(&id, &name).await?;
        }
        let bind = self.inner.sessions.bind(claimed, &id, now, || self.may_bind(parts, route));
        let session = bind.await?;
        Ok(User { id, name, roles, session, expires_at })
    }

    /// Returns whether a request may bind a new session to its caller. A page of another origin chooses neither the
    /// session of a visitor nor adds rows to their list, though its GET carries the cookie.
    fn may_bind(&self, parts: &Parts, route: Route) -> bool {
        let inner = &*self.inner;
        let is_ambient =
            Credentials::of(parts, route, &inner.config).is_ok_and(|shown| shown.ambient);
        !is_ambient || inner.origins.allow(&parts.headers)
    }

    /// Returns whose credentials a request shows.
    async fn verify(
        &self,
        parts: &Parts,
        route: Route,
        now: Timestamp,
    ) -> Result<Identity, Refused> {
        self.require_access()?;
        let inner = &*self.inner;
        let shown = Credentials::of(parts, route, &inner.config)?;
        let by_a_page = shown.ambient && (route == Route::Stream || !parts.method.is_safe());
        if by_a_page && !inner.origins.allow(&parts.headers) {
            return Err(Refused::ForeignPage);
        }
        let identity = match &inner.issuer {
            Issuer::Simple(directory) => directory.find(&shown.access).cloned(),
            Issuer::Oidc(oidc) => Some(oidc.verify(&shown.access, shown.id.as_ref(), now).await?),
        };
        identity
            .filter(|identity| identity.expires_at.is_none_or(|expires_at| now < expires_at))
            .ok_or(Refused::Unauthenticated)
    }
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
