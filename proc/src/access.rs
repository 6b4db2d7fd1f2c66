//! The ways from a handler to the database: as the owner of a job, as who may see a schedule, for what is the caller's own,
//! as an owner of a project, and as an admin. There is no other.

mod schedules;

use std::ops::Deref;

use axum::{
    extract::{FromRef, FromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::Deserialize;
use shared::{
    auth::{Roles, User},
    http::{Path, current_trace},
    ids::{JobId, ProjectId, TraceId, WebhookId},
    journal::Topic,
    store::{self, Reader, Store, Tx},
};

use crate::{
    error::ApiError,
    ingress::{Ingress, Role},
    jobs::{self, machine::Job},
    state::AppState,
    webhooks::{self, Stored as Webhook},
};

pub(crate) use self::schedules::Scheduled;

/// The database as handlers' state has it: closed.
#[derive(Clone, Debug)]
pub(crate) struct Guarded(Store);

impl Guarded {
    pub(crate) fn new(store: Store) -> Self {
        Self(store)
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

/// A job as it was when its owner, or an admin, began to ask; another's job does not exist for them.
#[derive(Clone, Debug)]
pub(crate) struct Mine {
    job: Job,
    /// What they may do besides.
    pub(crate) roles: Roles,
    store: Store,
}

impl Mine {
    /// Reads what belongs to the job.
    pub(crate) async fn read<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        self,
        work: impl Fn(&Reader<'_>, &Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.store.clone();
        store.read(move |reader| work(reader, &self)).await
    }

    #[cfg(test)]
    pub(crate) fn new(job: Job, store: Store) -> Self {
        Self { job, roles: Roles::default(), store }
    }
}

impl Deref for Mine {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

/// The part of every job's paths.
#[derive(Deserialize)]
struct OfJob {
    id: JobId,
}

impl FromRequestParts<AppState> for Mine {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let Own { store, user } = Own::from_request_parts(parts, state).await?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(OfJob { id }) = path.map_err(IntoResponse::into_response)?;
        let found = store.read(move |reader| jobs::find(reader, id)).await;
        let job = found.map_err(|error| ApiError::from(error).into_response())?;
        if job.owner == user.id || user.roles.admin {
            Ok(Self { job, roles: user.roles, store })
        } else {
            Err(ApiError::from(jobs::Error::NotFound).into_response())
        }
    }
}

/// A caller, for what is their own and nobody else's: their uploads, the list of their jobs.
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
}

impl FromRequestParts<AppState> for Own {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let user = User::from_request_parts(parts, state).await;
        let user = user.map_err(IntoResponse::into_response)?;
        Ok(Self { store: state.store.0.clone(), user })
    }
}

impl Own {
    /// Lets pass who is an owner of the project; for a stranger there is no such project.
    pub(crate) async fn owner_of(
        self,
        project: ProjectId,
        ingress: &Ingress,
    ) -> Result<OwnerOf, ApiError> {
        let trace = current_trace().unwrap_or_else(TraceId::mint);
        let role = ingress.role(&self.user.id, project, &trace).await?;
        match role.ok_or(ApiError::NotFound("the project"))? {
            Role::Owner => Ok(OwnerOf { own: self, project }),
            Role::Viewer | Role::Member => {
                Err(ApiError::Forbidden("your role in the project does not allow this"))
            }
        }
    }
}

/// Who was seen to be an owner of a project, for what belongs to it here.
#[derive(Clone, Debug)]
pub(crate) struct OwnerOf {
    own: Own,
    project: ProjectId,
}

impl OwnerOf {
    /// Reads what belongs to the project.
    pub(crate) async fn read<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        &self,
        work: impl Fn(&Reader<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.own.read(work).await
    }

    /// Writes under the project's log.
    pub(crate) async fn write<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.own.store.write_in(Topic::project(self.project), work).await
    }
}

impl Deref for OwnerOf {
    type Target = User;

    fn deref(&self) -> &User {
        &self.own.user
    }
}

/// A webhook as it was when an owner of its project began to ask; for a stranger it does not exist.
#[derive(Debug)]
pub(crate) struct OfWebhook {
    webhook: Webhook,
    pub(crate) owner: OwnerOf,
}

impl Deref for OfWebhook {
    type Target = Webhook;

    fn deref(&self) -> &Webhook {
        &self.webhook
    }
}

/// The part of every webhook's paths.
#[derive(Deserialize)]
struct OfId {
    id: WebhookId,
}

impl FromRequestParts<AppState> for OfWebhook {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let own = Own::from_request_parts(parts, state).await?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(OfId { id }) = path.map_err(IntoResponse::into_response)?;
        let found = own.read(move |reader| webhooks::find(reader, id)).await;
        let found = found.map_err(|error: store::Error| ApiError::from(error).into_response())?;
        let missing = || ApiError::NotFound("the webhook").into_response();
        let webhook = found.ok_or_else(missing)?;
        match own.owner_of(webhook.project_id, &state.ingress).await {
            Ok(owner) => Ok(Self { webhook, owner }),
            Err(ApiError::NotFound(_)) => Err(missing()),
            Err(error) => Err(error.into_response()),
        }
    }
}

/// A caller with the role `admin`.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) store: Store,
    pub(crate) roles: Roles,
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let Own { store, user } = Own::from_request_parts(parts, state).await?;
        if user.roles.admin {
            Ok(Self { store, roles: user.roles })
        } else {
            Err(ApiError::Forbidden("this is for admins").into_response())
        }
    }
}
