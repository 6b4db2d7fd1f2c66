//! The way from a handler to a schedule.

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::Deserialize;
use shared::{
    auth::User,
    http::{Path, current_trace},
    ids::{ScheduleId, TraceId, UserId},
    journal::Topic,
    store::{self, Store, Tx},
};

use super::Own;
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
    /// Who asks.
    pub(crate) user: UserId,
    store: Store,
}

impl Scheduled {
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
        match found {
            Some(schedule) if may_see(state, &user, &schedule).await? => {
                Ok(Self { schedule, user: user.id, store })
            }
            _ => Err(ApiError::NotFound("the schedule").into_response()),
        }
    }
}

async fn may_see(state: &AppState, user: &User, schedule: &Schedule) -> Result<bool, Response> {
    if user.roles.admin {
        return Ok(true);
    }
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    let role = state.ingress.role(&user.id, schedule.project_id, &trace).await;
    let role = role.map_err(|status| ApiError::from(status).into_response())?;
    Ok(role == Some(Role::Owner) || role.is_some() && schedule.owner == user.id)
}
