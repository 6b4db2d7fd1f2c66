//! What is no cursor, and what is somebody else's: never an error, never somebody else's events, one `reset` at most.

use reqwest::RequestBuilder;
use serde_json::json;

use crate::{
    job,
    project::Project,
    sse::Sse,
    support::{Parley, text},
};

const FLAGS: [[&str; 2]; 3] = [
    ["--max-connections-per-user", "1000"],
    ["--sse-max-conn-per-ip", "1000"],
    ["--sse-max-conn-per-session", "1000"],
];

/// Returns everything that a client may come back with but never got for this log.
fn junk(own: &str, foreign: &[String]) -> Vec<Vec<u8>> {
    let [v1, log, epoch, seq, tag] = own.split('.').collect::<Vec<_>>()[..] else {
        panic!("{own}")
    };
    let [_, _, its_epoch, its_seq, its_tag] = foreign[0].split('.').collect::<Vec<_>>()[..] else {
        panic!("{foreign:?}")
    };
    // A cursor that is empty, or blank in a header, is as good as none; `what_is_empty_is_not_given` is about those.
    let mut junk: Vec<Vec<u8>> = [
        "0",
        "-1",
        "42",
        "null",
        "undefined",
        "[object Object]",
        "NaN",
        "v1",
        "v1.",
        "v1.-",
        "v1....",
        "v2.1.1.1.1",
        "v1.0.0.0.0",
        "v1.+1.+1.+1.+1",
        "v1.1.1.1.1 or 1=1",
        "' OR 1=1 --",
        "v1.';DROP TABLE slots;--.1.1.1",
        "../../../etc/passwd",
        "{}",
        "${jndi:x}",
        "%00",
        "ä→😀",
        "v1.١.١.١.١",
        "\u{feff}v1.1.1.1.1",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    junk.extend([b"\xff\xfe\x80".to_vec(), vec![b'a'; 10 << 10], b"v1.".repeat(3 << 10)]);
    junk.extend(
        [
            // Of the future, as far as numbers go and farther.
            format!("{v1}.{log}.{epoch}.zzz.{tag}"),
            format!("{v1}.{log}.{epoch}.1y2p0ij32e8e7.{tag}"),
            format!("{v1}.{log}.{epoch}.1y2p0ij32e8e8.{tag}"),
            format!("{v1}.{log}.{epoch}.{}.{tag}", "z".repeat(60)),
            format!("{v1}.{log}.{epoch}.{seq}.1z141z4"),
            format!("{v1}.1z141z4.{epoch}.{seq}.{tag}"),
            // Of this log, but for one number.
            format!("{v1}.{log}.{epoch}.{seq}.{its_tag}"),
            format!("{v1}.{log}.{its_epoch}.{its_seq}.{its_tag}"),
            format!("{v1}.{log}.{epoch}.-{seq}.{tag}"),
            // The beginning has no entry, so no tag but 0.
            format!("{v1}.{log}.{epoch}.0.{tag}"),
            format!("{v1}.{log}.{epoch}.0.1"),
            format!("{own}-"),
            format!("-{own}"),
            format!("{own}.0"),
            own.to_uppercase(),
            own.repeat(8),
        ]
        .map(String::into_bytes),
    );
    junk.extend(foreign.iter().map(|cursor| cursor.clone().into_bytes()));
    junk
}

fn percent_encoded(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    })
}

/// Returns the requests that come back to the stream with this, in every way that there is.
fn comings(project: &Project, path: &str, cursor: &[u8]) -> Vec<RequestBuilder> {
    let encoded = percent_encoded(cursor);
    let header = project.client.request("GET", path).header("last-event-id", cursor);
    let query = |name| project.client.request("GET", &format!("{path}&{name}={encoded}"));
    vec![header, query("last_event_id"), query("since")]
}

#[tokio::test]
async fn junk_and_foreign_cursors_are_one_reset_and_then_live() {
    let parley = Parley::start_with(FLAGS.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let secret = parley.as_user("grace").project().await;
    for _ in 0..3 {
        secret.send("secret").await;
        project.send("before").await;
    }
    let (_, of_jobs) = Sse::greeted(project.client.request("GET", "/api/jobs/stream")).await;
    let own = project.cursor().await;
    let junk = junk(&own, &[secret.cursor().await, text(&of_jobs["cursor"])]);
    let path = format!("/sse/stream?project_id={}", project.id);
    let mut streams = Vec::new();
    for cursor in &junk {
        for coming in comings(&project, &path, cursor) {
            streams.push((String::from_utf8_lossy(cursor), Sse::greeted(coming).await));
        }
    }
    // What no header can have, a query can.
    for cursor in ["\0", "v1.\0", "\n", "\r\n\r\nevent: forged\ndata: {}\n\n"] {
        for name in ["last_event_id", "since"] {
            let encoded = percent_encoded(cursor.as_bytes());
            let coming = project.client.request("GET", &format!("{path}&{name}={encoded}"));
            streams.push((cursor.into(), Sse::greeted(coming).await));
        }
    }
    project.send("live").await;
    for (cursor, (mut stream, hello)) in streams {
        assert_eq!(hello["resumed"], false, "{cursor:?}");
        let reset = stream.expect("reset").await;
        assert_eq!(reset["cursor"], hello["cursor"], "{cursor:?}");
        let reasons = ["expired", "unknown_epoch", "ahead", "malformed"];
        assert!(reasons.contains(&reset["reason"].as_str().unwrap()), "{cursor:?}: {reset}");
        let event = stream.expect("message.created").await;
        let (text, of) = (&event["message"]["text"], &event["project_id"]);
        assert_eq!((text, of), (&json!("live"), &json!(project.id)), "{cursor:?}");
    }
}

#[tokio::test]
async fn a_stream_of_jobs_begins_anew_with_what_is_no_cursor_of_it() {
    let parley = Parley::start_with(FLAGS.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    // So that it has a log.
    job::run(&project, "demo.count", json!({"to": 1})).await;
    let (_, own) = Sse::greeted(project.client.request("GET", "/api/jobs/stream")).await;
    let (_, foreign) = Sse::greeted(parley.as_user("grace").request("GET", "/sse/jobs")).await;
    let foreign = [text(&foreign["cursor"]), project.cursor().await];
    for cursor in junk(&text(&own["cursor"]), &foreign) {
        for coming in comings(&project, "/api/jobs/stream?", &cursor) {
            let (mut stream, hello) = Sse::greeted(coming).await;
            let cursor = String::from_utf8_lossy(&cursor);
            assert_eq!(hello["resumed"], false, "{cursor:?}");
            stream.expect("reset").await;
            assert_eq!(stream.expect("job.snapshot").await["jobs"], json!([]), "{cursor:?}");
        }
    }
}
