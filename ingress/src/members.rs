//! Members of a project and their roles.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    auth::Auth,
    http::{Json, Limit, Path, Query},
    ids::{ProjectId, UserId},
    store::{Error, Reader, Row, Tx},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{As, AtLeast, Granted, Owner, Role, Viewer},
    error::ApiError,
    state::AppState,
    streams::job_view,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, set, leave))
}

/// A member of a project.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct Member {
    pub(crate) user: UserId,
    name: String,
    role: Role,
    added_at: Timestamp,
}

#[derive(Serialize)]
struct MemberEvent<'a> {
    member: &'a Member,
}

/// A page of members, by user id.
#[derive(Serialize, utoipa::ToSchema)]
struct Members {
    members: Vec<Member>,
    next: Option<UserId>,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Page {
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<UserId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleField {
    role: Role,
}

const COLUMNS: &str = "SELECT m.user_id, p.name, m.role, m.added_at FROM members m \
                       JOIN people p ON p.project_id = m.project_id AND p.id = m.user_id WHERE m.project_id = $1";

fn read(row: &Row<'_>) -> Result<Member, Error> {
    Ok(Member {
        user: row.parse(0)?,
        name: row.get(1)?,
        role: row.parse(2)?,
        added_at: row.get(3)?,
    })
}

fn find(reader: &Reader<'_>, project: ProjectId, user: &UserId) -> Result<Option<Member>, Error> {
    reader.find(&format!("{COLUMNS} AND m.user_id = $2"), &[project.into(), user.into()], read)
}

/// Adds a member or changes a member's role.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    user: &UserId,
    name: &str,
    role: Role,
) -> Result<Member, ApiError> {
    tx.execute(
        "INSERT INTO people (project_id, id, name, is_bot) VALUES ($1, $2, $3, 0) \
         ON CONFLICT (project_id, id) DO UPDATE SET name = excluded.name",
        &[caller.project.into(), user.into(), name.into()],
    )?;
    let is_new = find(tx, caller.project, user)?.is_none();
    tx.execute(
        "INSERT INTO members (project_id, user_id, role, added_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (project_id, user_id) DO UPDATE SET role = excluded.role",
        &[caller.project.into(), user.into(), role.as_str().into(), tx.now().into()],
    )?;
    let member = find(tx, caller.project, user)?.ok_or(ApiError::NotFound("the member"))?;
    caller.record(tx, "member.added", &MemberEvent { member: &member })?;
    if is_new {
        job_view::record(tx, user, caller.project, true)?;
    }
    Ok(member)
}

/// Ends a membership. The event is the last of the project that the member's streams are about.
fn remove<R: AtLeast>(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, R>,
    member: &Member,
) -> Result<(), ApiError> {
    tx.execute(
        "DELETE FROM members WHERE project_id = $1 AND user_id = $2",
        &[caller.project.into(), (&member.user).into()],
    )?;
    caller.record(tx, "member.removed", &MemberEvent { member })?;
    Ok(job_view::record(tx, &member.user, caller.project, false)?)
}

/// A project without an owner could not be changed by anybody.
fn keep_an_owner(
    reader: &Reader<'_>,
    project: ProjectId,
    leaving: &UserId,
) -> Result<(), ApiError> {
    let sql = "SELECT 1 FROM members WHERE project_id = $1 AND role = 'owner' AND user_id <> $2";
    reader
        .find(sql, &[project.into(), leaving.into()], |_| Ok(()))?
        .ok_or(ApiError::Conflict("a project keeps at least one owner"))
}

#[utoipa::path(get, path = "/{project}/members", params(Page), responses((status = 200, body = Members)))]
async fn list(viewer: As<Viewer>, Query(page): Query<Page>) -> Result<Json<Members>, ApiError> {
    viewer
        .read(move |reader, caller| {
            let after = page.after.as_ref().map_or("", UserId::as_str);
            let sql = format!("{COLUMNS} AND m.user_id > $2 ORDER BY m.user_id LIMIT $3");
            let params = [caller.project.into(), after.into(), page.limit.and_one().into()];
            let mut members = reader.query(&sql, &params, read)?;
            let next = page.limit.cut(&mut members).map(|member| member.user.clone());
            Ok(Json(Members { members, next }))
        })
        .await
}

#[utoipa::path(get, path = "/{project}/members/{user}", responses((status = 200, body = Member)))]
async fn show(
    viewer: As<Viewer>,
    Path((_project, member)): Path<(ProjectId, UserId)>,
) -> Result<Json<Member>, ApiError> {
    viewer
        .read(move |reader, caller| {
            find(reader, caller.project, &member)?.map(Json).ok_or(ApiError::NotFound("the member"))
        })
        .await
}

#[utoipa::path(put, path = "/{project}/members/{user}", request_body = RoleField, responses((status = 200, body = Member)))]
async fn set(
    State(auth): State<Auth>,
    owner: As<Owner>,
    Path((_project, member)): Path<(ProjectId, UserId)>,
    Json(RoleField { role }): Json<RoleField>,
) -> Result<Json<Member>, ApiError> {
    let name = auth.name(&member).await?;
    owner
        .write(move |tx, caller| {
            let name = name
                .as_ref()
                .ok_or(ApiError::Field { field: "user", message: "no such user".into() })?;
            if role < Role::Owner {
                keep_an_owner(tx, caller.project, &member)?;
            }
            put(tx, caller, &member, name, role).map(Json)
        })
        .await
}

#[utoipa::path(delete, path = "/{project}/members/{user}", responses((status = 204)))]
async fn leave(
    viewer: As<Viewer>,
    Path((_project, member)): Path<(ProjectId, UserId)>,
) -> Result<StatusCode, ApiError> {
    viewer
        .write(move |tx, caller| {
            // Everybody may leave by themselves.
            if member != caller.user {
                caller.require(Role::Owner)?;
            }
            let project = caller.project;
            let member = find(tx, project, &member)?.ok_or(ApiError::NotFound("the member"))?;
            keep_an_owner(tx, project, &member.user)?;
            remove(tx, caller, &member)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
