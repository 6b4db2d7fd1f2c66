//! Ids of imported messages: the same each time a message is imported, in the order of time, with its microseconds in them.

use sha2::{Digest, Sha256};
use shared::ids::{ChannelName, MessageId, ProjectId};

/// Messages of one time that a channel can have.
pub(super) const MAX_OCCURRENCES: u32 = 1 << 8;
/// Parts of all messages of one time.
const MAX_ORDINALS: u32 = MAX_OCCURRENCES * MAX_PARTS;
/// Parts that a text is cut into at most.
pub(super) const MAX_PARTS: u32 = 1 << 6;

/// Place of a message in another system, from which its id here follows.
#[derive(Copy, Clone)]
pub(super) struct Identity<'a> {
    pub(super) project: ProjectId,
    pub(super) source: &'a str,
    /// The channel's name here.
    pub(super) channel: &'a ChannelName,
    pub(super) sent_at_us: i64,
    /// Number of the message among those of its time and channel.
    pub(super) occurrence: u32,
    /// Number of the part, where a text is cut into several messages.
    pub(super) part: u32,
}

impl Identity<'_> {
    /// Returns the id; `None` for a time before 1970 and for too many messages of one time.
    ///
    /// The microseconds within the millisecond stand where RFC 9562 (§6.2, method 3) has them. A message that shares its time
    /// with others comes right behind the first of them: the 4,096 steps leave room between two microseconds.
    pub(super) fn id(self) -> Option<MessageId> {
        let Self { project, source, channel, sent_at_us, occurrence, part } = self;
        let sent_at_us = u64::try_from(sent_at_us).ok()?;
        let ordinal = occurrence.checked_mul(MAX_PARTS)?.checked_add(part)?;
        if part >= MAX_PARTS || ordinal >= MAX_ORDINALS {
            return None;
        }
        let mut digest = Sha256::new();
        digest.update(project.0.as_bytes());
        for part in [source, channel.as_str()] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.update(sent_at_us.to_be_bytes());
        if ordinal > 0 {
            digest.update(ordinal.to_be_bytes());
        }
        let digest = digest.finalize();
        let mut low = [0; 10];
        low.copy_from_slice(&digest[..10]);
        let fraction = u16::try_from(sent_at_us % 1000 * 4096 / 1000).ok()?;
        if ordinal == 0 {
            low[..2].copy_from_slice(&fraction.to_be_bytes());
        } else {
            low[..2].copy_from_slice(&(fraction + 1).to_be_bytes());
            low[2..4].copy_from_slice(&u16::try_from(ordinal).ok()?.to_be_bytes());
        }
        let id = uuid::Builder::from_unix_timestamp_millis(sent_at_us / 1000, &low);
        Some(MessageId(id.into_uuid()))
    }
}

/// Returns the microseconds within its millisecond that an imported message's id holds; `None` if the message follows
/// another one of the same time.
pub(super) fn micros(id: MessageId) -> Option<i64> {
    let bytes = id.0.as_bytes();
    let fraction = i64::from(u16::from_be_bytes([bytes[6], bytes[7]]) & 0xFFF);
    let micros = (fraction * 1_000 + 4_095) / 4_096;
    (micros * 4_096 / 1_000 == fraction).then_some(micros)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn identity(channel: &ChannelName, sent_at_us: i64) -> Identity<'_> {
        let project = ProjectId(Uuid::nil());
        Identity { project, source: "slack", channel, sent_at_us, occurrence: 0, part: 0 }
    }

    #[test]
    fn an_identity_is_stable_and_sorts_by_time() {
        let channel: ChannelName = "general".parse().unwrap();
        let id = |at| identity(&channel, at).id().unwrap();
        // Messages of earlier versions are stored under this id, so it may never change.
        let stored = "0101f165-8f80-7004-b116-cacdd710db90";
        assert_eq!(id(1_107_856_560_000_001).to_string(), stored);
        let times = [0, 1, 2, 999, 1000, 1001, 1_107_856_560_000_000, 1_107_856_560_000_001];
        assert!(times.windows(2).all(|pair| id(pair[0]) < id(pair[1])));
        assert_eq!(id(5).0.get_version_num(), 7);
        let other = Identity { source: "other", ..identity(&channel, 5) };
        assert_ne!(Some(id(5)), other.id());
    }

    #[test]
    fn messages_of_one_time_stand_between_it_and_the_next_microsecond() {
        let channel: ChannelName = "general".parse().unwrap();
        for at in (0..1_000).chain([1_107_856_560_000_999]) {
            let of = |occurrence, part| {
                Identity { occurrence, part, ..identity(&channel, at) }.id().unwrap()
            };
            let ids = [of(0, 0), of(0, 1), of(0, 63), of(1, 0), of(200, 5)];
            assert!(ids.is_sorted() && ids[4] < identity(&channel, at + 1).id().unwrap(), "{at}");
            assert_eq!(micros(ids[0]), Some(at % 1_000), "{at}");
            assert!(ids[1..].iter().all(|id| micros(*id).is_none()), "{at}");
        }
        assert_eq!(Identity { part: MAX_PARTS, ..identity(&channel, 1) }.id(), None);
        assert_eq!(Identity { occurrence: 256, ..identity(&channel, 1) }.id(), None);
        assert_eq!(Identity { occurrence: u32::MAX, ..identity(&channel, 1) }.id(), None);
        assert_eq!(identity(&channel, -1).id(), None);
    }
}
