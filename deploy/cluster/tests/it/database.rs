//! A database that does not answer: requests are refused in time, readiness tells, and all goes on when it is back.

use std::time::{Duration, Instant};

use cluster::{Link, Then, Trap};
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{support::read_until, whole::Whole};

/// How soon a request is answered.
const ANSWER: Duration = Duration::from_secs(8);
/// How soon readiness tells, and how soon everything goes on again.
const NOTICE: Duration = Duration::from_secs(10);
const COMMIT: &str = "SELECT 1; COMMIT";

async fn start() -> Whole {
    Whole::start(|options| {
        options.ingress = 2;
        options.proc = 1;
        options.database_links = true;
    })
    .await
}

fn link(whole: &Whole) -> &Link {
    whole.cluster.ingress(0).database_link().expect("it was asked for")
}

/// Sends a request and returns its status and body; it has to be answered in time.
async fn ask(whole: &Whole, method: Method, url: String, body: Option<Value>) -> (u16, Value) {
    let began = Instant::now();
    let mut request = whole.http.request(method, &url).bearer_auth("dev-ada");
    if let Some(body) = &body {
        request = request.json(body);
    }
    let answer: Response = request.send().await.expect("an answer");
    let took = began.elapsed();
    assert!(took < ANSWER, "{url} was answered after {took:?}");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

fn messages(project: &str) -> String {
    format!("/api/chat/projects/{project}/messages")
}

/// Returns how often a text is in the project.
async fn count(whole: &Whole, base: &str, project: &str, text: &str) -> usize {
    let (status, page) =
        ask(whole, Method::GET, format!("{base}{}", messages(project)), None).await;
    assert_eq!(status, 200, "{page}");
    page["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|message| message["text"] == text)
        .count()
}

async fn ready_is(whole: &Whole, base: &str, expected: u16) -> Duration {
    let began = Instant::now();
    loop {
        let (status, _) = ask(whole, Method::GET, format!("{base}/health/ready"), None).await;
        if status == expected {
            return began.elapsed();
        }
        assert!(began.elapsed() < NOTICE, "{base} is {status} and not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends until it is taken, which has to be soon.
async fn goes_on(whole: &Whole, base: &str, project: &str, body: &Value) {
    let began = Instant::now();
    let url = format!("{base}{}", messages(project));
    while !matches!(ask(whole, Method::POST, url.clone(), Some(body.clone())).await.0, 200 | 201) {
        assert!(began.elapsed() < NOTICE, "{base} does not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_frozen_database_is_told_of_in_time_and_all_goes_on_afterwards() {
    let whole = start().await;
    let (cluster, project) = (&whole.cluster, whole.project().await);
    let (first, second, proc) =
        (cluster.ingress_url(0), cluster.ingress_url(1), cluster.proc_url(0));
    let mut stream = whole.stream(&first, &project).await;
    let keyed = |number: usize| json!({"text": format!("text {number}"), "client_message_id": format!("key-{number}")});
    goes_on(&whole, &first, &project, &keyed(0)).await;

    cluster.postgres().freeze().expect("it runs");
    let asking = (1..=40).map(|number| {
        let (base, path) = if number % 2 == 0 {
            (&first, messages(&project))
        } else {
            (&second, messages(&project))
        };
        let jobs = format!("{proc}/api/integrations/jobs");
        let whole = &whole;
        async move {
            match number % 4 {
                0 | 1 => {
                    ask(whole, Method::POST, format!("{base}{path}"), Some(keyed(number))).await
                }
                2 => ask(whole, Method::GET, format!("{base}{path}"), None).await,
                _ => ask(whole, Method::GET, jobs, None).await,
            }
        }
    });
    let readiness = async {
        let ready = [&first, &second, &proc].map(|base| ready_is(&whole, base, 503));
        join_all(ready).await
    };
    let (answers, noticed) = tokio::join!(join_all(asking), readiness);
    eprintln!("not ready after {noticed:?}");
    for (status, body) in &answers {
        assert_eq!((*status, &body["error"]), (503, &json!("unavailable")), "{body}");
    }
    // Now that it is known, more requests do not wait behind each other.
    let began = Instant::now();
    let more = (0..200).map(|number| {
        ask(
            &whole,
            Method::POST,
            format!("{first}{}", messages(&project)),
            Some(keyed(100 + number)),
        )
    });
    for (status, body) in join_all(more).await {
        assert_eq!(status, 503, "{body}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "refused after {:?}", began.elapsed());

    cluster.postgres().thaw().expect("it runs");
    let back = [&first, &second, &proc].map(|base| ready_is(&whole, base, 200));
    eprintln!("ready again after {:?}", join_all(back).await);
    for number in 1..=40 {
        goes_on(&whole, [&first, &second][number % 2], &project, &keyed(number)).await;
    }
    goes_on(&whole, &second, &project, &json!({"text": "the last one"})).await;
    let said = read_until(&mut stream, "the last one").await;
    let (_, page) =
        ask(&whole, Method::GET, format!("{first}{}?limit=100", messages(&project)), None).await;
    let page = page["messages"].as_array().expect("a list");
    for number in 0..=40 {
        let text = format!("text {number}");
        let kept = page.iter().filter(|message| message["text"] == text).count();
        let delivered = said.matches(&format!("\"{text}\"")).count();
        assert_eq!((kept, delivered), (1, 1), "{text} is kept and delivered once");
    }
    whole.stop().await;
}

#[tokio::test]
async fn a_replica_that_does_not_reach_the_database_is_out_alone() {
    let whole = start().await;
    let (cluster, project) = (&whole.cluster, whole.project().await);
    let (cut_off, sound) = (cluster.ingress_url(0), cluster.ingress_url(1));
    link(&whole).stall();
    let url = format!("{cut_off}{}", messages(&project));
    let body = json!({"text": "kept", "client_message_id": "kept"});
    let (answer, _) = tokio::join!(
        ask(&whole, Method::POST, url, Some(body.clone())),
        ready_is(&whole, &cut_off, 503)
    );
    assert_eq!(answer.0, 503, "{}", answer.1);
    ready_is(&whole, &sound, 200).await;
    goes_on(&whole, &sound, &project, &json!({"text": "by the other"})).await;
    link(&whole).mend();
    ready_is(&whole, &cut_off, 200).await;
    goes_on(&whole, &cut_off, &project, &body).await;
    assert_eq!(count(&whole, &cut_off, &project, "kept").await, 1);
    whole.stop().await;
}

#[tokio::test]
async fn a_send_whose_commit_is_not_answered_is_there_once() {
    let whole = start().await;
    let project = whole.project().await;
    let base = whole.cluster.ingress_url(0);
    let mut stream = whole.stream(&whole.cluster.ingress_url(1), &project).await;
    for (text, then) in
        [("in the dark", Then::StallOne), ("cut short", Then::Cut), ("never there", Then::Lose)]
    {
        link(&whole).set(Trap { after: text, text: COMMIT, then });
        let url = format!("{base}{}", messages(&project));
        let (status, body) = ask(&whole, Method::POST, url, Some(json!({"text": text}))).await;
        assert_eq!(status, 201, "{text}: {body}");
        link(&whole).sprung().await;
        assert_eq!(count(&whole, &base, &project, text).await, 1, "{text}");
        let said = read_until(&mut stream, text).await;
        assert_eq!(said.matches("message.created").count(), 1, "{said}");
    }
    whole.stop().await;
}

/// Runs SQL on the server itself.
fn run_sql(whole: &Whole, sql: &str) -> String {
    let psql = whole.cluster.postgres().client("psql").expect("it is installed");
    let output = { psql }.args(["-qAtc", sql]).output().expect("it is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn a_read_only_database_is_told_of_in_time_and_reads_go_on() {
    let whole = start().await;
    let (ingress, proc) = (whole.cluster.ingress_url(0), whole.cluster.proc_url(0));
    let project = whole.project().await;
    goes_on(&whole, &ingress, &project, &json!({"text": "before"})).await;
    let url = format!("{ingress}{}", messages(&project));
    let jobs = format!("{proc}/api/integrations/bundles/demo/operations/count");

    run_sql(&whole, "ALTER SYSTEM SET default_transaction_read_only = on");
    run_sql(&whole, "SELECT pg_reload_conf()");
    join_all([&ingress, &proc].map(|base| ready_is(&whole, base, 503))).await;
    for _ in 0..3 {
        let text = json!({"text": "refused"});
        let job = json!({"project_id": project, "data": {"to": 1}});
        let (sent, submitted) = tokio::join!(
            ask(&whole, Method::POST, url.clone(), Some(text)),
            ask(&whole, Method::POST, jobs.clone(), Some(job)),
        );
        for (status, body) in [sent, submitted] {
            assert_eq!((status, &body["error"]), (503, &json!("unavailable")), "{body}");
        }
        assert_eq!(count(&whole, &ingress, &project, "before").await, 1, "reads go on");
    }

    run_sql(&whole, "ALTER SYSTEM RESET default_transaction_read_only");
    run_sql(&whole, "SELECT pg_reload_conf()");
    join_all([&ingress, &proc].map(|base| ready_is(&whole, base, 200))).await;
    goes_on(&whole, &ingress, &project, &json!({"text": "after"})).await;
    assert_eq!(count(&whole, &ingress, &project, "refused").await, 0);
    whole.stop().await;
}

/// A lock on the table of sessions that another program holds, as a migration or a dump does.
struct HeldLock(std::process::Child);

impl HeldLock {
    /// Has a lock taken and kept for some seconds.
    fn take(whole: &Whole, mode: &str, seconds: f32) -> Self {
        let psql = whole.cluster.postgres().client("psql").expect("it is installed");
        let sql = format!("LOCK TABLE sessions IN {mode} MODE; SELECT pg_sleep({seconds})");
        Self({ psql }.args(["-1qAtc", &sql]).spawn().expect("it is installed"))
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn lock_is(whole: &Whole, mode: &str, is_granted: bool) {
    let sql = format!(
        "SELECT COUNT(*) FROM pg_locks WHERE relation = 'sessions'::regclass AND mode = '{mode}' AND granted = {is_granted}"
    );
    let began = Instant::now();
    while run_sql(whole, &sql) == "0" {
        assert!(began.elapsed() < NOTICE, "{mode} is not granted={is_granted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_session_waits_once_for_a_database_that_is_late_twice() {
    let whole = start().await;
    let url = format!("{}/api/auth/me", whole.cluster.ingress_url(0));
    // The first lock holds up the read, and the second one, which is granted when the first ends, the write.
    let _first = HeldLock::take(&whole, "ACCESS EXCLUSIVE", 4.5);
    lock_is(&whole, "AccessExclusiveLock", true).await;
    let second = HeldLock::take(&whole, "SHARE", 60.0);
    lock_is(&whole, "ShareLock", false).await;
    let url_of = |session: &str| format!("{url}?session={session}");
    let (status, body) = ask(&whole, Method::GET, url_of("new-one"), None).await;
    assert_eq!((status, &body["error"]), (503, &json!("unavailable")), "{body}");
    lock_is(&whole, "ShareLock", true).await;
    drop(second);
    // The server notices that its client is gone only when the sleep ends.
    run_sql(
        &whole,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'sessions'::regclass AND mode = 'ShareLock'",
    );
    let (status, body) = ask(&whole, Method::GET, url_of("new-one"), None).await;
    assert_eq!(status, 200, "{body}");
    whole.stop().await;
}

#[tokio::test]
async fn a_project_whose_commit_is_cut_is_made_once() {
    let whole = start().await;
    let base = whole.cluster.ingress_url(0);
    let sql = |sql: &str| run_sql(&whole, sql);
    // Commits wait for a standby that does not exist.
    let wait_for = |standby: &str| {
        sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"));
        sql("SELECT pg_reload_conf()");
    };
    link(&whole).set(Trap { after: "the only one", text: COMMIT, then: Then::Cut });
    wait_for("nobody");
    let committing = async {
        link(&whole).sprung().await;
        let waiting =
            "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        let began = Instant::now();
        while sql(waiting) == "0" && began.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        wait_for("");
    };
    let projects = format!("{base}/api/chat/projects");
    let make = ask(&whole, Method::POST, projects.clone(), Some(json!({"name": "the only one"})));
    let ((status, body), ()) = tokio::join!(make, committing);
    assert_eq!(status, 201, "{body}");
    let (_, list) = ask(&whole, Method::GET, projects, None).await;
    let list = list["projects"].as_array().expect("a list");
    assert_eq!(
        list.iter().filter(|project| project["name"] == "the only one").count(),
        1,
        "{list:?}"
    );
    whole.stop().await;
}
