//! Bundles that do what they should not, and where they may not be.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    bundle::{LOOPBACK, Rogue, Says, lines, manifest, register, status},
    job::{JOBS, follow, run, submit},
    support::{Parley, column, text},
};

/// What bundles do, and what becomes of the job: the code of its error, and its attempts.
const DEEDS: [(&str, &str, i64); 17] = [
    ("garbage", "invalid_answer", 1),
    ("binary", "invalid_answer", 1),
    ("html", "invalid_answer", 1),
    ("no_http", "connection_lost", 3),
    ("long_line", "answer_too_large", 1),
    ("endless", "answer_too_large", 1),
    ("redirect", "redirected", 1),
    ("refuses", "bundle_refused", 1),
    ("no_content", "bundle_refused", 1),
    ("breaks", "bundle_unavailable", 3),
    ("busy", "bundle_busy", 3),
    ("ends_early", "connection_lost", 3),
    ("cut_in_a_line", "connection_lost", 3),
    ("hangs", "timeout", 3),
    ("hangs_in_the_middle", "timeout", 3),
    ("fails", "quota", 1),
    ("fails_for_now", "quota", 3),
];

/// A line of nothing.
const BLANK: [u8; 4096] = {
    let mut line = [b' '; 4096];
    line[4095] = b'\n';
    line
};

fn deed(call: &Value, inward: &str) -> Says {
    match call["operation"].as_str().expect("a name") {
        "garbage" => Says::Ends(lines("{\"progress\":{\"done\":1}}\n][\n")),
        "binary" => Says::Floods(lines(""), &[0, 159, 146, 150, b'\n']),
        "html" => Says::Ends(lines("<html>\n<body>It works</body>\n</html>\n")),
        "no_http" => Says::Ends("220 mail.example.org ESMTP\r\n".into()),
        "long_line" => Says::Floods(lines(""), &[b'x'; 4096]),
        "endless" => Says::Floods(lines(""), &BLANK),
        "redirect" => {
            Says::Ends(status("307 Temporary Redirect", &format!("location: {inward}\r\n")))
        }
        "refuses" => Says::Ends(status("404 Not Found", "")),
        "no_content" => Says::Ends(status("204 No Content", "")),
        "breaks" => Says::Ends(status("502 Bad Gateway", "")),
        "busy" => Says::Ends(status("429 Too Many Requests", "")),
        "ends_early" => Says::Ends(lines("{\"progress\":{\"done\":1}}\n")),
        "cut_in_a_line" => Says::Ends(lines("{\"result\":{\"do")),
        "hangs" => Says::Hangs(String::new()),
        "hangs_in_the_middle" => Says::Hangs(lines("{\"progress\":{\"done\":1}}\n")),
        "fails" => Says::Ends(lines("{\"error\":{\"code\":\"quota\",\"message\":\"no more\"}}\n")),
        "fails_for_now" => Says::Ends(lines(
            "{\"error\":{\"code\":\"quota\",\"message\":\"no more\",\"retryable\":true}}\n",
        )),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn whatever_a_bundle_does_its_job_ends_by_name_and_nothing_grows() {
    let workers = ["--proc-workers", "32", "--proc-retry-spread", "2s"];
    let parley = Parley::start_with(&[&LOOPBACK[..], &workers].concat()).await;
    let project = parley.as_user("ada").project().await;
    let mut inward = Rogue::start(|_| Says::Ends(lines("{\"result\":\"secrets\"}\n"))).await;
    let url = inward.url.clone();
    let rogue = Rogue::start(move |call| deed(call, &url)).await;
    let operations = DEEDS.map(|(operation, ..)| operation);
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&operations, 2))
        .await
        .is(201);
    // What a job needs that is only an ordinary one.
    run(&project, "demo.count", json!({"to": 10})).await;
    let before = parley.peak_memory_kib();
    let (mut stream, _) = follow(&project.client).await;
    let mut jobs = BTreeMap::new();
    for (operation, code, attempts) in DEEDS {
        let job = submit(&project, &format!("rogue.{operation}"), json!({})).await.is(202);
        jobs.insert(text(&job["id"]), (operation, code, attempts));
    }
    while !jobs.is_empty() {
        let job = stream.until("job.failed").await.data["job"].take();
        let (operation, code, attempts) = jobs.remove(job["id"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&job["error"]["code"], &job["attempt"]),
            (&json!(code), &json!(attempts)),
            "{operation}: {job}"
        );
    }
    let grown = parley.peak_memory_kib() - before;
    println!("17 bad bundles, two of them without end: {grown} KiB more at the peak");
    assert!(grown < 64 << 10, "{grown} KiB");
    assert!(!inward.is_called_within(Duration::from_millis(1)).await, "it followed a redirect");
}

#[tokio::test]
async fn a_bundle_that_asks_for_time_is_called_again_in_the_same_attempt() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let mut rogue =
        Rogue::start(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Says::Ends(status("503 Service Unavailable", "retry-after: 1\r\n")),
            _ => Says::Ends(lines("{\"result\":[]}")),
        })
        .await;
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&["work"], 20)).await.is(201);
    let begun = std::time::Instant::now();
    let job = run(&project, "rogue.work", json!({"a": "ü"})).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!((&job["attempt"], &job["result"]), (&json!(1), &json!([])));
    let (first, second) = (rogue.called().await, rogue.called().await);
    // Each call has its own fence, and so its own id.
    assert_ne!(first.header("webhook-id"), second.header("webhook-id"));
    let body = &first.body;
    assert_eq!(
        (&body["type"], &body["job"], &body["attempt"]),
        (&json!("run"), &job["id"], &json!(1))
    );
    assert_eq!((&body["project_id"], &body["owner"]), (&json!(project.id), &json!("ada")));
    assert_eq!((&body["input"], &body["operation"]), (&json!({"a": "ü"}), &json!("work")));
    assert!(
        text(&body["callback_url"])
            .ends_with(&format!("/api/integrations/callbacks/{}", text(&job["id"])))
    );
}

#[tokio::test]
async fn a_cancel_closes_the_connection_of_a_bundle_that_hangs() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut rogue = Rogue::start(|_| Says::Hangs(String::new())).await;
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&["work"], 600))
        .await
        .is(201);
    let id = text(&submit(&project, "rogue.work", json!({})).await.is(202)["id"]);
    let call = rogue.called().await;
    project.client.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
    call.hung_up.await.unwrap();
}

#[tokio::test]
async fn an_address_is_looked_at_again_at_each_call() {
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let admin = parley.as_user("admin");
    let mut rogue = Rogue::start(|_| Says::Ends(lines("{\"result\":1}\n"))).await;
    let port = rogue.url.trim_end_matches('/').rsplit_once(':').unwrap().1.to_owned();
    let manifest = manifest(&["work"], 20);
    for (name, url) in [
        ("plain", rogue.url.clone()),
        ("address", format!("https://127.0.0.1:{port}/")),
        ("name", format!("https://localhost:{port}/")),
    ] {
        register(&admin, name, &url, &manifest).await.is(201);
    }
    let project = parley.as_user("ada").project().await;
    assert_eq!(run(&project, "plain.work", json!({})).await["result"], 1);
    rogue.called().await;
    parley.terminate().await;
    // What was fine yesterday is not today: no setting for development, and the name still leads inward.
    let parley = Parley::start_in(&parley.dir, &["--proc-http-bundles-ports", &port]).await;
    let project = crate::project::Project { client: parley.as_user("ada"), id: project.id };
    for bundle in ["plain", "address", "name"] {
        let job = run(&project, &format!("{bundle}.work"), json!({})).await;
        assert_eq!(
            (&job["error"]["code"], &job["attempt"]),
            (&json!("address_refused"), &json!(1)),
            "{job}"
        );
    }
    assert!(!rogue.is_called_within(Duration::from_millis(1)).await);
    let listed = project.client.get("/api/integrations/bundles").await.is(200);
    assert_eq!(
        column(&listed["bundles"], "name"),
        ["chat", "demo", "search", "address", "name", "plain"]
    );
}
