//! The ways from a handler to the database. Each begins with who is calling; a handler that takes none of them has nothing
//! to read or write.

use std::{fmt, marker::PhantomData, ops::Deref};

use axum::{
    extract::{FromRef, FromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::Deserialize;
use shared::{
    auth::User,
    http::Path,
    ids::ProjectId,
    store::{self, Reader, Store, Tx},
    time::Timestamp,
};

use super::{Caller, Role};
use crate::{error::ApiError, state::AppState};

/// The database as handlers' state has it: closed.
#[derive(Clone, Debug)]
pub(crate) struct Guarded(Store);

impl Guarded {
    pub(crate) fn new(store: Store) -> Self {
        Self(store)
    }

    /// Opens it for what is the user's own.
    pub(crate) fn own(&self, user: User) -> Own {
        Own { store: self.0.clone(), user }
    }

    /// Returns the time by the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Opens it for operators, whom the internal listener lets in without a credential.
    pub(crate) fn for_operators(&self) -> &Store {
        &self.0
    }
}

/// Fails to compile if a handler could ask for the bare store.
const _: () = {
    trait Either<A> {
        fn only() {}
    }
    impl<T> Either<()> for T {}
    impl<T> Either<u8> for T where Store: FromRef<T> {}
    let _ = <AppState as Either<_>>::only;
};

/// A role as a type.
pub(crate) trait AtLeast: Send + Sync + 'static {
    const ROLE: Role;
}

/// A role that may write.
pub(crate) trait Writes: AtLeast {}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Viewer {}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Member {}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {}

impl AtLeast for Viewer {
    const ROLE: Role = Role::Viewer;
}

impl AtLeast for Member {
    const ROLE: Role = Role::Member;
}

impl AtLeast for Owner {
    const ROLE: Role = Role::Owner;
}

impl Writes for Member {}
impl Writes for Owner {}

/// Somebody who wants to act in the project of the path with at least the role `R`. Whether they may is seen in the
/// transaction in which they act, so that nobody acts after they were removed.
#[derive(Clone)]
pub(crate) struct As<R> {
    store: Store,
    caller: Caller,
    role: PhantomData<R>,
}

/// A caller who was seen to have at least the role `R`, in the transaction that this was given in.
pub(crate) struct Granted<'a, R> {
    caller: &'a Caller,
    /// What they are, which may be more.
    pub(crate) role: Role,
    at_least: PhantomData<R>,
}

impl<R: AtLeast> As<R> {
    pub(crate) fn new(store: Store, caller: Caller) -> Self {
        Self { store, caller, role: PhantomData }
    }

    /// Reads as one who has the role.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Reader<'_>, &Granted<'_, R>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let caller = self.caller.clone();
        self.store.read(move |reader| work(reader, &caller.granted(reader)?)).await
    }

    /// Writes as one who has the role, under the lock of the project's log.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>, &Granted<'_, R>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let caller = self.caller.clone();
        let work = move |tx: &mut Tx<'_>| {
            let granted = caller.granted(tx)?;
            work(tx, &granted)
        };
        self.store.write_in(self.caller.topic(), work).await
    }

    /// Writes what takes so long that no other should share its transaction.
    pub(crate) async fn write_bulk<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>, &Granted<'_, R>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let caller = self.caller.clone();
        let work = move |tx: &mut Tx<'_>| {
            let granted = caller.granted(tx)?;
            work(tx, &granted)
        };
        self.store.write_bulk(self.caller.topic(), work).await
    }

    /// Writes what asks for the role itself, together with other things ([`Caller::granted_as`]), and shows that it did.
    pub(crate) async fn write_asking<T: Send + 'static>(
        self,
        work: impl for<'a> Fn(&mut Tx<'_>, &'a Caller) -> Result<(Granted<'a, R>, T), ApiError>
        + Send
        + 'static,
    ) -> Result<T, ApiError> {
        let Self { store, caller, .. } = self;
        let topic = caller.topic();
        store.write_in(topic, move |tx| work(tx, &caller).map(|(_, done)| done)).await
    }
}

impl Caller {
    /// Lets pass who has the role.
    pub(crate) fn granted<R: AtLeast>(
        &self,
        reader: &Reader<'_>,
    ) -> Result<Granted<'_, R>, ApiError> {
        self.granted_as(self.role(reader)?)
    }

    /// Lets pass whom the database says to be a member with this role, `None` being a stranger, for whom there is no
    /// project.
    pub(crate) fn granted_as<R: AtLeast>(
        &self,
        found: Option<Role>,
    ) -> Result<Granted<'_, R>, ApiError> {
        let role = found.ok_or(ApiError::NotFound("the project"))?;
        let granted = Granted { caller: self, role, at_least: PhantomData };
        granted.require(R::ROLE)?;
        Ok(granted)
    }
}

impl<R> Granted<'_, R> {
    /// Lets pass who has more than this was given for.
    pub(crate) fn require(&self, role: Role) -> Result<(), ApiError> {
        if self.role >= role {
            Ok(())
        } else {
            Err(ApiError::Forbidden("your role in the project does not allow this"))
        }
    }
}

impl<R> Deref for As<R> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl<R> Deref for Granted<'_, R> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        self.caller
    }
}

impl<R> fmt::Debug for As<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.caller.fmt(f)
    }
}

async fn caller(parts: &mut Parts, state: &AppState) -> Result<User, Response> {
    User::from_request_parts(parts, state).await.map_err(IntoResponse::into_response)
}

/// The part of every project's paths.
#[derive(Deserialize)]
struct InProject {
    project: ProjectId,
}

impl<R: AtLeast> FromRequestParts<AppState> for As<R> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let user = caller(parts, state).await?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(InProject { project }) = path.map_err(IntoResponse::into_response)?;
        Ok(Self::new(state.store.0.clone(), Caller::new(project, &user)))
    }
}

/// A caller, for what is their own and nobody else's: their sessions, their streams, the list of their projects.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    store: Store,
    pub(crate) user: User,
}

impl Own {
    pub(crate) async fn read<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        &self,
        work: impl Fn(&Reader<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.store.read(work).await
    }

    pub(crate) async fn write<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.store.write(work).await
    }

    /// Writes a project that is not there yet: who makes it is its owner.
    pub(crate) async fn found<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>, &Granted<'_, Owner>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let caller = Caller::new(ProjectId::mint(), &self.user);
        let work = move |tx: &mut Tx<'_>| {
            work(tx, &Granted { caller: &caller, role: Role::Owner, at_least: PhantomData })
        };
        self.store.write(work).await
    }
}

impl FromRequestParts<AppState> for Own {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        Ok(state.store.own(caller(parts, state).await?))
    }
}

/// A caller with the role `admin`, for what no member of a project sees.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) store: Store,
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        if caller(parts, state).await?.roles.admin {
            Ok(Self { store: state.store.0.clone() })
        } else {
            Err(ApiError::Forbidden("this is for admins").into_response())
        }
    }
}
