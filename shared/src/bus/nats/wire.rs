//! Notices as messages, topics as subjects.

use std::fmt::Write as _;

use bytes::Bytes;
use prost::Message as _;
use proto::notice::What;

use super::super::{Heard, Lost, Notice};
use crate::{
    journal::{Entry, Position, Topic},
    time::Timestamp,
};

/// Returns the subject of a topic. What follows the kind is in hexadecimal, so that no id can be a wildcard.
pub(super) fn subject(prefix: &str, topic: &Topic) -> String {
    let (kind, id) = topic.as_str().split_once('/').unwrap_or((topic.as_str(), ""));
    let mut subject = format!("{prefix}.v1.{kind}");
    for (number, byte) in id.bytes().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(subject, "{}{byte:02x}", if number == 0 { "." } else { "" });
    }
    subject
}

pub(super) fn encode(topic: &Topic, heard: &Heard) -> Bytes {
    let what = match heard {
        Heard::Notice(Notice::Entry(entry)) => {
            debug_assert_eq!(entry.topic, *topic, "the subject says where an entry is");
            What::Entry(proto::Entry {
                epoch: entry.position.epoch,
                seq: entry.position.seq,
                tag: entry.position.tag,
                previous: entry.previous,
                kind: entry.kind.to_string(),
                data: entry.data.to_string(),
                at_ms: entry.at.as_ms(),
            })
        }
        Heard::Notice(Notice::Ephemeral(json)) => What::Ephemeral(json.to_string()),
        Heard::Lost(_) => What::Many(proto::Many {}),
    };
    proto::Notice { what: Some(what) }.encode_to_vec().into()
}

/// Returns `None` if the message is no notice, or of a kind that this version does not know.
pub(super) fn decode(topic: &Topic, message: Bytes) -> Option<Heard> {
    let notice = match proto::Notice::decode(message).ok()?.what? {
        What::Entry(entry) => {
            let proto::Entry { epoch, seq, tag, previous, kind, data, at_ms } = entry;
            let (position, at) = (Position { epoch, seq, tag }, Timestamp::from_ms(at_ms));
            let entry = Entry::new(topic, position, &kind, &data, at);
            Notice::Entry(Entry { previous, ..entry }.into())
        }
        What::Ephemeral(json) => Notice::Ephemeral(json.into()),
        What::Many(proto::Many {}) => return Some(Heard::Lost(Lost::Topic)),
    };
    Some(Heard::Notice(notice))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ProjectId, UserId};

    proptest! {
        #[test]
        fn a_subject_is_one_of_its_own_and_never_a_wildcard(a in "[ -~]{1,24}", b in "[ -~]{1,24}") {
            let subject_of = |id: &str| id.parse::<UserId>().ok().map(|id| subject("parley", &Topic::user(&id)));
            if let (Some(a_subject), Some(b_subject)) = (subject_of(&a), subject_of(&b)) {
                prop_assert_eq!(a == b, a_subject == b_subject);
                let rest = a_subject.strip_prefix("parley.v1.user.");
                prop_assert!(rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit())));
            }
        }

        #[test]
        fn junk_is_no_notice_and_never_a_panic(junk in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&Topic::jobs(), junk.into());
        }

        #[test]
        fn an_entry_arrives_as_it_was_sent(epoch: i64, seq: i64, tag: u32, previous: Option<u32>, kind in "[a-z.]{1,20}", data in ".*", at: i32) {
            let topic = Topic::project(ProjectId::mint());
            let position = Position { epoch, seq, tag };
            let entry = Entry::new(&topic, position, &kind, &data, Timestamp::from_ms(at.into()));
            let entry = Entry { previous, ..entry };
            let sent = encode(&topic, &Heard::Notice(Notice::Entry(entry.clone().into())));
            let Some(Heard::Notice(Notice::Entry(heard))) = decode(&topic, sent) else {
                return Err(TestCaseError::fail("not an entry"));
            };
            prop_assert_eq!((heard.position, heard.previous), (entry.position, entry.previous));
            prop_assert_eq!(&heard.data, &entry.data);
            prop_assert_eq!((&heard.kind, heard.at), (&entry.kind, entry.at));
        }
    }
}
