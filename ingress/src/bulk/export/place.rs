//! Where a message stands in its channel, in microseconds: what makes an exported message itself when it is imported.

use std::collections::BTreeSet;

use serde::Serialize;
use shared::{
    ids::{ChannelName, MessageId, ProjectId, UserId},
    store::{Error, Reader},
    time::Timestamp,
};
use uuid::Uuid;

use crate::{bulk::identity::micros, messages::Message};

/// Answers of answers that are followed up to the message that began them.
const DEEPEST: usize = 64;

/// What an export by channel tells of a message besides what it is.
#[derive(Serialize)]
pub(super) struct Place {
    sent_at_us: i64,
    parent: Option<Parent>,
}

/// The message that is answered, and the one that began it all.
#[derive(Serialize)]
struct Parent {
    channel: ChannelName,
    sent_at_us: i64,
    /// The first message of the thread, as far as it is in the answer's channel.
    thread: Option<Thread>,
}

#[derive(Serialize)]
struct Thread {
    sent_at_us: i64,
    author: UserId,
}

/// Finds places; it remembers the last millisecond, since most of a busy one's messages follow each other.
#[derive(Default)]
pub(super) struct Places {
    last: Option<(ChannelName, Timestamp)>,
    there: Vec<(MessageId, i64)>,
}

impl Places {
    /// Returns the place of a message.
    pub(super) fn of(&mut self, reader: &Reader<'_>, message: &Message) -> Result<Place, Error> {
        let project = message.project_id;
        let at = (message.channel.clone(), message.created_at);
        if self.last.as_ref() != Some(&at) {
            self.there = of_millisecond(reader, project, &at.0, at.1)?;
            self.last = Some(at);
        }
        let sent_at_us = find(&self.there, message.id, message.created_at);
        let parent = message.reply_to.map(|id| parent(reader, project, &message.channel, id));
        Ok(Place { sent_at_us, parent: parent.transpose()?.flatten() })
    }
}

/// A message up a thread.
struct Answered {
    channel: ChannelName,
    author: UserId,
    sent_at_us: i64,
    reply_to: Option<MessageId>,
}

fn parent(
    reader: &Reader<'_>,
    project: ProjectId,
    channel: &ChannelName,
    id: MessageId,
) -> Result<Option<Parent>, Error> {
    let Some(parent) = answered(reader, project, id)? else { return Ok(None) };
    let (mut thread, mut next) = (None, parent.reply_to);
    if parent.channel == *channel {
        let mut author = parent.author;
        let mut sent_at_us = parent.sent_at_us;
        for _ in 0..DEEPEST {
            let Some(id) = next else { break };
            let Some(above) = answered(reader, project, id)? else { break };
            if above.channel != *channel {
                break;
            }
            (sent_at_us, author, next) = (above.sent_at_us, above.author, above.reply_to);
        }
        thread = Some(Thread { sent_at_us, author });
    }
    Ok(Some(Parent { channel: parent.channel, sent_at_us: parent.sent_at_us, thread }))
}

fn answered(
    reader: &Reader<'_>,
    project: ProjectId,
    id: MessageId,
) -> Result<Option<Answered>, Error> {
    let sql = "SELECT channel, author, created_at, reply_to FROM messages WHERE project_id = $1 AND id = $2";
    let found = reader.find(sql, &[project.into(), id.into()], |row| {
        Ok((row.parse::<ChannelName>(0)?, row.parse(1)?, row.get(2)?, row.get(3)?))
    })?;
    let Some((channel, author, at, reply_to)) = found else { return Ok(None) };
    let sent_at_us = find(&of_millisecond(reader, project, &channel, at)?, id, at);
    Ok(Some(Answered { channel, author, sent_at_us, reply_to }))
}

fn of_millisecond(
    reader: &Reader<'_>,
    project: ProjectId,
    channel: &ChannelName,
    at: Timestamp,
) -> Result<Vec<(MessageId, i64)>, Error> {
    let sql = "SELECT id, import_id FROM messages WHERE project_id = $1 AND channel = $2 AND created_at = $3";
    let mut there = reader.query(sql, &[project.into(), channel.into(), at.into()], |row| {
        Ok((row.get::<MessageId>(0)?, row.get::<Option<Uuid>>(1)?.is_some()))
    })?;
    there.sort_unstable();
    let ids = there.iter().map(|(id, _)| *id);
    Ok(ids.zip(spread(&there)).map(|(id, within)| (id, at.as_ms() * 1_000 + within)).collect())
}

fn find(there: &[(MessageId, i64)], id: MessageId, at: Timestamp) -> i64 {
    there.iter().find(|(other, _)| *other == id).map_or(at.as_ms() * 1_000, |(_, at)| *at)
}

/// Gives each message of one millisecond of a channel a microsecond of its own, in their order. One that was imported
/// keeps the one it came with, which is in its id, so that its export is what was imported; the others stand between.
fn spread(there: &[(MessageId, bool)]) -> Vec<i64> {
    let own = |(id, is_imported): &(MessageId, bool)| micros(*id).filter(|_| *is_imported);
    let taken: BTreeSet<i64> = there.iter().filter_map(own).collect();
    let mut next = 0;
    let kept = there.iter().map(|message| {
        let at = own(message).unwrap_or_else(|| {
            while taken.contains(&next) {
                next += 1;
            }
            next
        });
        next = next.max(at + 1);
        at
    });
    let kept: Vec<i64> = kept.collect();
    if next <= 1_000 { kept } else { (0..).take(there.len()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(fraction: u16, low: u8) -> MessageId {
        let mut bytes = [low; 10];
        bytes[..2].copy_from_slice(&fraction.to_be_bytes());
        MessageId(uuid::Builder::from_unix_timestamp_millis(1, &bytes).into_uuid())
    }

    #[test]
    fn imported_messages_keep_every_microsecond() {
        for at in 0..1_000_u16 {
            let fraction = u16::try_from(u32::from(at) * 4_096 / 1_000).unwrap();
            assert_eq!(micros(id(fraction, 7)), Some(i64::from(at)));
        }
    }

    #[test]
    fn each_message_of_a_millisecond_has_its_own_place_in_order() {
        let own = |low| (id(9, low), false);
        assert_eq!(spread(&[own(1), own(2), own(3)]), [0, 1, 2]);
        let imported = |at: u32| (id(u16::try_from(at * 4_096 / 1_000).unwrap(), 1), true);
        assert_eq!(spread(&[imported(3), imported(7)]), [3, 7]);
        assert_eq!(spread(&[own(1), imported(3), own(3)]), [0, 3, 4]);
        // A part of a long text follows its first message, and no message that came with its microsecond gives way.
        let part = (id(3 * 4_096 / 1_000 + 1, 2), true);
        assert_eq!(spread(&[imported(3), part, imported(4), own(9)]), [3, 5, 4, 6]);
        let last = imported(999);
        assert_eq!(spread(&[last, own(9)]), [0, 1]);
    }
}
