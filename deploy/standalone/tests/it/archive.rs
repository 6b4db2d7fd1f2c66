//! Slack exports for tests: the real one, and made ones.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
};

use serde_json::{Value, json};
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    job::run,
    project::Project,
    support::{Answer, Client, text},
};

/// Packs files into an archive.
pub(crate) fn pack(files: &[(&str, String)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).expect("a file in the archive");
        writer.write_all(content.as_bytes()).expect("room in memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

/// Uploads bytes and returns the upload's id.
pub(crate) async fn upload(client: &Client, bytes: Vec<u8>) -> String {
    let request = client.request("POST", "/api/integrations/uploads").body(bytes);
    text(&Answer::to(request).await.is(201)["upload_id"])
}

/// Uploads an export and imports it, up to the job's end.
pub(crate) async fn import(project: &Project, bytes: Vec<u8>) -> Value {
    let upload = upload(&project.client, bytes).await;
    run(project, "chat.import", json!({"upload_id": upload})).await
}

/// A message as an archive has it, in the order of time: its time, and what the history should show.
pub(crate) type Said = (String, [String; 5]);

/// Returns what of a message of a history can be told from an archive.
pub(crate) fn shown(message: &Value) -> [String; 5] {
    ["channel", "author", "author_name", "text", "created_at"].map(|field| text(&message[field]))
}

/// The real export, read by itself: nothing here is Parley's.
pub(crate) struct Real {
    pub(crate) bytes: Vec<u8>,
    pub(crate) users: Vec<Value>,
    channels: Vec<Value>,
    days: BTreeMap<String, Vec<Value>>,
}

impl Real {
    pub(crate) fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proc/testdata/ubuntu-irc-small.zip");
        let bytes = std::fs::read(path).expect("the project's test data");
        let mut archive = ZipArchive::new(Cursor::new(bytes.clone())).expect("a sound archive");
        let mut files = BTreeMap::new();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).expect("a sound entry");
            let mut content = String::new();
            file.read_to_string(&mut content).expect("text");
            let list: Vec<Value> = serde_json::from_str(&content).expect("a list");
            let name = file.name().expect("a name").into_owned();
            drop(file);
            files.insert(name, list);
        }
        let mut take = |name| files.remove(name).expect("an index");
        let (users, channels) = (take("users.json"), take("channels.json"));
        Self { bytes, users, channels, days: files }
    }

    /// Returns the same archive with every channel `times` over.
    pub(crate) fn repeated(&self, times: usize) -> Self {
        let named = |name: &str, number| format!("{name}-{number}");
        let mut channels = Vec::new();
        let mut days = BTreeMap::new();
        for number in 0..times {
            for channel in &self.channels {
                let mut channel = channel.clone();
                channel["name"] = named(&text(&channel["name"]), number).into();
                channel["id"] = named(&text(&channel["id"]), number).into();
                channels.push(channel);
            }
            for (path, messages) in &self.days {
                let (channel, day) = path.split_once('/').expect("a day file");
                days.insert(format!("{}/{day}", named(channel, number)), messages.clone());
            }
        }
        let mut files = vec![
            ("users.json", json!(self.users).to_string()),
            ("channels.json", json!(channels).to_string()),
        ];
        files.extend(days.iter().map(|(path, day)| (path.as_str(), json!(day).to_string())));
        let bytes = pack(&files);
        Self { bytes, users: self.users.clone(), channels, days }
    }

    pub(crate) fn channels(&self) -> Vec<String> {
        self.channels.iter().map(|channel| text(&channel["name"])).collect()
    }

    /// Returns every message in the order of time.
    pub(crate) fn said(&self) -> Vec<Said> {
        let names: BTreeMap<String, String> = self
            .users
            .iter()
            .map(|user| {
                let name = text(&user["profile"]["display_name"]);
                (text(&user["id"]), name.trim().to_owned())
            })
            .collect();
        let mut said = Vec::new();
        for (path, messages) in &self.days {
            let (channel, day) = path.split_once('/').expect("a day file");
            let day = day.strip_suffix(".json").expect("a day file");
            for message in messages {
                let (ts, user) = (text(&message["ts"]), text(&message["user"]));
                // This archive has no other markup than Slack's three escapes.
                let plain = text(&message["text"])
                    .replace("&lt;", "<")
                    .replace("&gt;", ">")
                    .replace("&amp;", "&");
                let at = moment(day, &ts);
                let name = names[&user].clone();
                said.push((ts, [channel.into(), format!("slack:{user}"), name, plain, at]));
            }
        }
        said.sort();
        said
    }
}

/// Returns a time of a day as the wire shows it.
fn moment(day: &str, ts: &str) -> String {
    let (seconds, micros) = ts.split_once('.').expect("a time");
    let second = seconds.parse::<u64>().expect("a time") % 86_400;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{}Z", &micros[..3])
}
