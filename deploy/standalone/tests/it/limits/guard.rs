//! The guard before everything: a flood of one address is refused, and who shares the address is served.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    raw::Raw,
    sse::Sse,
    support::{Answer, Client, Parley, eventually, text},
};

use super::{read, wait_of};

const FLOOD: Duration = Duration::from_secs(6);
const PER_SECOND: u32 = 1_000;

/// Asks for an unknown path a thousand times a second, on a thread of its own. Returns how many were 404 and how many 429.
fn flood(client: &Client) -> [u32; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (started, mut number, mut counts) = (Instant::now(), 0, [0, 0]);
        while started.elapsed() < FLOOD {
            let asked = (0..10).map(|_| client.get("/nothing/here"));
            for answer in futures_util::future::join_all(asked).await {
                match answer.status {
                    404 => counts[0] += 1,
                    429 => counts[1] += 1,
                    other => panic!("{other}"),
                }
            }
            number += 10;
            let due = started + Duration::from_secs(1) * number / PER_SECOND;
            tokio::time::sleep_until(due.into()).await;
        }
        counts
    })
}

/// Waits until the address has spent its budget.
async fn is_flooded(parley: &Parley) {
    let client = parley.client();
    let spent = async || client.get("/nothing/else").await.status == 429;
    eventually("a spent budget", spent).await;
}

#[tokio::test]
async fn a_flood_is_refused_and_neighbours_behind_the_address_are_not() {
    let parley = Parley::start_as_shipped().await;
    let ada = parley.as_user("ada");
    let project = ada.project().await;
    let ticket = ada.call("POST", "/sse/ticket", &json!({"project_id": project.id})).await.is(200);
    let client = parley.client();
    let flooding = tokio::task::spawn_blocking(move || flood(&client));
    is_flooded(&parley).await;
    let refusal = parley.client().get("/nothing/else").await;
    assert!(refusal.status == 404 || wait_of(refusal) >= Duration::from_secs(1));
    // One who is signed in, one who first signs in by header, one by cookie, and one by ticket.
    read(&ada).await.is(200);
    read(&parley.as_user("grace")).await.is(200);
    let cookie = parley.client().request("GET", "/api/auth/me");
    Answer::to(cookie.header("cookie", "__Secure-LATC=dev-admin")).await.is(200);
    let path = format!("/sse/stream?project_id={}&ticket={}", project.id, text(&ticket["ticket"]));
    let mut stream = Sse::open(parley.client().request("GET", &path)).await;
    stream.expect("hello").await;
    for _ in 0..10 {
        read(&ada).await.is(200);
    }
    // A guess is not told from a request without a credential.
    let guess = read(&parley.as_user("guess")).await;
    assert!([401, 429].contains(&guess.status), "{}", guess.status);
    for path in ["/health", "/health/live", "/health/ready"] {
        parley.client().get(path).await.is(200);
    }
    let [served, refused] = flooding.await.expect("it has counts");
    println!("{served} were 404, {refused} were 429");
    let most = 400 + 200 * u32::try_from(FLOOD.as_secs() + 1).expect("small");
    assert!(served <= most && refused > 0, "{served} of {most} were served, {refused} refused");
}

#[tokio::test]
async fn the_guard_covers_every_path_and_says_so_in_the_shape_of_errors() {
    let parley =
        Parley::start_with(&["--flood-limit=4/0.001", "--cors-origin=https://app.example"]).await;
    let client = parley.client();
    for path in ["/openapi.json", "/", "/console/config.json", "/nothing"] {
        assert_ne!(client.get(path).await.status, 429, "{path}");
    }
    for path in ["/openapi.json", "/", "/console/config.json", "/nothing", "/api/auth/me"] {
        let request = client.request("GET", path).header("origin", "https://app.example");
        let answer = Answer::to(request.header("x-trace-id", "mine")).await;
        assert_eq!(answer.header("access-control-allow-origin"), "https://app.example", "{path}");
        assert_eq!(answer.header("x-trace-id"), "mine", "{path}");
        assert!(!answer.header("x-session-id").is_empty(), "{path}");
        wait_of(answer);
    }
    let preflight =
        client.request("OPTIONS", "/api/auth/me").header("origin", "https://app.example");
    wait_of(Answer::to(preflight.header("access-control-request-method", "GET")).await);
    let callback = "/api/integrations/callbacks/0199aaaa-0000-7000-8000-000000000000";
    wait_of(client.call("POST", callback, &json!({})).await);
    // A known user has a budget of their own.
    let ada = parley.as_user("ada");
    for _ in 0..3 {
        read(&ada).await.is(200);
    }
    client.get("/health").await.is(200);
}

#[tokio::test]
async fn a_forwarded_request_without_trusted_proxies_is_warned_of_once() {
    let parley = Parley::start().await;
    for _ in 0..3 {
        let request = parley.client().request("GET", "/health");
        Answer::to(request.header("x-forwarded-for", "127.0.0.5")).await.is(200);
    }
    assert_eq!(parley.log().matches("TRUSTED_PROXIES is not set").count(), 1);
}

#[tokio::test]
async fn a_slow_callback_is_cut_and_takes_no_room() {
    let parley = Parley::start_with(&["--max-in-flight=1", "--body-timeout=2s"]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    let head = |lines: &str| {
        format!(
            "POST /api/integrations/callbacks/0199aaaa-0000-7000-8000-000000000000 HTTP/1.1\r\nhost: localhost\r\n{lines}\
             content-length: 60000\r\n\r\n{{"
        )
    };
    let signed = |at: u64| {
        format!("webhook-id: a\r\nwebhook-timestamp: {at}\r\nwebhook-signature: v1,AAAA\r\n")
    };
    // Refused by the head alone.
    for lines in [String::new(), signed(now - 301), signed(now).replace("webhook-id", "x-id")] {
        let answer = Raw::sending(&parley.proc, head(&lines)).await.until("}").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(Raw::sending(&parley.proc, head(&signed(now))).await);
    }
    let ada = parley.as_user("ada");
    let (mut row, mut drips) = (0, 0);
    while began.elapsed() < Duration::from_millis(1_500) {
        let answer = read(&ada).await;
        row = if answer.status == 200 { row + 1 } else { 0 };
        // Each byte comes well within the timeout; all together do not.
        if began.elapsed() > Duration::from_millis(250) * drips {
            drips += 1;
            for client in &mut slow {
                client.send(" ").await;
            }
        }
    }
    assert!(row >= 5, "{row} in a row were served while ten callbacks dripped");
    // Those that came at the same moment as another may have found no room; each of the others is cut.
    let mut cut = 0;
    for mut client in slow {
        client.send(" ").await;
        let answer = client.until("}").await;
        let found = answer.get(9..12).unwrap_or_default();
        assert!(["408", "503"].contains(&found), "{answer}");
        cut += u32::from(found == "408");
    }
    assert!(cut >= 3, "{cut} of ten slow bodies were waited for");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
