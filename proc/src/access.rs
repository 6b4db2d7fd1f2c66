//! The ways from a handler to the database: as the owner of a job, as who may see a schedule, for what is the caller's own,
//! as an owner of a project, and as an admin. There is no other.

mod project_roles;
mod schedules;

use std::{
    collections::{BTreeSet, HashSet},
    ops::Deref,
};

use axum::{
    extract::{FromRef, FromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::Deserialize;
use shared::{
    auth::User,
    http::{Path, current_trace},
    ids::{JobId, ProjectId, TraceId, WebhookId},
    journal::Topic,
    store::{self, Reader, Store, Tx},
    time::Timestamp,
};

use crate::{
    error::ApiError,
    ingress::{Ingress, Role},
    jobs::{self, machine::Job},
    state::AppState,
    webhooks::{self, Stored as Webhook},
};

pub(crate) use self::{project_roles::ProjectRoles, schedules::Scheduled};

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

/// A job as it was when its owner, or an admin, began to ask; another's job does not exist for them. Neither does their own
/// in a project of which they are no member any more.
#[derive(Clone, Debug)]
pub(crate) struct Mine {
    job: Job,
    /// The caller.
    pub(crate) user: User,
    /// True if the caller is a member of the project. An admin who is none sees no content.
    is_member: bool,
    store: Store,
}

impl Mine {
    /// Returns the job as the caller may see it.
    pub(crate) fn shown(&self) -> Job {
        self.show(self.job.clone())
    }

    /// Returns a later state of the job as the caller may see it.
    pub(crate) fn show(&self, job: Job) -> Job {
        if self.is_member { job } else { job.without_content() }
    }

    #[cfg(test)]
    pub(crate) fn new(job: Job, store: Store) -> Self {
        let (id, session) = (job.owner.clone(), shared::ids::SessionId::mint());
        let user = User {
            name: id.to_string(),
            id,
            roles: shared::auth::Roles::default(),
            session,
            expires_at: None,
        };
        Self { job, user, is_member: true, store }
    }
}

/// A job of which the caller may see everything: as [`Mine`], and a member of its project now.
#[derive(Clone, Debug)]
pub(crate) struct Content(Mine);

impl Content {
    /// Reads what belongs to the job.
    pub(crate) async fn read<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        self,
        work: impl Fn(&Reader<'_>, &Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.0.store.clone();
        store.read(move |reader| work(reader, &self)).await
    }

    #[cfg(test)]
    pub(crate) fn new(job: Job, store: Store) -> Self {
        Self(Mine::new(job, store))
    }
}

impl Deref for Content {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0.job
    }
}

impl FromRequestParts<AppState> for Content {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let job = Mine::from_request_parts(parts, state).await?;
        if job.is_member { Ok(Self(job)) } else { Err(no_job()) }
    }
}

/// Returns jobs as the user may see them now: those of projects in which the user is a member. An admin sees the others too,
/// without their content.
pub(crate) async fn visible(
    ingress: &Ingress,
    user: &User,
    jobs: Vec<Job>,
) -> Result<Vec<Job>, ApiError> {
    let projects: BTreeSet<ProjectId> = jobs.iter().map(|job| job.project_id).collect();
    let asked: Vec<_> = projects.iter().map(|project| (user.id.clone(), *project)).collect();
    let roles = ingress.roles(&asked, &trace()).await?;
    let member_of = projects.into_iter().zip(roles).filter(|(_, role)| role.is_some());
    let member_of: HashSet<ProjectId> = member_of.map(|(project, _)| project).collect();
    let visible = jobs.into_iter().filter_map(|job| {
        if member_of.contains(&job.project_id) {
            return Some(job);
        }
        user.roles.admin.then(|| job.without_content())
    });
    Ok(visible.collect())
}

fn no_job() -> Response {
    ApiError::from(jobs::Error::NotFound).into_response()
}

fn trace() -> TraceId {
    current_trace().unwrap_or_else(TraceId::mint)
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
        let found = FoundJob::from_request_parts(parts, state).await?;
        let role = found.role.map_err(|status| ApiError::from(status).into_response())?;
        if role.is_none() && !found.user.roles.admin {
            return Err(no_job());
        }
        let FoundJob { job, user, store, .. } = found;
        Ok(Self { job, user, is_member: role.is_some(), store })
    }
}

/// A job that the caller may cancel. Its owner may do so while ingress is away too, and then sees no content.
pub(crate) struct Cancellable(pub(crate) Mine);

impl FromRequestParts<AppState> for Cancellable {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let FoundJob { job, user, store, role } =
            FoundJob::from_request_parts(parts, state).await?;
        let is_member = match role {
            Ok(None) if !user.roles.admin => return Err(no_job()),
            Ok(role) => role.is_some(),
            Err(status) => {
                tracing::warn!(%status, job.id = %job.id, "a job is cancelled without asking ingress for the role");
                false
            }
        };
        Ok(Self(Mine { job, user, is_member, store }))
    }
}

/// A job of the caller, or any for an admin, and what ingress says of the caller's role in its project.
struct FoundJob {
    job: Job,
    user: User,
    store: Store,
    role: Result<Option<Role>, tonic::Status>,
}

impl FromRequestParts<AppState> for FoundJob {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let Own { store, user } = Own::from_request_parts(parts, state).await?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(OfJob { id }) = path.map_err(IntoResponse::into_response)?;
        let found = store.read(move |reader| jobs::find(reader, id)).await;
        let job = found.map_err(|error| ApiError::from(error).into_response())?;
        if job.owner != user.id && !user.roles.admin {
            return Err(no_job());
        }
        let role = state.ingress.role(&user.id, job.project_id, &trace()).await;
        Ok(Self { job, user, store, role })
    }
}

/// A caller, for what is their own and nobody else's: their uploads, the list of their jobs.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    store: Store,
    pub(crate) user: User,
}

impl Own {
    /// Returns the time by the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

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

impl Own {
    /// Writes under the caller's log, so that no other write of theirs happens meanwhile.
    pub(crate) async fn write_log<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.store.write_in(Topic::user(&self.user.id), work).await
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
        let role = ingress.role(&self.user.id, project, &trace()).await?;
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
    pub(crate) user: User,
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let Own { store, user } = Own::from_request_parts(parts, state).await?;
        if user.roles.admin {
            Ok(Self { store, user })
        } else {
            Err(ApiError::Forbidden("this is for admins").into_response())
        }
    }
}
