//! Schedules: operations that are called again and again, and the routes that make, change and delete them.

mod firing;
mod repair;
mod schedule;
mod store;
mod times;

use std::sync::Arc;

use axum::extract::State;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    http::{BodyError, Json, Query, current_trace},
    ids::{ProjectId, ScheduleId, TraceId},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::{firing::Scheduler, repair::repair, schedule::Schedule, store::find};
use self::{
    schedule::{Change, Missed, Overlap, Status},
    times::{Invalid, Times},
};
use crate::{
    access::{Own, ProjectRoles, Scheduled},
    bundles::{GivenInput, Name, Registry, no_data},
    error::ApiError,
    ingress::{Ingress, Role},
    state::AppState,
};

/// Schedules that a project may have.
const MAX_PER_PROJECT: i64 = 20;

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::Field { field: invalid.field().into(), message: invalid.to_string() }
    }
}

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct OfProject {
    project_id: ProjectId,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Schedules {
    schedules: Vec<Schedule>,
    next: Option<String>,
}

/// Lists the caller's schedules in a project; owners of the project and admins see everybody's.
#[utoipa::path(get, path = "/schedules", tag = "schedules", params(OfProject),
    responses((status = 200, body = Schedules), (status = 404)))]
async fn list(
    own: Own,
    State(ingress): State<Ingress>,
    Query(OfProject { project_id }): Query<OfProject>,
) -> Result<Json<Schedules>, ApiError> {
    let user = own.user.id.clone();
    let role = ingress.role(&user, project_id, &trace()).await?;
    let is_member = role.is_some();
    if role.is_none() && !own.user.roles.admin {
        return Err(ApiError::NotFound("the project"));
    }
    let sees_all = own.user.roles.admin || role == Some(Role::Owner);
    let owner = (!sees_all).then_some(user);
    let mut schedules =
        own.read(move |reader| store::list(reader, project_id, owner.as_ref())).await?;
    if !is_member {
        schedules = schedules.into_iter().map(Schedule::without_content).collect();
    }
    Ok(Json(Schedules { schedules, next: None }))
}

/// What a schedule is made of.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSchedule {
    /// The project that its jobs work in.
    project_id: ProjectId,
    bundle: Name,
    operation: Name,
    /// The operation's input, as its JSON Schema says.
    #[serde(default = "no_data")]
    #[schema(value_type = serde_json::Value)]
    data: GivenInput,
    /// Minute, hour, day of the month, month, day of the week, such as `30 8 * * MON-FRI`; perhaps a second before them.
    cron: String,
    /// The zone whose clocks it goes by, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schema(default = "UTC")]
    time_zone: String,
    #[serde(default)]
    missed: Missed,
    #[serde(default)]
    overlap: Overlap,
}

fn utc() -> String {
    "UTC".into()
}

/// Makes a schedule: from now on the operation is called at its times, in the caller's name.
#[utoipa::path(post, path = "/schedules", tag = "schedules", request_body = NewSchedule,
    responses((status = 201, body = Schedule), (status = 403), (status = 404),
        (status = 409, description = "The project has 20"), (status = 422)))]
async fn create(
    own: Own,
    State(registry): State<Arc<Registry>>,
    State(roles): State<ProjectRoles>,
    body: Result<Json<NewSchedule>, BodyError>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<Schedule>), ApiError> {
    let Json(new) = body?;
    let declared = registry.find_callable(new.bundle.as_str(), new.operation.as_str()).await?;
    let declared = declared.ok_or(ApiError::NotFound("the operation"))?;
    declared.authorize(&roles, &own.user.id, new.project_id, &trace()).await?;
    declared.check_given(&new.data, "data")?;
    let (times, now) = (Times::parse(&new.cron, &new.time_zone)?, own.now());
    let schedule = Schedule {
        id: ScheduleId::mint(),
        project_id: new.project_id,
        owner: own.user.id.clone(),
        bundle: new.bundle.into(),
        operation: new.operation.into(),
        data: new.data.into_value(),
        cron: new.cron,
        time_zone: times.zone().to_owned(),
        missed: new.missed,
        overlap: new.overlap,
        state: Status::Active,
        reason: None,
        next_fire_at: Some(times.first(now)?),
        last_fire_at: None,
        last_job_id: None,
        last_skipped_at: None,
        created_at: now,
        updated_at: now,
    };
    let row = schedule.clone();
    if !own.write(move |tx| store::insert(tx, &row)).await? {
        let message = format!("a project has at most {MAX_PER_PROJECT} schedules");
        return Err(ApiError::Conflict(message));
    }
    let location = format!("/api/integrations/schedules/{}", schedule.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(schedule)))
}

/// Shows a schedule to who made it, to owners of its project and to admins.
#[utoipa::path(get, path = "/schedules/{schedule}", tag = "schedules", params(("schedule" = ScheduleId, Path)),
    responses((status = 200, body = Schedule), (status = 404)))]
async fn show(scheduled: Scheduled) -> Json<Schedule> {
    Json(scheduled.show(scheduled.schedule.clone()))
}

/// Changes a schedule, which who made it may. Owners of the project and admins may stop it: `{"active": false}`.
#[utoipa::path(patch, path = "/schedules/{schedule}", tag = "schedules", params(("schedule" = ScheduleId, Path)),
    request_body = Change,
    responses((status = 200, body = Schedule), (status = 403), (status = 404), (status = 422)))]
async fn change(
    scheduled: Scheduled,
    State(registry): State<Arc<Registry>>,
    State(roles): State<ProjectRoles>,
    body: Result<Json<Change>, BodyError>,
) -> Result<Json<Schedule>, ApiError> {
    let Json(change) = body?;
    let stop = Change { active: Some(false), ..Change::default() };
    if change != stop {
        let Schedule { bundle, operation, owner, project_id, .. } = &scheduled.schedule;
        if *owner != scheduled.user {
            return Err(ApiError::Forbidden("only who made the schedule may do more than stop it"));
        }
        let declared = registry.find_callable(bundle, operation).await?;
        let declared = declared.ok_or(ApiError::NotFound("the operation"))?;
        declared.authorize(&roles, owner, *project_id, &trace()).await?;
        match &change.data {
            Some(given) => declared.check_given(given, "data")?,
            None => declared.check(&scheduled.schedule.data)?,
        }
    }
    let id = scheduled.schedule.id;
    let changed = scheduled.write(move |tx| {
        let schedule = find(tx, id)?.ok_or(ApiError::NotFound("the schedule"))?;
        let changed = schedule.changed(change.clone(), tx.now())?;
        store::save(tx, &changed)?;
        Ok::<_, ApiError>(changed)
    });
    Ok(Json(scheduled.show(changed.await?)))
}

/// Deletes a schedule; the jobs that it made stay. Who made it may, and owners of the project and admins.
#[utoipa::path(delete, path = "/schedules/{schedule}", tag = "schedules", params(("schedule" = ScheduleId, Path)),
    responses((status = 204), (status = 404)))]
async fn delete(scheduled: Scheduled) -> Result<StatusCode, ApiError> {
    let id = scheduled.schedule.id;
    scheduled.write(move |tx| store::delete(tx, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn trace() -> TraceId {
    current_trace().unwrap_or_else(TraceId::mint)
}

#[cfg(test)]
mod tests;
