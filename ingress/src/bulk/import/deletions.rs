//! Messages that were deleted where they come from: a later import deletes them here too.
//!
//! Nobody but its author edits a message, and the author of an imported one has no login. So none of them was edited here.

use std::collections::{BTreeSet, HashMap, HashSet};

use proto::{ImportMessage, ImportResponse};
use shared::{
    ids::{ChannelName, MessageId, ProjectId},
    store::Tx,
};

use super::{
    There,
    message::{LATEST_US, imported},
    slots::{Slots, Time},
    take_away,
};
use crate::{
    access::{Granted, Owner},
    bulk::identity::Identity,
    error::ApiError,
};

/// Deletes those of the messages with `only_deletes` that an earlier import brought.
pub(super) fn apply(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    source: &str,
    slots: &Slots<'_>,
    messages: &[ImportMessage],
    response: &mut ImportResponse,
) -> Result<(), ApiError> {
    let mut wanted: Vec<(u32, Time, &ImportMessage)> = Vec::new();
    for (index, message) in (0..).zip(messages).filter(|(_, message)| message.only_deletes) {
        match message.channel.parse::<ChannelName>() {
            Ok(channel) if (0..LATEST_US).contains(&message.sent_at_us) => {
                wanted.push((index, (channel, message.sent_at_us), message));
            }
            _ => response.not_here.push(index),
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut there = HashMap::new();
    let times: BTreeSet<Time> = wanted.iter().map(|(_, time, _)| time.clone()).collect();
    let rows = slots.rows(tx, times, &mut there)?;
    let mut done = HashSet::new();
    for (index, time, message) in wanted {
        let rows = rows.get(&time).into_iter().flatten();
        let rows = rows.filter_map(|(number, id)| Some((*number, *id, there.get(id)?)));
        let rows: Vec<(u32, MessageId, &There)> =
            rows.filter(|(.., row)| row.import.is_some() && !row.is_placeholder()).collect();
        let author = imported(&message.author);
        let found = match rows[..] {
            [one] => Some(one),
            _ => rows.into_iter().find(|(.., row)| Some(&row.author) == author.as_ref()),
        };
        let Some((number, id, row)) = found else {
            response.not_here.push(index);
            continue;
        };
        if row.deleted_at.is_some() || !done.insert(id) {
            response.existing += 1;
            continue;
        }
        let at = tx.now();
        take_away(tx, caller, id, at)?;
        for part in further_parts(tx, caller.project, source, &time, number)? {
            take_away(tx, caller, part, at)?;
        }
        response.updated += 1;
    }
    Ok(())
}

/// Returns the other messages that a long text was cut into.
fn further_parts(
    tx: &Tx<'_>,
    project: ProjectId,
    source: &str,
    (channel, sent_at_us): &Time,
    occurrence: u32,
) -> Result<Vec<MessageId>, ApiError> {
    let (sent_at_us, part) = (*sent_at_us, 0);
    let identity = Identity { project, source, channel, sent_at_us, occurrence, part };
    let ids = (1..).map_while(|part| Identity { part, ..identity }.id());
    super::undeleted(tx, ids)
}
