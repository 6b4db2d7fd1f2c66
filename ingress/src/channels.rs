//! Channels: what messages of a project are sorted by.

use axum::{
    extract::State,
    response::{AppendHeaders, IntoResponse},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    http::{Json, Limit, Path, Query},
    ids::{ChannelId, ChannelName, ProjectId},
    names::{has_invisible, is_visible, without_invisible},
    store::{Error, Reader, Row, Tx},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ChatConfig,
    access::{As, AtLeast, Granted, Member, Viewer, Writes},
    error::ApiError,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(show, update))
}

/// A channel of a project.
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct Channel {
    id: ChannelId,
    project_id: ProjectId,
    name: ChannelName,
    topic: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize)]
struct ChannelEvent<'a> {
    channel: &'a Channel,
}

/// A page of channels, by name.
#[derive(Serialize, utoipa::ToSchema)]
struct Channels {
    channels: Vec<Channel>,
    next: Option<ChannelName>,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Page {
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<ChannelName>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewChannel {
    name: NewChannelName,
    topic: Option<ChannelTopic>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChannelFields {
    topic: Option<ChannelTopic>,
}

/// Name of a new channel. Two names that look the same would be two channels, so that it has no character that shows nothing.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String)]
struct NewChannelName(ChannelName);

impl TryFrom<String> for NewChannelName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if has_invisible(&name) || !is_visible(&name) {
            return Err(
                "a channel's name has no direction marks or other invisible characters".into()
            );
        }
        ChannelName::try_from(name).map(Self).map_err(|error| error.to_string())
    }
}

/// What a channel is about, in at most 1,000 characters.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
struct ChannelTopic(String);

impl TryFrom<String> for ChannelTopic {
    type Error = &'static str;

    fn try_from(topic: String) -> Result<Self, &'static str> {
        let fits = topic.chars().count() <= 1_000 && !topic.contains('\0');
        if fits {
            Ok(Self(clean_topic(&topic)))
        } else {
            Err("a channel's topic has at most 1,000 characters and no NUL")
        }
    }
}

/// Returns a topic without characters that show nothing or reorder the text around them; it keeps its lines.
pub(crate) fn clean_topic(topic: &str) -> String {
    topic.split('\n').map(without_invisible).collect::<Vec<_>>().join("\n")
}

/// Returns the name of the channel that every project starts with and that messages without a channel go to.
pub(crate) fn default_name() -> ChannelName {
    "general".parse().expect("the default channel's name is valid")
}

const COLUMNS: &str = "SELECT id, project_id, name, topic, created_at, updated_at FROM channels WHERE project_id = $1";

fn read(row: &Row<'_>) -> Result<Channel, Error> {
    Ok(Channel {
        id: row.get(0)?,
        project_id: row.get(1)?,
        name: row.parse(2)?,
        topic: row.get(3)?,
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
    })
}

fn find<R: AtLeast>(
    reader: &Reader<'_>,
    caller: &Granted<'_, R>,
    name: &ChannelName,
) -> Result<Channel, ApiError> {
    let sql = format!("{COLUMNS} AND name = $2");
    let found = reader.find(&sql, &[caller.project.into(), name.into()], read)?;
    found.ok_or(ApiError::NotFound("the channel"))
}

/// Lets pass a name that is a channel's.
pub(crate) fn require<R: AtLeast>(
    reader: &Reader<'_>,
    caller: &Granted<'_, R>,
    name: &ChannelName,
) -> Result<(), ApiError> {
    if exists(reader, caller, name)? { Ok(()) } else { Err(no_such_channel()) }
}

/// Returns whether the project has the channel.
pub(crate) fn exists<R: AtLeast>(
    reader: &Reader<'_>,
    caller: &Granted<'_, R>,
    name: &ChannelName,
) -> Result<bool, ApiError> {
    let sql = "SELECT 1 FROM channels WHERE project_id = $1 AND name = $2";
    Ok(reader.find(sql, &[caller.project.into(), name.into()], |_| Ok(()))?.is_some())
}

/// Says that a request names a channel that there is not.
pub(crate) fn no_such_channel() -> ApiError {
    ApiError::Field { field: "channel", message: "the project has no such channel".into() }
}

/// Makes a channel.
pub(crate) fn create<R: Writes>(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, R>,
    name: ChannelName,
    topic: Option<String>,
) -> Result<Channel, ApiError> {
    let now = tx.now();
    let channel = Channel {
        id: ChannelId::mint(),
        project_id: caller.project,
        name,
        topic,
        created_at: now,
        updated_at: now,
    };
    let made = tx.execute(
        "INSERT INTO channels (project_id, name, id, topic, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (project_id, name) DO NOTHING",
        &[
            caller.project.into(),
            (&channel.name).into(),
            channel.id.into(),
            channel.topic.as_ref().into(),
            now.into(),
        ],
    )?;
    if made == 0 {
        return Err(ApiError::Conflict("the project has a channel of this name"));
    }
    caller.record(tx, "channel.created", &ChannelEvent { channel: &channel })?;
    Ok(channel)
}

/// Returns the number of a project's channels.
pub(crate) fn count(reader: &Reader<'_>, project: ProjectId) -> Result<i64, ApiError> {
    let sql = "SELECT COUNT(*) FROM channels WHERE project_id = $1";
    Ok(reader.find(sql, &[project.into()], |row| row.get(0))?.unwrap_or(0))
}

/// Gives a topic to a channel that nobody has changed since its project began.
pub(crate) fn describe_untouched<R: Writes>(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, R>,
    name: &ChannelName,
    topic: &str,
) -> Result<(), ApiError> {
    let changed = tx.execute(
        "UPDATE channels SET topic = $3, updated_at = $4 WHERE project_id = $1 AND name = $2 \
         AND topic IS NULL AND import_id IS NULL AND updated_at = created_at",
        &[caller.project.into(), name.into(), topic.into(), tx.now().into()],
    )?;
    if changed > 0 {
        let channel = find(tx, caller, name)?;
        caller.record(tx, "channel.updated", &ChannelEvent { channel: &channel })?;
    }
    Ok(())
}

#[utoipa::path(get, path = "/{project}/channels", params(Page), responses((status = 200, body = Channels)))]
async fn list(viewer: As<Viewer>, Query(page): Query<Page>) -> Result<Json<Channels>, ApiError> {
    viewer
        .read(move |reader, caller| {
            let after = page.after.as_ref().map_or("", ChannelName::as_str);
            let sql = format!("{COLUMNS} AND name > $2 ORDER BY name LIMIT $3");
            let params = [caller.project.into(), after.into(), page.limit.and_one().into()];
            let mut channels = reader.query(&sql, &params, read)?;
            let next = page.limit.cut(&mut channels).map(|channel| channel.name.clone());
            Ok(Json(Channels { channels, next }))
        })
        .await
}

#[utoipa::path(post, path = "/{project}/channels", request_body = NewChannel, responses((status = 201, body = Channel)))]
async fn add(
    State(limits): State<ChatConfig>,
    member: As<Member>,
    Json(NewChannel { name, topic }): Json<NewChannel>,
) -> Result<impl IntoResponse, ApiError> {
    let channel = member
        .write(move |tx, caller| {
            if count(tx, caller.project)? >= i64::from(limits.channels_per_project) {
                return Err(ApiError::Conflict("the project has as many channels as it may"));
            }
            create(tx, caller, name.0.clone(), topic.as_ref().map(|topic| topic.0.clone()))
        })
        .await?;
    let location = format!("/api/chat/projects/{}/channels/{}", member.project, channel.name);
    // A name outside ASCII cannot stand in a header as it is.
    let location = location.is_ascii().then_some(AppendHeaders([(header::LOCATION, location)]));
    Ok((StatusCode::CREATED, location, Json(channel)))
}

#[utoipa::path(get, path = "/{project}/channels/{channel}", responses((status = 200, body = Channel)))]
async fn show(
    viewer: As<Viewer>,
    Path((_project, name)): Path<(ProjectId, ChannelName)>,
) -> Result<Json<Channel>, ApiError> {
    viewer.read(move |reader, caller| find(reader, caller, &name).map(Json)).await
}

#[utoipa::path(patch, path = "/{project}/channels/{channel}", request_body = ChannelFields, responses((status = 200, body = Channel)))]
async fn update(
    member: As<Member>,
    Path((_project, name)): Path<(ProjectId, ChannelName)>,
    Json(fields): Json<ChannelFields>,
) -> Result<Json<Channel>, ApiError> {
    member
        .write(move |tx, caller| {
            tx.execute(
                "UPDATE channels SET topic = $3, updated_at = $4 WHERE project_id = $1 AND name = $2",
                &[
                    caller.project.into(),
                    (&name).into(),
                    fields.topic.as_ref().map(|topic| topic.0.as_str()).into(),
                    tx.now().into(),
                ],
            )?;
            let channel = find(tx, caller, &name)?;
            caller.record(tx, "channel.updated", &ChannelEvent { channel: &channel })?;
            Ok(Json(channel))
        })
        .await
}
