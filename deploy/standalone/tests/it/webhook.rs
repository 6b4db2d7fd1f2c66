//! Webhooks as tests have them: subscribed, called, and verified by the library that receivers have.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::{
    bundle::{Call, Rogue, Says, status},
    project::Project,
    support::{Answer, text},
};

pub(crate) const WEBHOOKS: &str = "/api/integrations/webhooks";

/// Subscribes a URL to the project.
pub(crate) async fn subscribe(project: &Project, url: &str, events: &[&str]) -> Answer {
    let body = json!({"project_id": project.id, "url": url, "events": events});
    project.client.call("POST", WEBHOOKS, &body).await
}

/// A subscription, seen by an owner of its project.
pub(crate) struct Subscription {
    pub(crate) project: Project,
    pub(crate) id: String,
    verifier: Webhook,
}

impl Subscription {
    pub(crate) async fn make(project: &Project, url: &str, events: &[&str]) -> Self {
        let made = subscribe(project, url, events).await.is(201);
        let verifier = Webhook::new(&text(&made["secret"])).expect("a secret");
        Self { project: project.clone(), id: text(&made["id"]), verifier }
    }

    /// Returns the same subscription as somebody else sees it, or in another process.
    pub(crate) fn of(self, project: &Project) -> Self {
        Self { project: project.clone(), ..self }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("{WEBHOOKS}/{}{rest}", self.id)
    }

    pub(crate) async fn show(&self) -> Value {
        self.project.client.get(&self.path("")).await.is(200)
    }

    pub(crate) async fn change(&self, change: &Value) -> Value {
        self.project.client.call("PATCH", &self.path(""), change).await.is(200)
    }

    /// Gives it a new secret, and verifies by that from then on. Returns the same subscription by the one before.
    pub(crate) async fn rotate(&mut self) -> Self {
        let path = self.path("/rotate");
        let rotated = self.project.client.call("POST", &path, &json!({})).await.is(200);
        let verifier = Webhook::new(&text(&rotated["secret"])).expect("a secret");
        let verifier = std::mem::replace(&mut self.verifier, verifier);
        Self { project: self.project.clone(), id: self.id.clone(), verifier }
    }

    /// Returns its newest deliveries, oldest first.
    pub(crate) async fn deliveries(&self) -> Vec<Value> {
        let path = self.path("/deliveries?limit=200");
        let mut page = self.project.client.get(&path).await.is(200);
        let mut all: Vec<Value> =
            serde_json::from_value(page["deliveries"].take()).expect("a list");
        all.reverse();
        all
    }

    pub(crate) async fn redeliver(&self, seq: &Value) -> Answer {
        let path = self.path(&format!("/deliveries/{seq}/redeliver"));
        self.project.client.call("POST", &path, &json!({})).await
    }

    /// Holds a call to its signature and returns its id and the event.
    #[track_caller]
    pub(crate) fn verified(&self, call: &Call) -> (String, Value) {
        let mut head = HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            head.insert(HeaderName::from_static(name), call.header(name).parse().expect("a value"));
        }
        self.verifier.verify(call.text.as_bytes(), &head).expect("a good signature");
        let tampered = call.text.replacen("type", "tYpe", 1);
        assert!(self.verifier.verify(tampered.as_bytes(), &head).is_err());
        assert_eq!(call.body["type"], call.body["data"]["type"]);
        (text(&call.body["type"]), call.body["data"].clone())
    }
}

/// A receiver that takes everything.
pub(crate) async fn receiver() -> Rogue {
    Rogue::start(|_| takes()).await
}

pub(crate) fn takes() -> Says {
    Says::Ends(status("204 No Content", ""))
}

/// What came to a receiver: each event once, in the order in which they first came.
#[derive(Default)]
pub(crate) struct Received {
    seen: BTreeSet<String>,
    pub(crate) texts: Vec<String>,
    /// Calls that told again what had been told.
    pub(crate) again: usize,
}

impl Received {
    /// Takes calls until the message of this text.
    pub(crate) async fn until(&mut self, of: &Subscription, receiver: &mut Rogue, last: &str) {
        while self.texts.last().is_none_or(|text| text != last) {
            let call = receiver.called().await;
            let (kind, event) = of.verified(&call);
            assert_eq!(kind, "message.created");
            if self.seen.insert(call.header("webhook-id").to_owned()) {
                self.texts.push(text(&event["message"]["text"]));
            } else {
                self.again += 1;
            }
        }
    }
}

/// Returns the texts of so many messages.
pub(crate) fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("number {number}")).collect()
}
