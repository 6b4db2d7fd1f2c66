//! Webhooks: subscribed, delivered in order, delivered again, given up and taken up again.

mod failing;
mod many;
mod outage;
mod rights;
mod steering;

use serde_json::{Value, json};

use crate::{
    bundle::{ADMIN, LOOPBACK, manifest, register},
    job::{JOBS, until_state},
    project::Project,
    support::{Parley, column, eventually, text},
    webhook::{Subscription, WEBHOOKS, receiver, subscribe},
};

/// Starts Parley again with a log of at most so many entries, and returns once the log does not go on at `cursor`.
async fn trimmed(
    mut parley: Parley,
    project: &Project,
    entries: &str,
    cursor: &str,
) -> (Parley, Project) {
    parley.terminate().await;
    let flags = [&LOOPBACK[..], &["--journal-max-entries", entries]].concat();
    let parley = Parley::start_in(&parley.dir, &flags).await;
    let project = Project { client: parley.as_user("ada"), id: project.id.clone() };
    // Retention runs beside the start.
    let page = format!("/events?after={cursor}");
    let is_trimmed = async || project.get(&page).await.is(200)["reset"].is_string();
    eventually("the log is trimmed", is_trimmed).await;
    (parley, project)
}

#[tokio::test]
async fn owners_subscribe_urls_and_the_secret_is_shown_once() {
    let parley = Parley::start_with(&[&LOOPBACK[..], &["--log", "trace"]].concat()).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let answer = subscribe(&project, &receiver.url, &["message.created", "message.created"]).await;
    let location = answer.header("location").to_owned();
    let mut made = answer.is(201);
    let secret = text(&made["secret"].take());
    made.as_object_mut().unwrap().remove("secret");
    assert_eq!((&made["owner"], &made["state"]), (&json!("ada"), &json!("active")));
    assert_eq!(made["events"], json!(["message.created"]));
    let path = format!("{WEBHOOKS}/{}", text(&made["id"]));
    assert_eq!(location, path);
    assert_eq!(project.client.get(&path).await.is(200), made);
    let list = format!("{WEBHOOKS}?project_id={}", project.id);
    assert_eq!(project.client.get(&list).await.is(200), json!({"webhooks": [made], "next": null}));
    project.send("hello").await;
    receiver.called().await;

    let all = project.client.call("PATCH", &path, &json!({"events": ["*"]})).await.is(200);
    assert_eq!((&all["events"], &all["url"]), (&json!(["*"]), &json!(receiver.url)));
    project.client.delete(&path).await.is(204);
    for method in ["GET", "DELETE"] {
        let request = project.client.call(method, &path, &json!({})).await;
        request.refused(404, "not_found");
    }
    // A project has ten, however fast they are asked for.
    let many = (0..14).map(|_| subscribe(&project, &receiver.url, &["*"]));
    let made = futures_util::future::join_all(many).await;
    assert_eq!(made.iter().filter(|answer| answer.status == 201).count(), 10);
    for refused in made.into_iter().filter(|answer| answer.status != 201) {
        refused.refused(409, "conflict");
    }
    let said = parley.log();
    assert!(said.contains("TRACE") && !said.contains(&secret[6..30]), "the secret is told");
}

#[tokio::test]
async fn what_cannot_be_called_or_does_not_happen_is_not_subscribed_to() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for url in [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://a:22/",
        "x",
        "",
    ] {
        let refused = subscribe(&project, url, &["*"]).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], "url", "{url}");
    }
    let url = "https://receiver.example.org/";
    let good = json!({"project_id": project.id, "url": url, "events": ["*"]});
    for (field, value) in [
        ("events", json!([])),
        ("events", json!(["*", "message.created"])),
        ("events", json!(["user.typing"])),
        ("events", json!("*")),
        ("events", json!([1])),
        ("project_id", json!("x")),
        ("secret", json!("whsec_mine")),
        ("url", json!("https://e.org/".repeat(200))),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let answer = project.client.call("POST", WEBHOOKS, &body).await;
        let refused = answer.refused(422, "invalid_field");
        assert!(text(&refused["field"]).starts_with(field), "{body}: {refused}");
    }
    let made = project.client.call("POST", WEBHOOKS, &good).await.is(201);
    let path = format!("{WEBHOOKS}/{}", text(&made["id"]));
    for change in
        [json!({"url": "https://10.0.0.1/"}), json!({"events": []}), json!({"state": "active"})]
    {
        project.client.call("PATCH", &path, &change).await.refused(422, "invalid_field");
    }
    let shown = project.client.get(&path).await.is(200);
    assert_eq!((&shown["url"], &shown["events"]), (&json!(url), &json!(["*"])));
    for path in ["/junk", "/00000000-0000-0000-0000-000000000000/deliveries/x/redeliver"] {
        let answer = project.client.call("POST", &format!("{WEBHOOKS}{path}"), &json!({})).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_on_the_stream_arrives_in_its_order_signed_and_what_is_not_wanted_does_not() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let (mut all, mut some) = (receiver().await, receiver().await);
    let of_all = Subscription::make(&project, &all.url, &["*"]).await;
    let of_some =
        Subscription::make(&project, &some.url, &["reaction.added", "channel.created"]).await;
    let (mut stream, _) = project.stream("").await;
    project.call("POST", "/channels", &json!({"name": "random"})).await.is(201);
    let message = project
        .call("POST", "/messages", &json!({"text": "ü\u{2028}\"<\\", "channel": "random"}))
        .await
        .is(201);
    let path = format!("/messages/{}", text(&message["id"]));
    project.call("PATCH", &path, &json!({"text": "changed"})).await.is(200);
    // Nobody's log has it.
    project.call("POST", "/typing", &json!({"channel": "random"})).await.is(204);
    project.with("grace", "viewer").await;
    project.call("PUT", &format!("{path}/reactions/x"), &json!({})).await.is(200);
    project.delete(&path).await.is(200);
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "message.deleted") {
        let call = all.called().await;
        let (kind, event) = of_all.verified(&call);
        // The text of a message goes with its edit and its deletion, which may come before the delivery.
        let told = stream.entry().await.data;
        if event["message"]["redacted"] == true {
            assert_eq!((&event["type"], &event["at"]), (&told["type"], &told["at"]), "{kind}");
        } else {
            assert_eq!(event, told, "{kind}");
        }
        assert_eq!(
            (&call.body["timestamp"], call.header("content-type")),
            (&event["at"], "application/json")
        );
        assert!(call.header("user-agent").starts_with("parley/"));
        kinds.push(kind);
    }
    let expected = [
        "channel.created",
        "message.created",
        "message.updated",
        "member.added",
        "reaction.added",
        "message.deleted",
    ];
    assert_eq!(kinds, expected);
    for kind in ["channel.created", "reaction.added"] {
        assert_eq!(of_some.verified(&some.called().await).0, kind);
    }
    let logged = async || of_all.deliveries().await.len() == kinds.len();
    eventually("the log of deliveries", logged).await;
    let log = of_all.deliveries().await;
    assert_eq!(column(&json!(log), "type"), expected);
    for delivery in &log {
        let (status, http) = (&delivery["status"], &delivery["http_status"]);
        assert_eq!(
            (status, http, &delivery["attempts"]),
            (&json!("delivered"), &json!(204), &json!(1))
        );
    }
    let seqs: Vec<i64> = log.iter().map(|delivery| delivery["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
    // The log comes in pages, newest first.
    let client = &project.client;
    let first = client.get(&of_all.path("/deliveries?limit=4")).await.is(200);
    let next = of_all.path(&format!("/deliveries?limit=4&cursor={}", first["next"]));
    let second = client.get(&next).await.is(200);
    let pages =
        [column(&first["deliveries"], "type"), column(&second["deliveries"], "type")].concat();
    assert_eq!(pages, expected.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(second["next"], Value::Null);
}

#[tokio::test]
async fn deliveries_are_jobs_that_nobody_else_can_make() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let (ada, admin) = (parley.as_user("ada"), parley.as_user("admin"));
    let project = ada.project().await;
    let mut receiver = receiver().await;
    let subscription = Subscription::make(&project, &receiver.url, &["*"]).await;
    project.send("hello").await;
    receiver.called().await;
    let jobs = ada.get(&format!("{JOBS}?bundle=webhook")).await.is(200);
    let id = text(&jobs["jobs"][0]["id"]);
    let job = until_state(&ada, &id, "succeeded").await;
    assert_eq!((&job["operation"], &job["result"]), (&json!("deliver"), &json!({"delivered": 1})));
    let body = json!({"project_id": project.id, "data": {"webhook_id": subscription.id}});
    for client in [&ada, &admin] {
        let path = "/api/integrations/bundles/webhook/operations/deliver";
        client.call("POST", path, &body).await.refused(404, "not_found");
        client.get("/api/integrations/bundles/webhook").await.refused(404, "not_found");
    }
    let bundles = ada.get("/api/integrations/bundles").await.is(200);
    assert!(!column(&bundles["bundles"], "name").contains(&"webhook".into()));
    let taken = register(&admin, "webhook", &receiver.url, &manifest(&["deliver"], 20)).await;
    taken.refused(409, "conflict");
    assert_eq!(ada.get(&format!("{ADMIN}/webhook")).await.status, 403);

    // Asked for again it comes again, by the same name; what was never delivered cannot.
    let delivery = subscription.deliveries().await.remove(0);
    let job = subscription.redeliver(&delivery["seq"]).await.is(202);
    let call = receiver.called().await;
    assert_eq!(call.header("webhook-id"), text(&delivery["message_id"]));
    assert_eq!(subscription.verified(&call).1["message"]["text"], "hello");
    until_state(&ada, &text(&job["id"]), "succeeded").await;
    let again = subscription.deliveries().await.remove(0);
    assert_eq!((&again["attempts"], &again["seq"]), (&json!(2), &delivery["seq"]));
    subscription.redeliver(&json!(1_000_000)).await.refused(404, "not_found");
}
