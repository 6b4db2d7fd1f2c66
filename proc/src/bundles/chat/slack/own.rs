//! What Parley adds to the records of the exports it writes, under `parley`: others ignore it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Ts;

/// Holds what Slack's fields cannot say of a message.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Own {
    /// The JSON object that belongs to the message.
    pub metadata: Option<String>,
    /// The message that this one answers, where `thread_ts` does not say it.
    pub reply_to: Option<Answered>,
    /// When it was deleted.
    pub deleted: Option<Ts>,
}

/// Names a message that is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// Name of its channel in the export; its id once it is read.
    pub channel: String,
    /// When it was sent.
    pub ts: Ts,
}

/// Holds the fields of a message's `parley`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnFields<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<AnsweredFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_ts: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct AnsweredFields {
    channel: String,
    ts: String,
}

/// Holds the fields of a channel's `parley`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnChannel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_ms: Option<i64>,
}

impl Own {
    /// Reads a record's `parley`; `None` if it is nothing that Parley writes.
    pub(super) fn parse(json: &RawValue) -> Option<Self> {
        let fields: OwnFields<'_> = serde_json::from_str(json.get()).ok()?;
        let ts = |text: String| Ts::parse(&text);
        let answered =
            |AnsweredFields { channel, ts }| Some(Answered { channel, ts: Ts::parse(&ts)? });
        Some(Self {
            metadata: fields.metadata.map(|metadata| metadata.get().to_owned()),
            reply_to: fields.reply_to.map(answered).map_or(Some(None), |found| found.map(Some))?,
            deleted: fields.deleted_ts.map(ts).map_or(Some(None), |found| found.map(Some))?,
        })
    }

    /// Names channels by their ids. An answer to a message of a channel that the export does not have answers none.
    pub(super) fn in_place(mut self, id: impl Fn(&str) -> Option<String>) -> Self {
        self.reply_to = self
            .reply_to
            .and_then(|Answered { channel, ts }| Some(Answered { channel: id(&channel)?, ts }));
        self
    }

    /// Returns whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns this as a record has it; fails if the metadata is no JSON.
    pub fn fields(&self) -> serde_json::Result<OwnFields<'_>> {
        let metadata = self.metadata.as_deref().map(serde_json::from_str::<&RawValue>);
        Ok(OwnFields {
            metadata: metadata.transpose()?,
            reply_to: self.reply_to.as_ref().map(|answered| AnsweredFields {
                channel: answered.channel.clone(),
                ts: answered.ts.to_string(),
            }),
            deleted_ts: self.deleted.map(|ts| ts.to_string()),
        })
    }
}
