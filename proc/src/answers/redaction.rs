//! Redaction of answers that rest on a message which was deleted or edited.

use std::collections::HashSet;

use serde_json::{Value, json};
use shared::{
    answers::{CHUNK, COMPLETE, ERROR},
    ids::{AnswerId, MessageId, ProjectId},
    journal::Topic,
    store::{Error, Reader, Store, Tx},
    time::Timestamp,
};

use super::{
    events::Failed,
    store::{end, get},
};
use crate::search::Hit;

/// Empties the answers about a project that rest on one of the messages. One that is being written ends. Returns how many
/// answers it emptied.
pub(crate) async fn redact(
    store: &Store,
    project: ProjectId,
    messages: HashSet<MessageId>,
) -> Result<usize, Error> {
    let find = move |reader: &Reader<'_>| {
        let sql = "SELECT id, passages FROM answers WHERE project_id = $1 AND passages IS NOT NULL";
        let rests_on = reader.query(sql, &[project.into()], |row| {
            let hits: Vec<Hit> = serde_json::from_str(&row.get::<String>(1)?).unwrap_or_default();
            let is_used = hits.iter().any(|hit| messages.contains(&hit.message));
            Ok(is_used.then_some(row.get::<AnswerId>(0)?))
        })?;
        Ok::<_, Error>(rests_on.into_iter().flatten().collect::<Vec<_>>())
    };
    let mut redacted = 0;
    for id in store.read(find).await? {
        let empty = move |tx: &mut Tx<'_>| empty(tx, id, tx.now());
        redacted += usize::from(store.write_in(Topic::answer(id), empty).await?);
    }
    Ok(redacted)
}

/// Takes the text out of an answer; returns whether this was the first to do it.
fn empty(tx: &mut Tx<'_>, id: AnswerId, now: Timestamp) -> Result<bool, Error> {
    let sql = "UPDATE answers SET passages = NULL WHERE id = $1 AND passages IS NOT NULL";
    if tx.execute(sql, &[id.into()])? == 0 {
        return Ok(false);
    }
    tx.rewrite(&Topic::answer(id), without_text)?;
    if let Some(answer) = get(tx, id)?.filter(|answer| answer.ended_at.is_none()) {
        let failed = Failed {
            stream_id: &answer.question.asked.stream_id,
            trace_id: &answer.question.asked.trace_id,
            code: "source_deleted",
            message: "a message that the answer rests on was deleted or edited",
        };
        let data = serde_json::to_string(&failed).map_err(|_| Error::Gone)?;
        end(tx, id, ERROR, &data, now)?;
    }
    Ok(true)
}

/// Returns the data of an entry of an answer without what was said.
fn without_text(kind: &str, data: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(data).ok()?;
    match kind {
        CHUNK => event["text"] = json!(""),
        COMPLETE => {
            for source in event["sources"].as_array_mut()? {
                source["snippet"] = json!("");
            }
            event["redacted"] = json!(true);
        }
        _ => return None,
    }
    serde_json::to_string(&event).ok()
}
