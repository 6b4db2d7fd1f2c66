//! What can be read of logs: where they end, what is in them, where a follower goes on.

use std::{collections::HashMap, sync::Arc};

use super::{
    Entry, ResetReason, Start, Topic,
    cursor::{self, Cursor, Position},
    proof::Evidence,
};
use crate::{
    ids::ProjectId,
    store::{Error, Reader, Row, Value},
};

/// Logs whose ends are asked for in one query.
const HEADS: usize = 256;
const HEAD: &str = "SELECT t.epoch, t.head, e.data, t.name FROM topics t LEFT JOIN entries e \
                    ON e.topic = t.name AND e.seq = t.head WHERE t.name";

fn position(row: &Row<'_>) -> Result<Position, Error> {
    let tag = row.get::<Option<String>>(2)?.map_or(0, |data| crc32fast::hash(data.as_bytes()));
    Ok(Position { epoch: row.get(0)?, seq: row.get(1)?, tag })
}

impl Reader<'_> {
    /// Says whether the log has this very entry.
    pub(crate) fn has(&self, entry: &Entry) -> Result<bool, Error> {
        let sql = "SELECT t.epoch, e.data FROM entries e JOIN topics t ON t.name = e.topic WHERE e.topic = $1 AND e.seq = $2";
        let params = [entry.topic.as_str().into(), entry.position.seq.into()];
        let found =
            self.find(sql, &params, |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?)))?;
        Ok(found.is_some_and(|(epoch, data)| epoch == entry.position.epoch && *data == *entry.data))
    }

    /// Returns the ends of those of the logs that there are.
    pub fn heads(&self, topics: &[Topic]) -> Result<HashMap<Topic, Position>, Error> {
        let mut heads = HashMap::new();
        for some in topics.chunks(HEADS) {
            // Few lengths of the list, so that few statements are prepared: the last name fills it up.
            let length = some.len().next_power_of_two();
            let filled = some.iter().chain(some.last().into_iter().cycle()).take(length);
            let names: Vec<Value<'_>> = filled.map(|topic| topic.as_str().into()).collect();
            let numbers: Vec<String> = (1..=length).map(|number| format!("${number}")).collect();
            let sql = format!("{HEAD} IN ({})", numbers.join(", "));
            heads.extend(self.query(&sql, &names, |row| {
                Ok((Topic(row.get::<String>(3)?.into()), position(row)?))
            })?);
        }
        Ok(heads)
    }

    /// Returns every project that has a log, with the log's epoch and the number of its last entry.
    pub fn project_heads(&self) -> Result<Vec<(ProjectId, i64, i64)>, Error> {
        // Spelled as in the index.
        let sql = "SELECT name, epoch, head FROM topics WHERE name LIKE 'project/%'";
        self.query(sql, &[], |row| {
            let name = row.get::<String>(0)?;
            let project = name.strip_prefix("project/").and_then(|id| id.parse().ok());
            Ok((project.ok_or(Error::Column { column: 0 })?, row.get(1)?, row.get(2)?))
        })
    }

    /// Returns the end of the log, `None` if there is no such log.
    pub fn head(&self, topic: &Topic) -> Result<Option<Position>, Error> {
        self.find(&format!("{HEAD} = $1"), &[topic.as_str().into()], position)
    }

    /// Returns at most `limit` entries after `seq`, in order.
    pub fn entries(&self, topic: &Topic, after: i64, limit: i64) -> Result<Vec<Arc<Entry>>, Error> {
        let sql = "SELECT t.epoch, e.seq, e.type, e.data, e.at FROM entries e JOIN topics t ON t.name = e.topic \
                   WHERE e.topic = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3";
        self.query(sql, &[topic.as_str().into(), after.into(), limit.into()], |row: &Row<'_>| {
            let (kind, data) = (row.get::<String>(2)?, row.get::<String>(3)?);
            Ok(Arc::new(Entry::new(topic, row.get(0)?, row.get(1)?, &kind, &data, row.get(4)?)))
        })
    }

    /// Says where a follower with `cursor` goes on: at the cursor if the log can prove that nothing is missing, else at
    /// the log's end with the reason. `None` as a cursor starts at the end. Returns `None` if there is no such log.
    pub fn start(&self, topic: &Topic, cursor: Option<&str>) -> Result<Option<Start>, Error> {
        let Some(head) = self.head(topic)? else { return Ok(None) };
        let Some(cursor) = cursor else { return Ok(Some(Start { position: head, reset: None })) };
        let outcome = match cursor.parse::<Cursor>() {
            Ok(cursor) => match cursor.position(topic) {
                Some(place) => self.evidence(topic, head, place)?.judge(place),
                None => Err(ResetReason::UnknownEpoch),
            },
            Err(cursor::Malformed) => Err(ResetReason::Malformed),
        };
        Ok(Some(match outcome {
            Ok(position) => Start { position, reset: None },
            Err(reason) => Start { position: head, reset: Some(reason) },
        }))
    }

    pub(super) fn evidence(
        &self,
        topic: &Topic,
        head: Position,
        place: Position,
    ) -> Result<Evidence, Error> {
        let sql = "SELECT t.floor, e.data FROM topics t LEFT JOIN entries e \
                   ON e.topic = t.name AND e.seq = $2 WHERE t.name = $1";
        let params = [topic.as_str().into(), place.seq.into()];
        let found =
            self.find(sql, &params, |row| Ok((row.get::<i64>(0)?, row.get::<Option<String>>(1)?)))?;
        // A log that was deleted since its head was read keeps nothing.
        let (floor, data) = found.unwrap_or((i64::MAX, None));
        Ok(Evidence {
            head,
            floor,
            tag: data.map(|data| crc32fast::hash(data.as_bytes())),
            #[cfg(test)]
            sabotage: None,
        })
    }
}
