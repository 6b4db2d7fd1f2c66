//! Messages by the list: those of some ids, and all of a project for who keeps an index.

use shared::{
    ids::{ChannelName, MessageId, ProjectId},
    store::{Reader, Value},
    time::Timestamp,
};

use super::{COLUMNS, Message, read};
use crate::{
    access::{Granted, Viewer},
    error::ApiError,
    reactions,
};

/// A place among a project's messages.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) Timestamp, pub(crate) MessageId);

impl Place {
    /// Returns the place of an imported message, whose id has its time.
    pub(crate) fn imported(id: MessageId) -> Self {
        let ms = id.0.as_u128() >> 80;
        Self(Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX)), id)
    }
}

/// Returns those of the messages that are the project's and are not deleted, in the order of `ids`. They come without their
/// reactions.
pub(crate) fn some(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    ids: &[MessageId],
) -> Result<Vec<Message>, ApiError> {
    let Some(last) = ids.last() else { return Ok(Vec::new()) };
    // Few lengths of the list, so that few statements are prepared: the last id fills it up.
    let length = ids.len().next_power_of_two();
    let numbers: Vec<String> = (2..length + 2).map(|number| format!("${number}")).collect();
    // By their ids first: SQLite would look for them among all messages of the project.
    let columns = COLUMNS.replace("FROM messages m", "FROM asked m");
    let sql = format!(
        "WITH asked AS MATERIALIZED (SELECT * FROM messages WHERE id IN ({})) {columns} AND m.deleted_at IS NULL",
        numbers.join(", ")
    );
    let filled = ids.iter().chain(std::iter::repeat(last)).take(length);
    let params: Vec<Value<'_>> =
        std::iter::once(caller.project.into()).chain(filled.map(|id| (*id).into())).collect();
    let mut messages = reader.query(&sql, &params, read)?;
    messages.sort_by_cached_key(|message| ids.iter().position(|id| *id == message.id));
    Ok(messages)
}

/// Returns what [`some`] does, with their reactions.
pub(crate) fn whole(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    ids: &[MessageId],
) -> Result<Vec<Message>, ApiError> {
    let mut messages = some(reader, caller, ids)?;
    let mut found = reactions::store::of_messages(reader, &caller.user, ids)?;
    for message in &mut messages {
        message.reactions = found.remove(&message.id).unwrap_or_default();
    }
    Ok(messages)
}

/// Returns the project's messages that are not deleted, in the order of time: after one place, up to another, and only of
/// `channels` if there are some. They come without their reactions.
pub(crate) fn range(
    reader: &Reader<'_>,
    project: ProjectId,
    (after, last): (Place, Place),
    channels: &[ChannelName],
    limit: i64,
) -> Result<Vec<Message>, ApiError> {
    let (from, to) = ([after.0.into(), after.1.into()], [last.0.into(), last.1.into()]);
    let mut params = vec![project.into(), from[0], from[1], to[0], to[1], limit.into()];
    params.extend(channels.iter().map(Value::from));
    let numbers: Vec<String> = (7..=params.len()).map(|number| format!("${number}")).collect();
    let of = if channels.is_empty() {
        String::new()
    } else {
        format!("AND m.channel IN ({})", numbers.join(", "))
    };
    let sql = format!(
        "{COLUMNS} AND (m.created_at, m.id) > ($2, $3) AND (m.created_at, m.id) <= ($4, $5) \
         AND m.deleted_at IS NULL {of} ORDER BY m.created_at, m.id LIMIT $6"
    );
    Ok(reader.query(&sql, &params, read)?)
}

/// Returns how many messages a project has, deleted ones too.
pub(crate) fn count(reader: &Reader<'_>, project: ProjectId) -> Result<u64, ApiError> {
    let sql = "SELECT COUNT(*) FROM messages WHERE project_id = $1";
    let count = reader.find(sql, &[project.into()], |row| row.get::<i64>(0))?;
    Ok(count.and_then(|count| count.try_into().ok()).unwrap_or(0))
}
