//! Messages for proc's search: what a caller may see of those that were found, and pages of all for the index.

use proto::{GetMessagesResponse, ReadMessagesRequest, ReadMessagesResponse};
use shared::{
    ids::{ChannelName, MessageId, ProjectId},
    store::Reader,
    time::Timestamp,
};
use uuid::Uuid;

use crate::{
    access::{Granted, Viewer},
    error::ApiError,
    messages::{
        Message,
        store::many::{self, Place},
    },
    projects::purge,
};

/// Messages asked for by their ids at most.
pub(super) const MOST: usize = 200;
/// Messages in a page of all at most.
const PAGE: i64 = 1_000;
/// A page this long takes no further message: far below what gRPC lets pass.
const PAGE_BYTES: usize = 512 * 1024;
/// Channels that are worth a condition.
const MAX_CHANNELS: usize = 64;

/// Returns those of the messages that the caller may read now.
pub(super) fn some(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    ids: &[MessageId],
) -> Result<GetMessagesResponse, ApiError> {
    let messages = many::some(reader, caller, ids)?;
    Ok(GetMessagesResponse { messages: messages.into_iter().map(message).collect() })
}

/// What one page of all messages is to hold.
#[derive(Debug)]
pub(super) struct Wanted {
    project: ProjectId,
    after: Place,
    last: Place,
    channels: Vec<ChannelName>,
    is_first: bool,
}

impl Wanted {
    /// Reads what is asked for, `None` if it cannot be.
    pub(super) fn new(request: &ReadMessagesRequest) -> Option<Self> {
        let id = |text: &Option<String>| text.as_deref().map(str::parse::<MessageId>).transpose();
        let is_first = request.page.is_empty();
        let after = match (id(&request.first).ok()?, &*request.page) {
            (None, "") => Place(Timestamp::from_ms(i64::MIN), MessageId(Uuid::nil())),
            (Some(first), "") => {
                let before = Uuid::from_u128(first.0.as_u128().saturating_sub(1));
                Place(Place::imported(first).0, MessageId(before))
            }
            (_, page) => {
                let (ms, id) = page.split_once('.')?;
                Place(Timestamp::from_ms(ms.parse().ok()?), id.parse().ok()?)
            }
        };
        let end = Place(Timestamp::from_ms(i64::MAX), MessageId(Uuid::max()));
        let last = id(&request.last).ok()?.map_or(end, Place::imported);
        let channels = request.channels.iter().take(MAX_CHANNELS + 1).map(|name| name.parse());
        let mut channels: Vec<ChannelName> = channels.collect::<Result<_, _>>().ok()?;
        if channels.len() > MAX_CHANNELS {
            channels.clear();
        }
        Some(Self { project: request.project_id.parse().ok()?, after, last, channels, is_first })
    }

    /// Reads the page.
    pub(super) fn page(&self, reader: &Reader<'_>) -> Result<ReadMessagesResponse, ApiError> {
        let Self { project, after, last, channels, is_first } = self;
        if !purge::exists(reader, *project)? {
            return Ok(ReadMessagesResponse::default());
        }
        let found = many::range(reader, *project, (*after, *last), channels, PAGE)?;
        let is_full = i64::try_from(found.len()) == Ok(PAGE);
        let mut response = ReadMessagesResponse::default();
        if *is_first {
            response.total_messages = many::count(reader, *project)?;
        }
        let (mut bytes, count) = (0, found.len());
        for (index, found) in found.into_iter().enumerate() {
            bytes += found.text.len();
            let ends = bytes >= PAGE_BYTES || (is_full && index + 1 == count);
            if ends {
                response.next = format!("{}.{}", found.created_at.as_ms(), found.id);
            }
            response.messages.push(message(found));
            if ends {
                break;
            }
        }
        Ok(response)
    }
}

fn message(message: Message) -> proto::Message {
    proto::Message {
        id: message.id.to_string(),
        channel: message.channel.to_string(),
        author: message.author.to_string(),
        author_name: message.author_name,
        text: message.text,
        created_at_ms: message.created_at.as_ms(),
    }
}
