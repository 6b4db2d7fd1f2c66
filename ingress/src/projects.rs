//! Projects: the rooms that have members, channels and one log.

pub(crate) mod purge;

use axum::{extract::State, response::IntoResponse};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    deletion,
    http::{Json, Limit, Query},
    ids::{ProjectId, UserId},
    names::{is_visible, without_invisible},
    store::{Reader, Row, Tx},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ChatConfig,
    access::{As, AtLeast, Granted, Own, Owner, Role, Viewer},
    channels,
    error::ApiError,
    members,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, remove))
}

/// A project as its members see it.
#[derive(Serialize, utoipa::ToSchema)]
struct Project {
    id: ProjectId,
    name: String,
    /// The caller's role.
    role: Role,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A page of the caller's projects, newest first.
#[derive(Serialize, utoipa::ToSchema)]
struct Projects {
    projects: Vec<Project>,
    next: Option<ProjectId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ProjectFields {
    name: ProjectName,
}

/// 1 to 200 characters, no controls. Characters that show nothing are taken out, except joiners.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
struct ProjectName(String);

impl TryFrom<String> for ProjectName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, &'static str> {
        let has_control = name.trim().chars().any(char::is_control);
        let name = without_invisible(&name).trim().to_owned();
        if (1..=200).contains(&name.chars().count()) && !has_control && is_visible(&name) {
            Ok(Self(name))
        } else {
            Err("a project's name has 1 to 200 characters and no controls")
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Page {
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    limit: Limit,
    /// The `next` of the page before.
    before: Option<ProjectId>,
}

const COLUMNS: &str = "SELECT p.id, p.name, m.role, p.created_at, p.updated_at \
                       FROM members m JOIN projects p ON p.id = m.project_id WHERE m.user_id = $1";

fn read(row: &Row<'_>) -> Result<Project, shared::store::Error> {
    Ok(Project {
        id: row.get(0)?,
        name: row.get(1)?,
        role: row.parse(2)?,
        created_at: row.get(3)?,
        updated_at: row.get(4)?,
    })
}

fn find<R: AtLeast>(reader: &Reader<'_>, caller: &Granted<'_, R>) -> Result<Project, ApiError> {
    let sql = format!("{COLUMNS} AND p.id = $2");
    let found = reader.find(&sql, &[(&caller.user).into(), caller.project.into()], read)?;
    found.ok_or(ApiError::NotFound("the project"))
}

#[utoipa::path(get, path = "/", params(Page), responses((status = 200, body = Projects)))]
async fn list(own: Own, Query(page): Query<Page>) -> Result<Json<Projects>, ApiError> {
    let user = own.user.id.clone();
    own.read(move |reader| {
        // Ids begin with their time, so the order of ids is the order of making.
        let before = page.before.unwrap_or(ProjectId(uuid::Uuid::max()));
        let sql = format!("{COLUMNS} AND p.id < $2 ORDER BY p.id DESC LIMIT $3");
        let params = [(&user).into(), before.into(), page.limit.and_one().into()];
        let mut projects = reader.query(&sql, &params, read)?;
        let next = page.limit.cut(&mut projects).map(|project| project.id);
        Ok(Json(Projects { projects, next }))
    })
    .await
}

#[utoipa::path(post, path = "/", request_body = ProjectFields, responses((status = 201, body = Project), (status = 409)))]
async fn create(
    State(limits): State<ChatConfig>,
    own: Own,
    Json(fields): Json<ProjectFields>,
) -> Result<impl IntoResponse, ApiError> {
    let name = own.user.name.clone();
    let project = own
        .found(move |tx, caller| {
            if owned(tx, &caller.user)? >= i64::from(limits.projects_per_user) {
                return Err(ApiError::Conflict("you own as many projects as a user may"));
            }
            let now = tx.now();
            tx.execute(
                "INSERT INTO projects (id, name, created_at, updated_at) VALUES ($1, $2, $3, $3)",
                &[caller.project.into(), (&fields.name.0).into(), now.into()],
            )?;
            members::put(tx, caller, &caller.user, &name, Role::Owner)?;
            channels::create(tx, caller, channels::default_name(), None)?;
            find(tx, caller)
        })
        .await?;
    let location = format!("/api/chat/projects/{}", project.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(project)))
}

/// Returns the number of projects that a user owns.
fn owned(reader: &Reader<'_>, user: &UserId) -> Result<i64, ApiError> {
    let sql = "SELECT COUNT(*) FROM members m JOIN projects p ON p.id = m.project_id \
               WHERE m.user_id = $1 AND m.role = 'owner'";
    Ok(reader.find(sql, &[user.into()], |row| row.get(0))?.unwrap_or(0))
}

#[utoipa::path(get, path = "/{project}", responses((status = 200, body = Project)))]
async fn show(viewer: As<Viewer>) -> Result<Json<Project>, ApiError> {
    viewer.read(find).await.map(Json)
}

#[utoipa::path(patch, path = "/{project}", request_body = ProjectFields, responses((status = 200, body = Project)))]
async fn update(
    owner: As<Owner>,
    Json(fields): Json<ProjectFields>,
) -> Result<Json<Project>, ApiError> {
    owner
        .write(move |tx, caller| {
            tx.execute(
                "UPDATE projects SET name = $2, updated_at = $3 WHERE id = $1",
                &[caller.project.into(), (&fields.name.0).into(), tx.now().into()],
            )?;
            let changed = find(tx, caller)?;
            let named = serde_json::json!({"project": {"id": caller.project, "name": changed.name, "updated_at": changed.updated_at}});
            caller.record(tx, "project.updated", &named)?;
            Ok(Json(changed))
        })
        .await
}

#[utoipa::path(delete, path = "/{project}", responses((status = 204)))]
async fn remove(owner: As<Owner>) -> Result<StatusCode, ApiError> {
    owner.write(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes the project's row, without which nobody is let in. Its data are deleted afterwards, in steps ([`purge`]).
fn delete(tx: &mut Tx<'_>, caller: &Granted<'_, Owner>) -> Result<(), ApiError> {
    tx.execute("DELETE FROM projects WHERE id = $1", &[caller.project.into()])?;
    deletion::mark(tx, caller.project, tx.now())?;
    // Ends every stream of the project, and tells followers of the topic.
    caller.record(tx, "project.deleted", &serde_json::json!({"project": {"id": caller.project}}))
}
