//! Sends what the archive holds to ingress, again and again while it does not answer.

use std::collections::{HashMap, HashSet};

use proto::{
    Channel, ImportChannelsRequest, ImportMessage, ImportMessagesRequest, ImportPeopleRequest,
    ImportReaction, ImportResponse, Person, Principal,
};
use serde_json::json;
use shared::ids::ChannelName;

use super::Counts;
use crate::{
    bundles::chat::{
        names,
        persist::persist,
        slack::{self, Message, Ts},
    },
    ingress::{Chat, principal},
    jobs::{JobContext, JobError},
};

/// People or channels in one call.
const BATCH: usize = 1_000;

/// Sends one import's records.
pub(super) struct Sender {
    context: JobContext,
    chat: Chat,
    principal: Principal,
    import_id: String,
    /// The names that channels have here, by Slack's.
    channels: HashMap<String, ChannelName>,
    /// Authors that were sent.
    known: HashSet<String>,
}

impl Sender {
    pub(super) fn new(context: &JobContext, channels: &[slack::Channel]) -> Self {
        let job = context.job();
        Self {
            context: context.clone(),
            chat: context.ingress().chat(),
            principal: principal(&job.owner, job.project_id, &job.trace_id),
            import_id: job.id.to_string(),
            channels: names::channels(
                channels.iter().map(|channel| (channel.name.as_str(), channel.own_name.as_deref())),
            ),
            known: HashSet::new(),
        }
    }

    /// Sends the members of the workspace.
    pub(super) async fn people(&mut self, people: Vec<slack::Person>) -> Result<Counts, JobError> {
        let mut counts = Counts { total: people.len(), ..Counts::default() };
        let people: Vec<Person> = people
            .into_iter()
            .map(|slack::Person { id, name, is_bot }| {
                let person = Person { id: names::author(&id), name, is_bot };
                self.known.insert(id);
                person
            })
            .collect();
        for people in people.chunks(BATCH) {
            counts.add(&self.send_people(people.to_vec()).await?);
        }
        Ok(counts)
    }

    /// Sends the channels, each once.
    pub(super) async fn channels(
        &mut self,
        channels: Vec<slack::Channel>,
    ) -> Result<Counts, JobError> {
        let mut sent = HashSet::new();
        let channels = channels.into_iter().filter(|channel| sent.insert(channel.name.clone()));
        let channels: Vec<Channel> = channels
            .filter_map(|channel| {
                let name = self.channels.get(&channel.name)?.to_string();
                Some(Channel { name, topic: channel.topic, created_at_ms: channel.created_ms })
            })
            .collect();
        let mut counts = Counts { total: channels.len(), ..Counts::default() };
        for channels in channels.chunks(BATCH) {
            let request = ImportChannelsRequest {
                principal: Some(self.principal.clone()),
                import_id: self.import_id.clone(),
                channels: channels.to_vec(),
            };
            let outcome = persist(&self.context, request, |request| {
                let mut chat = self.chat.clone();
                async move { chat.import_channels(request).await }
            });
            counts.add(&outcome.await?);
        }
        Ok(counts)
    }

    /// Sends a batch of messages, and before them the authors that only the messages name.
    pub(super) async fn messages(
        &mut self,
        messages: Vec<Message>,
    ) -> Result<ImportResponse, JobError> {
        if messages.is_empty() {
            return Ok(ImportResponse::default());
        }
        let strangers: Vec<Person> =
            messages.iter().filter_map(|message| self.stranger(message)).collect();
        if !strangers.is_empty() {
            // Not counted: the result counts the members that the export lists.
            self.send_people(strangers).await?;
        }
        let messages = messages.into_iter().map(|message| self.message(message)).collect();
        let request = ImportMessagesRequest {
            principal: Some(self.principal.clone()),
            import_id: self.import_id.clone(),
            source: "slack".into(),
            messages,
        };
        let outcome = persist(&self.context, request, |request| {
            let mut chat = self.chat.clone();
            async move { chat.import_messages(request).await }
        });
        outcome.await
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
        Some(Person { id: names::author(&message.author), name, is_bot: message.is_bot })
    }

    fn message(&self, message: Message) -> ImportMessage {
        to_send(message, |channel| self.channels.get(channel).map(ToString::to_string))
    }
}

/// Returns the message as chat takes it; `channel` tells the names that channels have here, by Slack's.
pub(in crate::bundles::chat) fn to_send(
    message: Message,
    channel: impl Fn(&str) -> Option<String>,
) -> ImportMessage {
    let reactions = message.reactions.into_iter().map(|reaction| ImportReaction {
        emoji: reaction.name,
        users: reaction.users.iter().map(|user| names::author(user)).collect(),
    });
    let kept = metadata(message.subtype.as_deref(), message.is_bot);
    let (metadata, answered, deleted) = match message.own {
        Some(own) => (own.metadata.unwrap_or_default(), own.reply_to, own.deleted),
        None => (kept, None, None),
    };
    let answered = answered.and_then(|answered| Some((channel(&answered.channel)?, answered.ts)));
    let (reply_to_channel, reply_to) = answered.unzip();
    ImportMessage {
        channel: channel(&message.channel).unwrap_or_default(),
        author: names::author(&message.author),
        text: message.text,
        sent_at_us: message.ts.micros(),
        edited_at_us: message.edited.map(Ts::micros),
        reply_to_sent_at_us: reply_to.or(message.thread).map(Ts::micros),
        metadata,
        reactions: reactions.collect(),
        reply_to_channel,
        deleted_at_us: deleted.map(Ts::micros),
    }
}

impl Counts {
    fn add(&mut self, outcome: &ImportResponse) {
        self.written += outcome.written;
        self.existing += outcome.existing;
        self.failed += outcome.failed;
    }
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
