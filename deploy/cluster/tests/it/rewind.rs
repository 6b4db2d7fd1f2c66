//! The database goes back to an older copy of itself while streams are open: a failover that lost a tail, or a restore.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{support::read_until, whole::Whole};

fn by(whole: &Whole, user: &str, method: Method, url: &str) -> RequestBuilder {
    whole.http.request(method, url).bearer_auth(format!("dev-{user}"))
}

async fn done(request: RequestBuilder) -> Response {
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    answer
}

/// Opens a stream of the project in a session, from `last_id` on if there is one. Returns it with its greeting.
async fn open(
    whole: &Whole,
    base: &str,
    project: &str,
    (user, session): (&str, &str),
    last_id: Option<&str>,
) -> (Response, String) {
    let url = format!("{base}/sse/stream?project_id={project}&stream_id={session}");
    let mut request = by(whole, user, Method::GET, &url).header("user-session-id", session);
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let mut stream = done(request).await;
    let greeting = read_until(&mut stream, "\"resumed\":").await;
    (stream, greeting)
}

fn last_id(said: &str) -> &str {
    said.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("an id")
}

#[tokio::test]
async fn open_streams_get_one_reset_and_rights_hold_after_a_lost_tail() {
    let whole = Whole::start(|options| (options.ingress, options.proc) = (2, 1)).await;
    let (postgres, base) = (whole.cluster.postgres(), whole.cluster.base_url());
    let [first, second] = [0, 1].map(|number| whole.cluster.ingress_url(number));
    let project = whole.project().await;
    let members = format!("{base}/api/chat/projects/{project}/members/grace");
    done(by(&whole, "grace", Method::GET, &format!("{base}/api/auth/me"))).await;
    done(by(&whole, "ada", Method::PUT, &members).json(&json!({"role": "member"}))).await;
    // Sessions that the copy knows.
    for session in ["open", "other", "one", "two"] {
        let me = format!("{base}/api/auth/me");
        done(by(&whole, "ada", Method::GET, &me).header("user-session-id", session)).await;
    }
    whole.send(&base, &project, "kept").await;

    postgres.stop().await.expect("it ends");
    postgres.keep_copy().expect("it is copied");
    postgres.start().await.expect("it starts");

    // The tail that is lost: four messages, and two ends of sessions.
    for number in 0..4 {
        whole.send(&base, &project, &format!("lost {number}")).await;
    }
    let end_session = async |session: &str| {
        let url = format!("{base}/api/auth/sessions/{session}");
        done(by(&whole, "ada", Method::DELETE, &url).header("user-session-id", "other")).await;
    };
    end_session("one").await;
    end_session("two").await;
    // All of these were let in at numbers that will be used again.
    let (mut here, _) = open(&whole, &first, &project, ("ada", "open"), None).await;
    let (mut there, _) = open(&whole, &second, &project, ("ada", "other"), None).await;
    let (mut of_grace, _) = open(&whole, &first, &project, ("grace", "grace"), None).await;
    whole.send(&base, &project, "lost 4").await;
    for stream in [&mut here, &mut there, &mut of_grace] {
        read_until(stream, "lost 4").await;
    }

    postgres.stop_immediate().await.expect("it ends");
    postgres.put_copy_back().expect("it is put back");
    postgres.start().await.expect("it starts");

    // The first number that is used again removes a member.
    let removal = async {
        loop {
            let answer =
                by(&whole, "ada", Method::DELETE, &members).send().await.expect("an answer");
            match answer.status().as_u16() {
                503 => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                status => break assert!((200..300).contains(&status), "{status}"),
            }
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, removal).await.expect("it is taken");
    let said = read_until(&mut of_grace, "\"revoked\"").await;
    assert!(!said.contains("message.created"), "a removed member gets nothing: {said}");

    for number in 0..12 {
        whole.send(&base, &project, &format!("new {number}")).await;
    }
    let mut cursors = Vec::new();
    for (stream, base) in [(&mut here, &first), (&mut there, &second)] {
        let mut said = read_until(stream, "event: reset").await;
        let before = said.split("event: reset").next().unwrap_or_default();
        assert!(!before.contains("message.created"), "nothing comes before the reset: {said}");
        // Messages sent after the reset was read arrive on the stream, each once.
        whole.send(base, &project, &format!("after the reset on {base}")).await;
        said += &read_until(stream, &format!("after the reset on {base}")).await;
        assert!(said.contains("\"reason\":\"diverged\""), "{said}");
        assert_eq!(said.matches("event: reset").count(), 1, "{said}");
        assert!(!said.contains("lost"), "{said}");
        cursors.push(last_id(&said).to_owned());
    }
    // A resume from the next id goes on.
    let (_resumed, greeting) =
        open(&whole, &second, &project, ("ada", "resumed"), Some(&cursors[1])).await;
    assert!(greeting.contains("\"resumed\":true"), "{greeting}");
    assert!(!greeting.contains("event: reset"), "{greeting}");

    // A number of the log of sessions that is used again ends a stream that was let in before.
    end_session("open").await;
    read_until(&mut here, "\"revoked\"").await;
    let history = format!("{base}/api/chat/projects/{project}/messages?limit=50");
    let all: Value =
        done(by(&whole, "ada", Method::GET, &history)).await.json().await.expect("JSON");
    let all = all.to_string();
    for number in 0..12 {
        assert!(
            all.contains(&format!("new {number}\"")),
            "an acknowledged message is there: {all}"
        );
    }
    whole.stop().await;
}
