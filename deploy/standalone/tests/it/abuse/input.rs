//! What clients send where nothing is to be sent, and what they would put into other people's streams.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    project::Project,
    raw::{Raw, Received, stream_request},
    support::{PATIENCE, Parley, text},
};

/// A request that would leave a trace.
fn smuggled(project: &Project) -> String {
    let body = json!({"text": "smuggled"}).to_string();
    format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        project.path("/messages"),
        body.len()
    )
}

/// Sends a message and reads it; returns the texts of all messages so far.
async fn goes_on(
    peer: &mut Raw,
    bytes: &mut Vec<u8>,
    project: &Project,
    word: &str,
) -> Vec<String> {
    project.send(word).await;
    bytes.extend(peer.bytes_until(&format!("\"{word}\"")).await);
    while !bytes.ends_with(b"\n\n\r\n") {
        bytes.extend(peer.bytes_until("\n").await);
    }
    let events = Received::of(bytes).events;
    let messages = events.iter().filter(|event| event.kind() == "message.created");
    messages.map(|event| text(&event.data["message"]["text"])).collect()
}

#[tokio::test]
async fn requests_behind_an_open_stream_are_neither_done_nor_answered() {
    let parley = Parley::start_with(&["--max-connections-per-user", "100"]).await;
    let project = parley.as_user("ada").project().await;
    let smuggled = smuggled(&project);
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n{smuggled}", smuggled.len());
    for (number, (lines, at_once, later)) in [
        ("", smuggled.as_str(), smuggled.as_str()),
        ("", "", smuggled.as_str()),
        ("", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "\r\n\r\n\0\u{1}\u{7f}"),
        ("content-length: 5\r\n", "hello", smuggled.as_str()),
        ("content-length: 5\r\n", "", smuggled.as_str()),
        ("content-length: 100000\r\n", &smuggled, &smuggled),
        ("transfer-encoding: chunked\r\n", &chunk, &smuggled),
        ("transfer-encoding: chunked\r\n", "", &chunk),
        ("expect: 100-continue\r\ncontent-length: 5\r\n", "", &smuggled),
        ("connection: upgrade\r\nupgrade: websocket\r\n", &smuggled, "\u{81}\0"),
        ("connection: upgrade, http2-settings\r\nupgrade: h2c\r\n", "", &smuggled),
    ]
    .into_iter()
    .enumerate()
    {
        let case = format!("{lines:?} {at_once:?} {later:?}");
        let request = stream_request(&project, "1.1", lines) + at_once;
        let mut peer = Raw::sending(&parley.ingress, request).await;
        let mut bytes = peer.bytes_until("\"hello\"").await;
        let (first, second) = (format!("first {number}"), format!("second {number}"));
        assert_eq!(goes_on(&mut peer, &mut bytes, &project, &first).await, [&*first], "{case}");
        peer.send(later).await;
        let heard = goes_on(&mut peer, &mut bytes, &project, &second).await;
        assert_eq!(heard, [first, second], "{case}");
    }
    let history = project.history().await;
    assert_eq!(history.len(), 22);
    assert!(history.iter().all(|message| message["text"] != "smuggled"));
}

#[tokio::test]
async fn a_client_that_does_not_stop_talking_is_hung_up_on() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut reader, _) = project.stream("").await;
    let mut peer = Raw::sending(&parley.ingress, stream_request(&project, "1.1", "")).await;
    peer.until("\"hello\"").await;
    parley.has_streams(2).await;
    let talk = async {
        use tokio::io::AsyncWriteExt;
        while peer.0.write_all(&[b'x'; 1024]).await.is_ok() {}
    };
    timeout(PATIENCE, talk).await.expect("it hangs up");
    parley.has_streams(1).await;
    project.send("after").await;
    assert_eq!(reader.expect("message.created").await["message"]["text"], "after");
}

#[tokio::test]
async fn whatever_ends_a_line_somewhere_is_one_frame_with_the_same_text() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut parsed, _) = project.stream("").await;
    let mut peer = Raw::sending(&parley.ingress, stream_request(&project, "1.1", "")).await;
    let mut bytes = peer.bytes_until("\"hello\"").await;
    let breaks = ["\r", "\n", "\r\n", "\u{2028}", "\u{2029}", "\u{feff}", "\u{85}", "\u{c}"];
    let mut texts = Vec::new();
    for broken in breaks {
        for text in [
            format!("a{broken}b"),
            format!("{broken}data: forged"),
            format!("a{broken}{broken}event: bye{broken}data: {{}}{broken}{broken}"),
        ] {
            project.send(&text).await;
            texts.push(text);
        }
    }
    texts.push("last".into());
    assert_eq!(goes_on(&mut peer, &mut bytes, &project, "last").await, texts);
    let framed = String::from_utf8(bytes).unwrap().replace("\r\n", "");
    assert!(!framed.contains(['\r', '\u{2028}', '\u{2029}', '\u{85}', '\u{c}']));
    for text in &texts {
        assert_eq!(parsed.expect("message.created").await["message"]["text"], **text);
    }
    // What the client says itself comes back in the greeting.
    let (_, hello) = project.stream("&stream_id=%0d%0adata:%20x%0a%0a%e2%80%a8").await;
    assert_eq!(hello["streamId"], Value::from("\r\ndata: x\n\n\u{2028}"));
}
