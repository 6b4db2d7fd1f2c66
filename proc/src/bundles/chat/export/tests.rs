//! Any project goes through an archive and comes back the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    ops::ControlFlow,
};

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::{ids::ChannelName, time::Timestamp};

use super::archive::Archive;
use crate::bundles::chat::{
    import::to_send,
    names,
    slack::{self, Limits, Outcome, Position},
};

/// A project as far as an archive keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Project {
    /// Topic and time of making by name.
    channels: BTreeMap<String, (Option<String>, i64)>,
    /// Name and whether it is a bot, by id.
    people: BTreeMap<String, (String, bool)>,
    /// By channel, then in the order of time.
    messages: BTreeMap<(String, i64), Message>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    author: String,
    text: String,
    metadata: String,
    parent: Option<(String, i64)>,
    reactions: Vec<(String, Vec<String>)>,
    edited_ms: Option<i64>,
    deleted_ms: Option<i64>,
}

impl Project {
    /// Returns the lines that an export by channel has.
    fn lines(&self) -> Vec<Value> {
        let time = |ms: &i64| Timestamp::from_ms(*ms);
        let channels = self.channels.iter().map(|(name, (topic, at))| {
            json!({"kind": "channel", "name": name, "topic": topic, "created_at": time(at)})
        });
        let messages = self.messages.iter().map(|((channel, at), message)| {
            let name = self.people.get(&message.author).map_or(&message.author, |(name, _)| name);
            let metadata: Value = serde_json::from_str(&message.metadata).unwrap_or_default();
            let reactions = message.reactions.iter();
            let reactions = reactions.map(|(emoji, users)| json!({"emoji": emoji, "users": users}));
            json!({
                "kind": "message", "channel": channel, "author": message.author, "author_name": name,
                "text": message.text, "metadata": metadata, "created_at": time(&(at / 1_000)),
                "reactions": reactions.collect::<Vec<_>>(), "sent_at_us": at,
                "updated_at": message.edited_ms.as_ref().map(time),
                "deleted_at": message.deleted_ms.as_ref().map(time),
                "parent": message.parent.as_ref().map(|parent| self.parent(channel, parent)),
            })
        });
        let people = self.people.iter().map(
            |(id, (name, bot))| json!({"kind": "person", "id": id, "name": name, "is_bot": bot}),
        );
        channels.chain(messages).chain(people).collect()
    }

    fn parent(&self, channel: &str, parent: &(String, i64)) -> Value {
        let (mut top, mut thread) = (Some(parent.clone()), Value::Null);
        for _ in 0..9 {
            let Some(at) = top.filter(|(of, _)| of == channel) else { break };
            let message = &self.messages[&at];
            thread = json!({"sent_at_us": at.1, "author": message.author});
            top = message.parent.clone();
        }
        json!({"channel": parent.0, "sent_at_us": parent.1, "thread": thread})
    }

    fn archive(&self) -> Vec<u8> {
        let scratch = tempfile::tempdir().unwrap();
        let mut archive = Archive::begin(Vec::new(), scratch.path()).unwrap();
        for line in self.lines() {
            archive.add(line.to_string().as_bytes()).unwrap();
        }
        archive.finish().unwrap().0
    }

    /// Reads an archive as an import does.
    fn import(archive: &[u8]) -> Self {
        let mut archive = slack::Archive::open(file(archive), Limits::default()).unwrap();
        let survey = archive.survey().unwrap();
        assert_eq!(survey.ignored_files, 0);
        // Chat gives a channel of Parley's own archive the name that it had.
        let channels = survey.channels.iter();
        let given: BTreeMap<String, String> = channels
            .map(|c| (c.id.clone(), c.own_name.clone().unwrap_or_else(|| c.name.clone())))
            .collect();
        let mut messages = BTreeMap::new();
        archive
            .read(Position::default(), |record| {
                let Outcome::Message(message) = record.outcome else { panic!("{record:?}") };
                let sent = to_send(message, |id| given.get(id).cloned()).remove(0);
                let channel = sent.reply_to_channel.unwrap_or_else(|| sent.channel.clone());
                let message = Message {
                    author: sent.author,
                    text: sent.text,
                    metadata: sent.metadata,
                    parent: sent.reply_to_sent_at_us.map(|at| (channel, at)),
                    reactions: sent.reactions.into_iter().map(|r| (r.emoji, r.users)).collect(),
                    edited_ms: sent.edited_at_us.map(|at| at / 1_000),
                    deleted_ms: sent.deleted_at_us.map(|at| at / 1_000),
                };
                let doubled = messages.insert((sent.channel, sent.sent_at_us), message);
                assert_eq!(doubled, None);
                ControlFlow::Continue(())
            })
            .unwrap();
        let channels = survey.channels.into_iter();
        let channels = channels.map(|c| (given[&c.id].clone(), (c.topic, c.created_ms.unwrap())));
        let people = survey.people.into_iter();
        let people = people.map(|p| (names::author(&p.id), (p.name.to_string(), p.is_bot)));
        Self { channels: channels.collect(), people: people.collect(), messages }
    }

    /// Returns the project with everybody under the id that an import gives them.
    fn renamed(mut self) -> Self {
        let new = |id: &str| names::author(&names::exported(id));
        let mut seen = BTreeSet::new();
        for message in self.messages.values_mut() {
            for user in message.reactions.iter_mut().flat_map(|(_, users)| users) {
                seen.insert(user.clone());
                *user = new(user);
            }
            seen.insert(message.author.clone());
            message.author = new(&message.author);
        }
        self.people.retain(|id, _| id.starts_with("slack:U") || seen.contains(id));
        self.people = self.people.into_iter().map(|(id, person)| (new(&id), person)).collect();
        self
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn text() -> impl Strategy<Value = String> {
    let text =
        prop_oneof![r"\PC{1,20}", "[&<>;@#|!U1ltamp\n\t\u{1}]{1,20}", "<@U1>|&amp;lt;|<!here>"];
    text.prop_filter("a text is not blank", |text| !text.trim().is_empty())
}

fn metadata() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => Just(r#"{"a":[1,2.5,"<&>"],"slack":7}"#.into()),
        1 => r#"\{"slack":\{"subtype":"(me_message|bot_message|channel_join|tombstone)"\}\}"#,
        1 => r#"\{"slack":\{"bot":(true|false|1)\}\}"#,
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let user = || prop::sample::select(&["ada", "bob", "slack:U1", "slack:U2", "slack:ada"][..]);
    let reaction = ("[👍✅a-c+]{1,3}", prop::collection::btree_set(user(), 1..3));
    let reactions = prop::collection::btree_map(reaction.0, reaction.1, 0..3);
    let at = || prop::option::weighted(0.2, 0..4_000_000_000_000_i64);
    (user(), text(), metadata(), reactions, at(), at()).prop_map(
        |(author, text, metadata, reactions, edited_ms, deleted_ms)| {
            let here = deleted_ms.is_none();
            let owned = |users: BTreeSet<&str>| users.into_iter().map(str::to_owned).collect();
            let reactions = reactions.into_iter().map(|(emoji, users)| (emoji, owned(users)));
            Message {
                author: author.into(),
                text: if here { text } else { String::new() },
                metadata: if here { metadata } else { String::new() },
                parent: None,
                reactions: if here { reactions.collect() } else { Vec::new() },
                edited_ms,
                deleted_ms,
            }
        },
    )
}

fn project() -> impl Strategy<Value = Project> {
    let name = prop_oneof!["[a-cé.:*$-]{1,5}", Just("..".into()), Just("users.json".into())];
    let name = name.prop_filter("a channel's name", |name| name.parse::<ChannelName>().is_ok());
    let topic = prop::option::of(prop_oneof![Just(String::new()), text()]);
    let channels = prop::collection::btree_map(name, (topic, 0..4_000_000_000_000_i64), 1..4);
    let place = (
        any::<prop::sample::Index>(),
        1..200_000_000_000_i64,
        prop::option::of(any::<prop::sample::Index>()),
    );
    let messages = prop::collection::vec((place, message()), 0..12);
    let people = prop::collection::btree_map(
        prop::sample::select(&["ada", "bob", "slack:U1", "slack:U3", "slack:ada"][..])
            .prop_map(str::to_owned),
        ("[a-zA-Zé<&]{1,9}", any::<bool>()),
        0..5,
    );
    (channels, messages, people).prop_map(|(channels, drafts, mut people)| {
        // Whoever speaks here under a login is somebody here.
        for login in ["ada", "bob"] {
            people.entry(login.into()).or_insert_with(|| (login.into(), false));
        }
        // An imported one is listed when their archive listed them, as all that an import writes down are.
        people.remove("slack:ada");
        let names: Vec<String> = channels.keys().cloned().collect();
        let mut at = 0;
        let places: Vec<(String, i64)> = drafts
            .iter()
            .map(|((channel, gap, _), _)| {
                at += gap;
                (channel.get(&names).clone(), at)
            })
            .collect();
        let messages =
            drafts.into_iter().enumerate().map(|(number, ((.., parent), mut message))| {
                let parent = parent.map(|parent| parent.index(places.len()));
                message.parent =
                    parent.filter(|parent| *parent != number).map(|parent| places[parent].clone());
                (places[number].clone(), message)
            });
        Project { channels, people, messages: messages.collect() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_project_comes_back_from_its_archive(project in project()) {
        let archive = project.archive();
        let first = Project::import(&archive);
        prop_assert_eq!(&first, &project.clone().renamed());
        // From here on not even ids change.
        let again = first.archive();
        let second = Project::import(&again);
        prop_assert_eq!(&second, &first);
        prop_assert!(second.archive() == again && project.archive() == archive);
    }
}

#[test]
fn a_day_that_packs_like_a_bomb_is_stored_as_it_is() {
    let message = |at: i64| {
        Message {
            author: "slack:U1".into(),
            text: "a".repeat(30_000),
            metadata: String::new(),
            parent: None,
            reactions: Vec::new(),
            edited_ms: None,
            deleted_ms: None,
        }
        .at(at)
    };
    let project = Project {
        channels: [("general".into(), (None, 0))].into(),
        people: BTreeMap::new(),
        messages: (0..100).map(message).collect(),
    };
    let archive = project.archive();
    assert!(archive.len() > 3_000_000);
    assert_eq!(Project::import(&archive), project);
}

impl Message {
    fn at(self, at: i64) -> ((String, i64), Self) {
        (("general".into(), at), self)
    }
}
