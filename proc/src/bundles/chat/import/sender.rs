//! Sends what the archive holds to ingress, again and again while it does not answer.

use std::collections::{BTreeMap, HashMap, HashSet};

use proto::{
    Channel, ImportChannelsRequest, ImportMessage, ImportMessagesRequest, ImportPeopleRequest,
    ImportReaction, ImportResponse, ImportSibling, Person, Principal,
};
use serde_json::json;

use super::outcome::Counts;
use crate::{
    bundles::chat::{
        names,
        parts::split,
        persist::persist,
        slack::{self, Deletion, Message, Position, Privacy, SameTime, Ts},
    },
    ingress::{Chat, principal},
    jobs::{JobContext, JobError},
};

/// People or channels in one call.
const BATCH: usize = 1_000;
/// Sources of channels and messages.
const SLACK: &str = "slack";
const PARLEY: &str = "parley";

/// Sends one import's records.
pub(super) struct Sender {
    context: JobContext,
    chat: Chat,
    principal: Principal,
    import_id: String,
    /// The names that channels have here, by Slack's ids.
    channels: HashMap<String, String>,
    /// Authors that were sent.
    known: HashSet<String>,
}

/// Counts of a batch of messages.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) response: ImportResponse,
    /// Records that chat refused, and why.
    pub(super) refused: Vec<(Position, String)>,
    /// Records of messages that were deleted in Slack and are not here, by kind.
    pub(super) not_here: BTreeMap<String, u64>,
    /// Reactions of the archive that name no user, or are otherwise none.
    pub(super) reactions_not_sound: u64,
}

impl Sender {
    pub(super) fn new(context: &JobContext) -> Self {
        let job = context.job();
        Self {
            context: context.clone(),
            chat: context.ingress().chat(),
            principal: principal(&job.owner, job.project_id, &job.trace_id),
            import_id: job.id.to_string(),
            channels: HashMap::new(),
            known: HashSet::new(),
        }
    }

    /// Sends the members of the workspace, whose names are the ones that Slack shows now.
    pub(super) async fn people(&mut self, people: Vec<slack::Person>) -> Result<Counts, JobError> {
        self.named(people, true).await
    }

    async fn named(
        &mut self,
        people: Vec<slack::Person>,
        is_listed: bool,
    ) -> Result<Counts, JobError> {
        let mut counts = Counts::of(people.len());
        let mut people = people.into_iter().peekable();
        while people.peek().is_some() {
            let batch = people.by_ref().take(BATCH).map(|person| {
                let slack::Person { id, name, is_bot, is_named, updated } = person;
                let person = Person {
                    id: names::author(&id),
                    name: name.to_string(),
                    is_bot,
                    is_listed: is_listed && is_named,
                    named_at_s: updated,
                };
                self.known.insert(id);
                person
            });
            let batch = batch.collect();
            counts.add(&self.send_people(batch).await?);
        }
        Ok(counts)
    }

    /// Sends the channels, and learns under which name each is here.
    pub(super) async fn channels(
        &mut self,
        channels: Vec<slack::Channel>,
    ) -> Result<Counts, JobError> {
        let mut counts = Counts::of(channels.len());
        // Archives that Parley wrote name channels as they are in Parley.
        let (own, foreign): (Vec<_>, Vec<_>) =
            channels.into_iter().partition(|channel| channel.is_own);
        for (source, channels) in [(SLACK, foreign), (PARLEY, own)] {
            for channels in channels.chunks(BATCH) {
                let to_send = |channel: &slack::Channel| Channel {
                    name: channel.own_name.clone().unwrap_or_else(|| channel.name.clone()),
                    topic: channel.topic.clone(),
                    created_at_ms: channel.created_ms,
                    external_id: channel.id.clone(),
                };
                let to_send = channels.iter().map(to_send).collect();
                let response = self.send_channels(source, to_send, Vec::new()).await?;
                counts.add(&response);
                let ids = channels.iter().map(|channel| channel.id.clone());
                self.channels
                    .extend(ids.zip(response.channel_names).filter(|(_, name)| !name.is_empty()));
            }
        }
        Ok(counts)
    }

    /// Returns the channels here that an import before made of conversations that are private.
    pub(super) async fn made_public(
        &self,
        private: &[slack::Conversation],
    ) -> Result<Vec<String>, JobError> {
        let mut found = Vec::new();
        let channels = private.iter().filter(|private| private.privacy == Privacy::PrivateChannel);
        let channels: Vec<Channel> = channels
            .map(|channel| Channel {
                name: channel.name.clone(),
                topic: None,
                created_at_ms: channel.created_ms,
                external_id: channel.id.clone(),
            })
            .collect();
        for channels in channels.chunks(BATCH) {
            let response = self.send_channels(SLACK, Vec::new(), channels.to_vec()).await?;
            found.extend(response.made_public);
        }
        Ok(found)
    }

    async fn send_channels(
        &self,
        source: &str,
        channels: Vec<Channel>,
        private_channels: Vec<Channel>,
    ) -> Result<ImportResponse, JobError> {
        let request = ImportChannelsRequest {
            principal: Some(self.principal.clone()),
            import_id: self.import_id.clone(),
            channels,
            source: source.into(),
            private_channels,
        };
        let outcome = persist(&self.context, request, |request| {
            let mut chat = self.chat.clone();
            async move { chat.import_channels(request).await }
        });
        outcome.await
    }

    /// Sends people whom the result does not count: it counts the members that the export lists.
    pub(super) async fn guests(&mut self, guests: Vec<slack::Person>) -> Result<(), JobError> {
        self.named(guests, false).await.map(drop)
    }

    /// Sends a batch of messages, before them the authors that only the messages name, and behind them what was deleted.
    pub(super) async fn messages(
        &mut self,
        messages: Vec<(Position, Message)>,
        deletions: Vec<(Position, Deletion)>,
    ) -> Result<Sent, JobError> {
        let mut sent = Sent::default();
        if messages.is_empty() && deletions.is_empty() {
            return Ok(sent);
        }
        let strangers: Vec<Person> =
            messages.iter().filter_map(|(_, message)| self.stranger(message)).collect();
        if !strangers.is_empty() {
            self.send_people(strangers).await?;
        }
        // A long text is several messages of one record.
        let (mut positions, mut to_send) = (Vec::new(), Vec::new());
        let siblings = self.siblings(&messages);
        for (position, message) in messages {
            sent.reactions_not_sound += message.reactions_left_out;
            let parts = self.parts(message);
            positions.extend(std::iter::repeat_n(position, parts.len()));
            to_send.extend(parts);
        }
        let mut kinds = HashMap::new();
        for (position, deletion) in deletions {
            kinds.insert(to_send.len(), deletion.kind);
            positions.push(position);
            to_send.push(self.deletion(deletion));
        }
        let request = ImportMessagesRequest {
            principal: Some(self.principal.clone()),
            import_id: self.import_id.clone(),
            source: SLACK.into(),
            messages: to_send,
            siblings,
        };
        let outcome = persist(&self.context, request, |request| {
            let mut chat = self.chat.clone();
            async move { chat.import_messages(request).await }
        });
        sent.response = outcome.await?;
        for index in &sent.response.not_here {
            let kind = usize::try_from(*index).ok().and_then(|index| kinds.get(&index));
            *sent.not_here.entry(kind.copied().unwrap_or("other").into()).or_default() += 1;
        }
        let position = |index: u32| positions.get(usize::try_from(index).ok()?).copied();
        let refused = sent.response.failures.drain(..);
        let refused =
            refused.filter_map(|failure| Some((position(failure.index)?, failure.reason)));
        sent.refused = refused.collect();
        Ok(sent)
    }

    async fn send_people(&self, people: Vec<Person>) -> Result<ImportResponse, JobError> {
        let request = ImportPeopleRequest {
            principal: Some(self.principal.clone()),
            import_id: self.import_id.clone(),
            people,
        };
        let outcome = persist(&self.context, request, |request| {
            let mut chat = self.chat.clone();
            async move { chat.import_people(request).await }
        });
        outcome.await
    }

    /// Returns the message's author if nobody knows them and the message tells their name.
    fn stranger(&mut self, message: &Message) -> Option<Person> {
        if self.known.contains(&message.author) {
            return None;
        }
        let name = message.author_name.clone()?;
        self.known.insert(message.author.clone());
        let (id, is_bot) = (names::author(&message.author), message.is_bot);
        Some(Person { id, name, is_bot, ..Person::default() })
    }

    /// Returns what tells the messages from others of their times that are not among them.
    fn siblings(&self, messages: &[(Position, Message)]) -> Vec<ImportSibling> {
        let mut known: HashSet<(&str, Ts, u32)> = messages
            .iter()
            .map(|(_, message)| (&*message.channel, message.ts, message.occurrence))
            .collect();
        let mut siblings = Vec::new();
        let groups = messages.iter().flat_map(|(_, message)| {
            let own = message.same_time.as_ref().map(|group| (message.ts, group));
            let thread = message.thread.zip(message.thread_same_time.as_ref());
            let channel = &*message.channel;
            own.into_iter().chain(thread).map(move |(ts, group)| (channel, ts, group))
        });
        for (channel, ts, group) in groups {
            let Some(name) = self.channels.get(channel) else { continue };
            for SameTime { occurrence, author, text, is_edited, is_deleted } in &**group {
                if known.insert((channel, ts, *occurrence)) {
                    siblings.push(ImportSibling {
                        channel: name.clone(),
                        sent_at_us: ts.micros(),
                        occurrence: *occurrence,
                        author: names::author(author),
                        text_digest: text.to_vec(),
                        is_edited: *is_edited,
                        is_deleted: *is_deleted,
                    });
                }
            }
        }
        siblings
    }

    fn deletion(&self, deletion: Deletion) -> ImportMessage {
        let Deletion { channel, ts, author, .. } = deletion;
        ImportMessage {
            channel: self.channels.get(&channel).cloned().unwrap_or_default(),
            author: author.map(|author| names::author(&author)).unwrap_or_default(),
            sent_at_us: ts.micros(),
            only_deletes: true,
            parts: 1,
            ..ImportMessage::default()
        }
    }

    fn parts(&self, message: Message) -> Vec<ImportMessage> {
        to_send(message, |channel| self.channels.get(channel).cloned())
    }
}

/// Returns the message as chat takes it, in several parts if it is long; `channel` tells the names that channels have here, by
/// Slack's ids.
pub(crate) fn to_send(
    message: Message,
    channel: impl Fn(&str) -> Option<String>,
) -> Vec<ImportMessage> {
    let reactions = message.reactions.into_iter().map(|reaction| ImportReaction {
        emoji: reaction.name,
        users: reaction.users.iter().map(|user| names::author(user)).collect(),
        count: reaction.count,
    });
    let kept = metadata(message.subtype.as_deref(), message.is_bot);
    let (metadata, answered, deleted) = match message.own {
        Some(own) => (own.metadata.unwrap_or_default(), own.reply_to, own.deleted),
        None => (kept, None, None),
    };
    let answered = answered.and_then(|answered| Some((channel(&answered.channel)?, answered.ts)));
    let (reply_to_channel, reply_to) = answered.unzip();
    let parts = split(&message.text);
    let first = ImportMessage {
        channel: channel(&message.channel).unwrap_or_default(),
        author: names::author(&message.author),
        text: parts[0].to_owned(),
        sent_at_us: message.ts.micros(),
        edited_at_us: message.edited.map(Ts::micros),
        reply_to_sent_at_us: reply_to.or(message.thread).map(Ts::micros),
        metadata,
        reactions: reactions.collect(),
        reply_to_channel,
        deleted_at_us: deleted.map(Ts::micros),
        author_name: message.own_name.unwrap_or_default(),
        occurrence: message.occurrence,
        part: 0,
        parts: u32::try_from(parts.len()).unwrap_or(u32::MAX),
        reply_to_author: message.thread_author.map(|user| names::author(&user)).unwrap_or_default(),
        only_deletes: false,
    };
    let further = (1..).zip(&parts[1..]).map(|(part, text)| ImportMessage {
        text: (*text).to_owned(),
        part,
        reactions: Vec::new(),
        ..first.clone()
    });
    let further: Vec<ImportMessage> = further.collect();
    std::iter::once(first).chain(further).collect()
}

/// Returns what only Slack knows of the message, empty if there is nothing.
fn metadata(subtype: Option<&str>, is_bot: bool) -> String {
    let subtype = subtype.map(|subtype| ("subtype", json!(subtype)));
    let bot = is_bot.then_some(("bot", json!(true)));
    let kept: HashMap<_, _> = subtype.into_iter().chain(bot).collect();
    if kept.is_empty() { String::new() } else { json!({"slack": kept}).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keeps_what_is_special() {
        assert_eq!(metadata(None, false), "");
        assert_eq!(metadata(Some("me_message"), false), r#"{"slack":{"subtype":"me_message"}}"#);
        assert_eq!(metadata(None, true), r#"{"slack":{"bot":true}}"#);
    }
}
