//! What can be read of logs: where they end, what is in them, where a follower goes on.

use std::{collections::HashMap, sync::Arc};

use super::{
    Entry, ResetReason, Start, Tail, Topic,
    cursor::{self, Cursor, Position},
    pack,
    proof::Evidence,
    tail,
};
use crate::{
    ids::ProjectId,
    store::{Error, Reader, Row, Value},
};

/// Logs whose ends are asked for in one query.
const HEADS: usize = 256;
/// Statement that reads heads, up to its condition. The head's row is read only where the topic does not know the tag.
const HEAD: &str = "SELECT t.epoch, t.head, t.tag, \
                    CASE WHEN t.tag IS NULL THEN (SELECT e.tags FROM entries e WHERE e.topic = t.name AND e.seq = t.head) END, \
                    CASE WHEN t.tag IS NULL THEN (SELECT e.data FROM entries e WHERE e.topic = t.name AND e.seq = t.head) END, \
                    t.name FROM topics t WHERE t.name";

/// What is read of a row of entries, after its log's epoch.
const ROW: &str = "e.seq, e.type, e.data, e.at, e.packed, e.tags";

/// Returns the entries of a row that come after `after`.
fn entries_of(topic: &Topic, row: &Row<'_>, after: i64) -> Result<Vec<Entry>, Error> {
    let (epoch, last, at) = (row.get(0)?, row.get::<i64>(1)?, row.get(4)?);
    let packed: Option<Vec<u8>> = row.get(5)?;
    let row = pack::Row::of(row.get(2)?, row.get(3)?, packed.as_deref(), row.get(6)?);
    let row = row.ok_or(Error::Column { column: 5 })?;
    // From the last one back, as that is the one whose number is known.
    let numbers = (after.saturating_add(1)..=last).rev();
    let mut entries: Vec<_> = numbers
        .zip(row.backwards())
        .map(|(seq, (kind, data, tag))| {
            Entry::new(topic, Position { epoch, seq, tag }, kind, data, at)
        })
        .collect();
    entries.reverse();
    Ok(entries)
}

/// Reads a row of [`HEAD`].
fn position(row: &Row<'_>) -> Result<Position, Error> {
    let tag = match (row.get::<Option<i64>>(2)?, row.get::<Option<String>>(4)?) {
        (Some(tag), _) => u32::try_from(tag).map_err(|_| Error::Column { column: 2 })?,
        // The packed entries before the head do not matter.
        (None, Some(data)) => pack::last_tag(&data, row.get::<Option<Vec<u8>>>(3)?.as_deref()),
        (None, None) => 0,
    };
    Ok(Position { epoch: row.get(0)?, seq: row.get(1)?, tag })
}

/// Keeps the first entries that have at most `bytes` together, or the first one: what was packed is longer than its row.
fn within(mut entries: Vec<Arc<Entry>>, bytes: usize) -> Vec<Arc<Entry>> {
    let mut sum = 0;
    let fits = entries.iter().take_while(|entry| {
        sum += entry.data.len();
        sum <= bytes
    });
    let count = fits.count().max(1);
    entries.truncate(count);
    entries
}

impl Reader<'_> {
    /// Returns whether the log has this very entry, by its position.
    pub(crate) fn has(&self, entry: &Entry) -> Result<bool, Error> {
        let found = self.entries(&entry.topic, entry.position.seq - 1, 1)?;
        Ok(found.first().is_some_and(|found| found.position == entry.position))
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
                Ok((Topic(row.get::<String>(5)?.into()), position(row)?))
            })?);
        }
        Ok(heads)
    }

    /// Returns every project that has a log, with the log's head.
    pub fn project_heads(&self) -> Result<Vec<(ProjectId, Position)>, Error> {
        // Spelled as in the index.
        self.query(&format!("{HEAD} LIKE 'project/%'"), &[], |row| {
            let name = row.get::<String>(5)?;
            let project = name.strip_prefix("project/").and_then(|id| id.parse().ok());
            Ok((project.ok_or(Error::Column { column: 5 })?, position(row)?))
        })
    }

    /// Returns the end of the log, `None` if there is no such log.
    pub fn head(&self, topic: &Topic) -> Result<Option<Position>, Error> {
        self.find(&format!("{HEAD} = $1"), &[topic.as_str().into()], position)
    }

    /// Returns at most `limit` entries after `seq`, in order.
    pub fn entries(&self, topic: &Topic, after: i64, limit: i64) -> Result<Vec<Arc<Entry>>, Error> {
        // Numbers have no holes, so the last row is the one with the number that is `limit` further, or further than those
        // which are no longer kept.
        let sql = format!(
            "SELECT t.epoch, {ROW} FROM entries e JOIN topics t ON t.name = e.topic WHERE e.topic = $1 AND e.seq > $2 \
             AND e.seq <= COALESCE((SELECT MIN(l.seq) FROM entries l WHERE l.topic = $1 AND l.seq >= $3 + \
             COALESCE((SELECT floor - 1 FROM topics WHERE name = $1 AND floor > $2), $2)), t.head) ORDER BY e.seq"
        );
        let params = [topic.as_str().into(), after.into(), limit.into()];
        let rows = self.query(&sql, &params, |row| entries_of(topic, row, after))?;
        let limit = usize::try_from(limit).unwrap_or_default();
        let beginning = Position { epoch: 0, seq: 0, tag: 0 };
        let mut before = (after == 0).then_some(beginning);
        let entries = rows.into_iter().flatten().take(limit).map(|entry| {
            let previous = before.filter(|before| before.seq + 1 == entry.position.seq);
            before = Some(entry.position);
            Arc::new(Entry { previous: previous.map(|previous| previous.tag), ..entry })
        });
        Ok(entries.collect())
    }

    /// Returns at most `limit` entries that follow `last`, in order, once the entry at `last` is proved to be the same one.
    /// Each of them names the tag of the one before it.
    pub fn follow(
        &self,
        topic: &Topic,
        last: Position,
        limit: i64,
    ) -> Result<Result<Vec<Arc<Entry>>, tail::Error>, Error> {
        let after = last.seq.saturating_sub(1).max(0);
        let read = self.entries(topic, after, limit.saturating_add(last.seq - after))?;
        let head = if read.is_empty() { self.head(topic)? } else { None };
        Ok(tail::prove(last, head, read))
    }

    /// Returns the tail of a consumer that begins at the topic's head, with as many tags as are to be kept. Returns `None` if
    /// there is no such topic.
    pub fn tail(&self, topic: &Topic, kept: u32) -> Result<Option<Tail>, Error> {
        let Some(head) = self.head(topic)? else { return Ok(None) };
        let entries = self.entries(topic, (head.seq - i64::from(kept)).max(0), kept.into())?;
        let first = entries.first().map(|entry| entry.position);
        let first = match first {
            Some(first) if first.seq > 1 => first,
            Some(first) => Position { seq: 0, tag: 0, ..first },
            None => head,
        };
        let mut tail = Tail::keeping(kept as usize, first);
        for entry in entries.iter().filter(|entry| entry.position.seq > first.seq) {
            tail.push(entry.position);
        }
        Ok(Some(tail))
    }

    /// Takes a tail that the journal does not have back to the last entry that was not lost. Returns `false` if that is not
    /// among those that the tail keeps.
    pub fn rewind(&self, topic: &Topic, tail: &mut Tail) -> Result<bool, Error> {
        let kept = tail.last().seq - tail.oldest() + 1;
        let head = self.head(topic)?;
        if head.is_none_or(|head| head.epoch != tail.last().epoch) {
            return Ok(false);
        }
        Ok(tail.rewind(&self.entries(topic, tail.oldest().saturating_sub(1).max(0), kept)?))
    }

    /// Returns at most `limit` entries after `seq`, in order, which have at most `bytes` together unless the first one alone
    /// has more. Rows beyond that are not read.
    pub fn entries_within(
        &self,
        topic: &Topic,
        after: i64,
        limit: i64,
        bytes: usize,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let count = self.count_within(topic, after, limit, bytes)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        Ok(within(self.entries(topic, after, count)?, bytes))
    }

    /// Like [`Reader::follow`], with at most `bytes` of entries unless the first one alone has more.
    pub fn follow_within(
        &self,
        topic: &Topic,
        last: Position,
        limit: i64,
        bytes: usize,
    ) -> Result<Result<Vec<Arc<Entry>>, tail::Error>, Error> {
        let count = self.count_within(topic, last.seq, limit, bytes)?;
        Ok(self.follow(topic, last, count)?.map(|entries| within(entries, bytes)))
    }

    /// Returns how many entries after `after` are in rows of at most `bytes` together, or in the first row.
    fn count_within(
        &self,
        topic: &Topic,
        after: i64,
        limit: i64,
        bytes: usize,
    ) -> Result<i64, Error> {
        let sql = "SELECT e.seq, CAST(OCTET_LENGTH(e.data) + COALESCE(OCTET_LENGTH(e.packed), 0) AS BIGINT) FROM entries e \
                   WHERE e.topic = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3";
        let params = [topic.as_str().into(), after.into(), limit.into()];
        let rows = self.query(sql, &params, |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
        let (mut last, mut sum) = (after, 0);
        for (seq, length) in rows {
            sum += usize::try_from(length).unwrap_or(usize::MAX);
            if last > after && sum > bytes {
                break;
            }
            last = seq;
        }
        Ok(limit.min(last - after))
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

    /// Like [`Reader::start`], but a follower whose cursor has expired starts before the first later entry that is kept.
    /// Entries of the log carry no tag of that place, so its tag is 0. The place is good for as long as the entry is kept.
    pub fn start_or_first_kept(&self, topic: &Topic, cursor: &str) -> Result<Option<Start>, Error> {
        let start = self.start(topic, Some(cursor))?;
        let place = cursor.parse::<Cursor>().ok().and_then(|cursor| cursor.position(topic));
        let (Some(Start { position: head, reset: Some(ResetReason::Expired) }), Some(place)) =
            (start, place)
        else {
            return Ok(start);
        };
        let Some(first) = self.entries(topic, place.seq, 1)?.into_iter().next() else {
            return Ok(start);
        };
        let position = Position { epoch: head.epoch, seq: first.position.seq - 1, tag: 0 };
        let reset = (place != position).then_some(ResetReason::Expired);
        Ok(Some(Start { position, reset }))
    }

    pub(super) fn evidence(
        &self,
        topic: &Topic,
        head: Position,
        place: Position,
    ) -> Result<Evidence, Error> {
        let sql = format!(
            "SELECT t.epoch, {ROW}, t.floor FROM topics t LEFT JOIN entries e ON e.topic = t.name \
             AND e.seq = (SELECT MIN(n.seq) FROM entries n WHERE n.topic = t.name AND n.seq >= $2) WHERE t.name = $1"
        );
        let params = [topic.as_str().into(), place.seq.into()];
        let found = self.find(&sql, &params, |row| {
            let is_kept = row.get::<Option<i64>>(1)?.is_some();
            let entries = if is_kept { entries_of(topic, row, place.seq - 1)? } else { Vec::new() };
            let first = entries.first().map(|entry| entry.position);
            Ok((row.get::<i64>(7)?, first.filter(|first| first.seq == place.seq)))
        })?;
        // A log that was deleted since its head was read keeps nothing.
        let (floor, found) = found.unwrap_or((i64::MAX, None));
        Ok(Evidence {
            head,
            floor,
            tag: found.map(|found| found.tag),
            #[cfg(test)]
            sabotage: None,
        })
    }
}
