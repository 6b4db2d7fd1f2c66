//! A project as a test uses it: its routes, its history, its log, its stream.

use serde_json::{Value, json};

use crate::{
    sse::Sse,
    support::{Answer, Client, text},
};

/// A project as one user sees it.
#[derive(Clone)]
pub(crate) struct Project {
    pub(crate) client: Client,
    pub(crate) id: String,
}

impl Project {
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/api/chat/projects/{}{rest}", self.id)
    }

    /// Returns the same project as `user` sees it.
    pub(crate) fn of(&self, user: &str) -> Self {
        Self { client: self.client.as_user(user), id: self.id.clone() }
    }

    /// Makes `user` a member and returns the project as they see it.
    pub(crate) async fn with(&self, user: &str, role: &str) -> Self {
        self.call("PUT", &format!("/members/{user}"), &json!({"role": role})).await.is(200);
        self.of(user)
    }

    pub(crate) async fn get(&self, rest: &str) -> Answer {
        self.client.get(&self.path(rest)).await
    }

    pub(crate) async fn call(&self, method: &str, rest: &str, body: &Value) -> Answer {
        self.client.call(method, &self.path(rest), body).await
    }

    pub(crate) async fn delete(&self, rest: &str) -> Answer {
        self.client.delete(&self.path(rest)).await
    }

    /// Sends a message and returns it.
    pub(crate) async fn send(&self, text: &str) -> Value {
        self.call("POST", "/messages", &json!({"text": text})).await.is(201)
    }

    /// Returns the cursor at the end of the log.
    pub(crate) async fn cursor(&self) -> String {
        text(&self.get("/messages?limit=1").await.is(200)["cursor"])
    }

    /// Returns all messages, oldest first.
    pub(crate) async fn history(&self) -> Vec<Value> {
        let (mut all, mut before) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/messages?limit=200{before}")).await.is(200);
            all.extend(page["messages"].as_array().expect("a list").iter().cloned());
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        all.reverse();
        all
    }

    /// Returns every event of the log after `cursor`, by long-polling.
    pub(crate) async fn log(&self, cursor: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), cursor.to_owned());
        loop {
            let page = self.get(&format!("/events?after={after}")).await.is(200);
            assert_eq!(page["reset"], Value::Null);
            let events = page["events"].as_array().expect("a list");
            if events.is_empty() {
                return all;
            }
            all.extend(events.iter().cloned());
            after = text(&page["cursor"]);
        }
    }

    /// Returns ada's open streams of the project as an admin sees them.
    pub(crate) async fn streams(&self) -> Vec<Value> {
        let path = format!("/api/debug/sse-connections/ada/{}", self.id);
        let mut list = self.client.as_user("admin").get(&path).await.is(200);
        let streams: Vec<Value> =
            serde_json::from_value(list["connections"].take()).expect("a list");
        assert_eq!(list["count"], streams.len());
        streams
    }

    /// Opens a stream of the project with more query and reads its greeting.
    pub(crate) async fn stream(&self, query: &str) -> (Sse, Value) {
        let path = format!("/sse/stream?project_id={}{query}", self.id);
        Sse::greeted(self.client.request("GET", &path)).await
    }
}
