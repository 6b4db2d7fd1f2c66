//! Reading a whole project as lines of JSON, a page at a time.

mod place;

use futures_util::{Stream, stream};
use proto::{ExportOrder, ExportPage};
use serde::Serialize;
use serde_json::json;
use shared::{
    ids::{ChannelName, MessageId, UserId},
    store::{Error, Reader, Row, Value},
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::place::{Place, Places};
use super::status;
use crate::{
    access::{As, Granted, Viewer},
    error::ApiError,
    messages::{Message, store::after_bare},
    reactions,
};

/// Records in a page at most.
const PAGE: i64 = 500;
/// A page this long takes no further message: far below what gRPC lets pass.
const PAGE_BYTES: usize = 512 * 1024;

/// What the next page begins after.
#[derive(Clone)]
enum Next {
    Start,
    People(String),
    Messages(Option<MessageId>),
    /// The channel after the one of this name.
    Channel(String),
    MessagesOf(ChannelName, Option<MessageId>),
    End,
}

/// Returns the project's pages, in one of the orders that there are.
pub(super) fn pages(
    viewer: As<Viewer>,
    order: ExportOrder,
    closing: CancellationToken,
) -> impl Stream<Item = Result<ExportPage, Status>> + Send {
    stream::try_unfold(Next::Start, move |next| {
        let (viewer, closing) = (viewer.clone(), closing.clone());
        async move {
            if matches!(next, Next::End) {
                return Ok(None);
            }
            if closing.is_cancelled() {
                return Err(Status::unavailable("this instance is going away"));
            }
            // Asked anew for each page: the caller may have been removed.
            let page = viewer.read(move |reader, caller| page(reader, caller, order, next.clone()));
            page.await.map(Some).map_err(status)
        }
    })
}

fn page(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    order: ExportOrder,
    next: Next,
) -> Result<(ExportPage, Next), ApiError> {
    let mut lines = Lines::default();
    let mut total_messages = 0;
    let project = caller.project.into();
    let following = match next {
        Next::Start => {
            let sql = "SELECT id, name, created_at FROM projects WHERE id = $1";
            lines.all(reader, sql, &[project], |row| {
                let (id, name): (uuid::Uuid, String) = (row.get(0)?, row.get(1)?);
                Ok(json!({"kind": "project", "id": id, "name": name, "created_at": row.get::<Timestamp>(2)?}))
            })?;
            let sql = "SELECT user_id, role, added_at FROM members WHERE project_id = $1 ORDER BY user_id";
            lines.all(reader, sql, &[project], |row| {
                let (user, role): (String, String) = (row.get(0)?, row.get(1)?);
                Ok(json!({"kind": "member", "user": user, "role": role, "added_at": row.get::<Timestamp>(2)?}))
            })?;
            let sql = "SELECT id, name, topic, created_at FROM channels WHERE project_id = $1 ORDER BY name";
            lines.all(reader, sql, &[project], |row| {
                let (id, name): (uuid::Uuid, String) = (row.get(0)?, row.get(1)?);
                let topic: Option<String> = row.get(2)?;
                Ok(json!({"kind": "channel", "id": id, "name": name, "topic": topic, "created_at": row.get::<Timestamp>(3)?}))
            })?;
            let sql = "SELECT COUNT(*) FROM messages WHERE project_id = $1";
            let total = reader.find(sql, &[project], |row| row.get::<i64>(0))?;
            total_messages = total.and_then(|total| total.try_into().ok()).unwrap_or(0);
            match order {
                ExportOrder::ByTime => Next::People(String::new()),
                ExportOrder::ByChannel => Next::Channel(String::new()),
            }
        }
        Next::People(from) => {
            let sql = "SELECT id, name, is_bot FROM people WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3";
            let read = |row: &Row<'_>| {
                Ok((row.parse::<UserId>(0)?, row.get::<String>(1)?, row.get::<bool>(2)?))
            };
            let people = reader.query(sql, &[project, (&from).into(), PAGE.into()], read)?;
            for (id, name, bot) in &people {
                lines.push(&json!({"kind": "person", "id": id, "name": name, "is_bot": bot}))?;
            }
            match people.last() {
                Some((id, ..)) if i64::try_from(people.len()) == Ok(PAGE) => {
                    Next::People(id.to_string())
                }
                _ if order == ExportOrder::ByChannel => Next::End,
                _ => Next::Messages(None),
            }
        }
        Next::Messages(from) => {
            let last = messages(reader, caller, None, from, &mut lines)?;
            last.map_or(Next::End, |last| Next::Messages(Some(last)))
        }
        Next::Channel(before) => {
            let sql = "SELECT name FROM channels WHERE project_id = $1 AND name > $2 ORDER BY name LIMIT 1";
            let name = reader.find(sql, &[project, (&before).into()], |row| row.parse(0))?;
            name.map_or_else(|| Next::People(String::new()), |name| Next::MessagesOf(name, None))
        }
        Next::MessagesOf(name, from) => {
            match messages(reader, caller, Some(&name), from, &mut lines)? {
                Some(last) => Next::MessagesOf(name, Some(last)),
                None => Next::Channel(name.as_str().to_owned()),
            }
        }
        Next::End => Next::End,
    };
    let page = ExportPage {
        ndjson: lines.text,
        records: lines.records,
        messages: lines.messages,
        total_messages,
        last: matches!(following, Next::End),
    };
    Ok((page, following))
}

/// Adds messages until the page is long enough, whatever their length; returns after which one the next page of
/// them begins. Those
/// of one channel are told with their places in it.
fn messages(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    channel: Option<&ChannelName>,
    from: Option<MessageId>,
    lines: &mut Lines,
) -> Result<Option<MessageId>, ApiError> {
    let mut messages = after_bare(reader, caller, channel, from, PAGE)?;
    let full = messages.len() == usize::try_from(PAGE).unwrap_or(0);
    let mut places = Places::default();
    let mut last = from;
    for message in &mut messages {
        if lines.text.len() > PAGE_BYTES {
            return Ok(last);
        }
        message.reactions = reactions::store::whole(reader, message.id)?;
        let place = channel.map(|_| places.of(reader, message)).transpose()?;
        lines.push(&Record { kind: "message", message, place })?;
        lines.messages += 1;
        last = Some(message.id);
    }
    Ok(last.filter(|_| full))
}

#[derive(Serialize)]
struct Record<'a> {
    kind: &'static str,
    #[serde(flatten)]
    message: &'a Message,
    #[serde(flatten)]
    place: Option<Place>,
}

/// A page in the making.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    records: u64,
    messages: u64,
}

impl Lines {
    fn push(&mut self, record: &impl Serialize) -> Result<(), ApiError> {
        serde_json::to_writer(&mut self.text, record)?;
        self.text.push(b'\n');
        self.records += 1;
        Ok(())
    }

    fn all(
        &mut self,
        reader: &Reader<'_>,
        sql: &str,
        params: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<serde_json::Value, Error>,
    ) -> Result<(), ApiError> {
        reader.query(sql, params, read)?.iter().try_for_each(|record| self.push(record))
    }
}
