//! The way from a handler to a schedule.

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::Deserialize;
use shared::{
    http::Path,
    ids::{ScheduleId, UserId},
    journal::Topic,
    store::{self, Store, Tx},
};

use super::{Own, trace};
use crate::{
    error::ApiError,
    ingress::Role,
    schedules::{self, Schedule},
    state::AppState,
};

/// A schedule as it was when somebody began to ask who may: a member of its project who made it, an owner of the project, or
/// an admin. For others it does not exist.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    pub(crate) schedule: Schedule,
    /// True if the caller is a member of the project. An admin who is none does not see what the operation is called with.
    is_member: bool,
    /// Who asks.
    pub(crate) user: UserId,
    store: Store,
}

impl Scheduled {
    /// Returns the schedule, or a later state of it, as the caller may see it.
    pub(crate) fn show(&self, schedule: Schedule) -> Schedule {
        if self.is_member { schedule } else { schedule.without_content() }
    }

    /// Writes under the log of who made the schedule, as whatever makes it fire does.
    pub(crate) async fn write<T: Send + 'static, E: From<store::Error> + Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.store.write_in(Topic::user(&self.schedule.owner), work).await
    }
}

/// The part of every schedule's paths.
#[derive(Deserialize)]
struct OfSchedule {
    schedule: ScheduleId,
}

impl FromRequestParts<AppState> for Scheduled {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let Own { store, user } = Own::from_request_parts(parts, state).await?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(OfSchedule { schedule: id }) = path.map_err(IntoResponse::into_response)?;
        let found = store.read(move |reader| schedules::find(reader, id)).await;
        let found = found.map_err(|error| ApiError::from(error).into_response())?;
        let missing = || ApiError::NotFound("the schedule").into_response();
        let schedule = found.ok_or_else(missing)?;
        let role = state.ingress.role(&user.id, schedule.project_id, &trace()).await;
        let role = role.map_err(|status| ApiError::from(status).into_response())?;
        let is_theirs = role.is_some() && schedule.owner == user.id;
        if is_theirs || role == Some(Role::Owner) || user.roles.admin {
            Ok(Self { schedule, is_member: role.is_some(), user: user.id, store })
        } else {
            Err(missing())
        }
    }
}
