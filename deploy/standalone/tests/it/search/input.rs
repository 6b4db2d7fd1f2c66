//! Whatever is asked: text is text.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ask, finds, has_documents, search};
use crate::{
    relay::{Relay, Wire},
    support::{Parley, column},
};

#[tokio::test]
async fn what_cannot_be_looked_for_is_refused() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let long = "x".repeat(2_001);
    let refused = async |query: &[(&str, &str)], field: &str| {
        let body = ask(&project, query).await.refused(422, "invalid_field");
        assert_eq!(body["field"], field, "{query:?}");
    };
    for q in ["", " \n", "\0", "a\0b", &long] {
        refused(&[("q", q)], "q").await;
    }
    for limit in ["0", "51"] {
        refused(&[("q", "x"), ("limit", limit)], "limit").await;
    }
    refused(&[], "q").await;
    for query in [("limit", "-1"), ("limit", "many"), ("channel", "\0"), ("channel", "no channel")]
    {
        ask(&project, &[("q", "x"), query]).await.refused(400, "invalid_request");
    }
    let body = json!({"text": "x"});
    let answer = project.call("POST", "/search?q=x", &body).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn syntax_is_text_and_takes_no_time() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for number in 0..200 {
        project.send(&format!("word{number} walnut {}", "nut ".repeat(number % 7))).await;
    }
    has_documents(&parley, 200).await;
    let terms = (0..400).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
    let same = "walnut ".repeat(280);
    let quotes = "\"".repeat(1_999);
    let phrases = "\"walnut nut\" ".repeat(150);
    let open = "(".repeat(2_000);
    let joined = "a-".repeat(1_000);
    let fuzzy = "walnuz walnutt wallnut walmut ".repeat(60);
    for query in [
        "field:\"",
        "*",
        "*:*",
        "((((",
        "text:walnut",
        "walnut AND (nut OR",
        "-walnut +nut",
        "walnut^100000000000000000000000",
        "walnut~9999999999",
        "[a TO z]",
        "{walnut}",
        "/.*/",
        "\\",
        "\"walnut",
        "\"\"",
        "🥜",
        "\u{1}\u{7f}\u{85}\u{200b}\u{202e}",
        "\u{10ffff}",
        "'; DROP TABLE messages; --",
        &terms,
        &same,
        &quotes,
        &phrases,
        &open,
        &joined,
        &fuzzy,
    ] {
        let asked = Instant::now();
        search(&project, query).await;
        assert!(asked.elapsed() < Duration::from_secs(1), "{query:?} took {:?}", asked.elapsed());
    }
    finds(&project, "word7:", &["word7 walnut "]).await;
    assert_eq!(search(&project, "(walnut)").await.len(), 20);
}

#[tokio::test]
async fn nothing_is_found_while_proc_is_away_and_that_is_said_in_time() {
    let relay = Relay::start().await;
    let parley = Parley::start_with(&["--proc-grpc-url", &relay.url]).await;
    relay.leads_to(&parley.internal("proc"));
    let project = parley.as_user("ada").project().await;
    project.send("walnut").await;
    finds(&project, "walnut", &["walnut"]).await;
    for wire in [Wire::Cut, Wire::Frozen] {
        relay.set(wire);
        let asked = Instant::now();
        ask(&project, &[("q", "walnut")]).await.refused(503, "unavailable");
        assert!(asked.elapsed() < Duration::from_millis(2_500), "{:?}", asked.elapsed());
        ask(&project.of("grace"), &[("q", "walnut")]).await.refused(404, "not_found");
    }
    relay.set(Wire::Whole);
    let again = async || ask(&project, &[("q", "walnut")]).await.status == 200;
    crate::support::eventually("it is found again", again).await;
}

#[tokio::test]
async fn excluded_phrases_leave_out_what_has_them_and_nothing_else() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let texts = ["the cat sees the the end", "a the cat", "end of the cat", "the end of a cat"];
    for text in texts.iter().cycle().take(24) {
        project.send(text).await;
    }
    has_documents(&parley, 24).await;
    for (query, phrase) in [
        ("\"the cat\" -\"the the\"", "the the"),
        ("cat -\"the end\"", "the end"),
        ("cat -end-of -\"a the\"", "end of"),
        ("\"the cat\" cat -a-the", "a the"),
    ] {
        let found = search(&project, query).await;
        assert!(!found.is_empty(), "{query}");
        let has = |hit: &serde_json::Value| hit["text"].as_str().unwrap().contains(phrase);
        assert!(!found.iter().any(has), "{query}: {found:?}");
    }
}

#[tokio::test]
async fn operators_alone_show_the_newest_messages_first() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let mut texts: Vec<String> =
        (0..30).map(|n| format!("a long message with many words, number {n} of them")).collect();
    texts.extend(["red", "is it blue?", "pear"].map(Into::into));
    for text in &texts {
        project.send(text).await;
    }
    has_documents(&parley, 33).await;
    texts.reverse();
    for query in ["from:me", "in:general", "after:2020", "from:me -word"] {
        assert_eq!(column(&json!(search(&project, query).await), "text"), texts[..20], "{query}");
    }
}
