//! Answers of a language model: a stand-in speaks the protocol, well and badly.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::{MANY, asking, printers, text_of};
use crate::{
    sse::{Event, Sse},
    support::{Parley, column},
};

/// The key that no log, no body and no stream may show.
const KEY: &str = "canary-key-of-the-model";
const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// An endpoint that says what it is told to, once each.
struct StandIn {
    url: String,
    answers: Arc<Mutex<VecDeque<String>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    _serving: JoinSet<()>,
}

impl StandIn {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let (answers, asked) =
            (Arc::<Mutex<VecDeque<String>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (mut serving, told, heard) = (JoinSet::new(), answers.clone(), asked.clone());
        serving.spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                let mut request = Vec::new();
                let (head, body) = loop {
                    socket.read_buf(&mut request).await.expect("a request");
                    let text = String::from_utf8_lossy(&request);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    if let Ok(body) = serde_json::from_str(body) {
                        break (head.to_lowercase(), body);
                    }
                };
                heard.lock().expect("no panic").push((head, body));
                let answer = told.lock().expect("no panic").pop_front();
                let answer = answer.expect("it was told what to say");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, answers, asked, _serving: serving }
    }

    fn says(&self, answer: String) {
        self.answers.lock().expect("no panic").push_back(answer);
    }

    fn refuses(&self, status: &str) {
        let head = "Retry-After: 0\r\nContent-Length: 2\r\nConnection: close";
        self.says(format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{{}}"));
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

fn delta(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

const STOP: &str =
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

async fn start(model: &StandIn) -> Parley {
    let flags =
        ["--answer-writer", "openai", "--llm-model", "a-model", "--llm-base-url", &model.url];
    Parley::start_with(&[&flags[..], &["--llm-api-key", KEY], &MANY[..]].concat()).await
}

fn end(events: &[Event]) -> (&str, &Value) {
    let end = events.last().expect("an end");
    (&end.name, &end.data)
}

#[tokio::test]
async fn a_model_is_given_the_passages_and_its_words_are_streamed_with_the_ones_it_names() {
    let model = StandIn::start().await;
    let parley = start(&model).await;
    let project = printers(&parley).await;
    let words = ["It wants ", "paper [2]", " and a firm word", "[1].", "\u{1f5a8}\n"];
    model.says(format!("{SSE}: comment\n\n{}{STOP}{DONE}", words.map(delta).concat()));
    let request = asking(&project, "asked").query(&[("max_tokens", "77"), ("temperature", "0.7")]);
    let events = Sse::open(request).await.rest().await;
    assert_eq!(text_of(&events, 0), words.concat());
    let (name, complete) = end(&events);
    assert_eq!((name, &complete["reason"]), ("complete", &json!("finished")));
    let asked = model.asked.lock().expect("no panic").clone();
    let [(head, body)] = &asked[..] else { panic!("{asked:?}") };
    assert!(head.starts_with("post /v1/chat/completions http/1.1"), "{head}");
    assert!(head.contains(&format!("authorization: bearer {KEY}")), "{head}");
    assert_eq!(
        (&body["model"], &body["stream"], &body["max_tokens"]),
        (&json!("a-model"), &json!(true), &json!(77))
    );
    assert!((body["temperature"].as_f64().expect("a number") - 0.7).abs() < 1e-6);
    let prompt = body["messages"][1]["content"].as_str().expect("text");
    assert!(
        prompt.contains("[1] ") && prompt.ends_with("Question: what does the printer want?"),
        "{prompt}"
    );
    // What it named, and in the prompt under that number.
    assert_eq!(column(&complete["sources"], "author"), ["ada", "ada"]);
    for (number, source) in (1..).zip(complete["sources"].as_array().expect("a list")) {
        let (_, passage) = prompt.split_once(&format!("[{number}] ")).expect("it is in there");
        let (passage, _) = passage.split_once("\n\n").expect("it ends");
        assert!(passage.ends_with(source["snippet"].as_str().expect("text")), "{passage}");
    }
    assert!(!parley.log().contains(KEY));
}

#[tokio::test]
async fn a_model_that_refuses_is_asked_again_as_long_as_nothing_was_said() {
    let model = StandIn::start().await;
    let parley = start(&model).await;
    let project = printers(&parley).await;
    model.refuses("429 Too Many Requests");
    model.refuses("503 Service Unavailable");
    model.says(format!("{SSE}{}{STOP}", delta("Paper.")));
    let events = Sse::open(asking(&project, "third-time")).await.rest().await;
    assert_eq!((text_of(&events, 0).as_str(), end(&events).0), ("Paper.", "complete"));
    assert_eq!(model.asked(), 3);
    for _ in 0..3 {
        model.refuses("500 Internal Server Error");
    }
    let events = Sse::open(asking(&project, "never")).await.rest().await;
    assert_eq!((end(&events).0, &end(&events).1["code"]), ("error", &json!("model_unavailable")));
    assert_eq!(model.asked(), 6);
    // It will not go better the next time.
    model.refuses("401 Unauthorized");
    let events = Sse::open(asking(&project, "no-key")).await.rest().await;
    assert_eq!((end(&events).0, &end(&events).1["code"]), ("error", &json!("model_unavailable")));
    assert_eq!(model.asked(), 7);
    let whole = project.client.get("/api/chat/answers/no-key").await.is(200);
    assert_eq!(
        (&whole["state"], &whole["error"]["code"]),
        (&json!("failed"), &json!("model_unavailable"))
    );
}

#[tokio::test]
async fn a_model_that_breaks_off_is_not_asked_again_and_what_it_said_stays() {
    let model = StandIn::start().await;
    let parley = start(&model).await;
    let project = printers(&parley).await;
    let cut_within = &delta("toner")[..20];
    for (name, rest) in [
        ("closed", String::new()),
        ("cut", cut_within.to_owned()),
        ("garbage", "data: <html>\n\n".to_owned()),
        ("error", "data: {\"error\": {\"message\": \"overloaded\"}}\n\n".to_owned()),
    ] {
        model.says(format!("{SSE}{}{rest}", delta("Paper ")));
        let before = model.asked();
        let events = Sse::open(asking(&project, name)).await.rest().await;
        assert_eq!(text_of(&events, 0), "Paper ", "{name}");
        let code = &end(&events).1["code"];
        assert_eq!((end(&events).0, code), ("error", &json!("model_broke_off")), "{name}");
        assert_eq!(model.asked(), before + 1);
    }
}

#[tokio::test]
async fn a_model_that_says_too_much_is_stopped_at_what_was_asked_for() {
    let model = StandIn::start().await;
    let parley = start(&model).await;
    let project = printers(&parley).await;
    model.says(format!("{SSE}{}{STOP}", delta(&"word ".repeat(5_000))));
    let request = asking(&project, "long").query(&[("max_tokens", "50")]);
    let events = Sse::open(request).await.rest().await;
    assert_eq!(text_of(&events, 0).split_whitespace().count(), 50);
    assert_eq!(
        (&end(&events).1["reason"], &end(&events).1["total_tokens"]),
        (&json!("finished"), &json!(50))
    );
}
