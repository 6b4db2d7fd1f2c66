//! Pages of a project's log, as its owner's stream has them.

use std::sync::Arc;

use proto::{Event, GetEventsResponse};
use shared::{
    journal::{Cursor, Entry},
    store::Reader,
};

use crate::{
    access::{Granted, Owner},
    error::ApiError,
};

/// Events in a page at most.
const MOST: u32 = 200;
/// A page this long takes no further event: far below what gRPC lets pass.
const PAGE_BYTES: usize = 512 * 1024;

/// Returns the events that follow the cursor. If the log does not go on there, returns the reason with the cursor to go on
/// at: before the first later event that is kept, or at the end of a log that is another one.
pub(super) fn page(
    reader: &Reader<'_>,
    caller: &Granted<'_, Owner>,
    after: &str,
    limit: u32,
) -> Result<GetEventsResponse, ApiError> {
    let topic = caller.topic();
    let start = reader.start_or_first_kept(&topic, after)?;
    let start = start.ok_or(ApiError::NotFound("the project"))?;
    let cursor = Cursor::at(&topic, start.position).to_string();
    if let Some(reason) = start.reset {
        let name = serde_json::to_value(reason).map_err(anyhow::Error::from)?;
        let reset = name.as_str().map(Into::into);
        return Ok(GetEventsResponse { events: Vec::new(), reset, cursor });
    }
    let entries = reader.entries(&topic, start.position.seq, limit.clamp(1, MOST).into())?;
    let mut bytes = 0;
    let mut fits = |entry: &&Arc<Entry>| {
        let fits = bytes < PAGE_BYTES;
        bytes += entry.data.len();
        fits
    };
    let events = entries.iter().take_while(&mut fits).map(|entry| Event {
        r#type: entry.kind.to_string(),
        json: entry.data.to_string(),
        cursor: Cursor::at(&topic, entry.position).to_string(),
    });
    let events: Vec<Event> = events.collect();
    let cursor = events.last().map_or(cursor, |last| last.cursor.clone());
    Ok(GetEventsResponse { events, reset: None, cursor })
}
