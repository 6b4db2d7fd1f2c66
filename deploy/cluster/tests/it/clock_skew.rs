//! Replicas whose clocks are 30 s apart: every second ingress and proc is ahead, and no client notices.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    support::{PATIENCE, read_until},
    whole::Whole,
};

const SKEW: Duration = Duration::from_secs(30);
/// Shorter than the skew, so that a proc that went by its own clock would take the jobs of the other one.
const LEASE: Duration = Duration::from_secs(5);
/// Longest time that a busy machine takes for what is to happen at once; shorter than the skew.
const LATE: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(50);
const SCHEDULES: &str = "/api/integrations/schedules";
const COUNT: &str = "/api/integrations/bundles/demo/operations/count";

/// Starts two ingress and two proc, of which the second ones are ahead.
async fn start(flags: &[&str]) -> Whole {
    let whole = Whole::start(|options| {
        (options.ingress, options.proc) = (2, 2);
        options.clock_skew = Some(SKEW);
        options.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        options.settings.push(("PROC_LEASE".into(), format!("{}s", LEASE.as_secs())));
        options.settings.push(("PROC_WORKERS".into(), "2".into()));
        options.settings.push(("PRESENCE_GRACE".into(), "100ms".into()));
    })
    .await;
    let cluster = &whole.cluster;
    for [right, ahead] in [
        [cluster.ingress_url(0), cluster.ingress_url(1)],
        [cluster.proc_url(0), cluster.proc_url(1)],
    ] {
        let apart = clock(&whole, &ahead).await - clock(&whole, &right).await;
        assert!((apart - 30).abs() < 10, "the clocks are {apart} s apart");
    }
    whole
}

/// Returns the time in seconds that a process has by its own clock, which it dates its answers with.
async fn clock(whole: &Whole, base: &str) -> i64 {
    let answer = whole.http.get(format!("{base}/health/live")).send().await.expect("an answer");
    let date = answer.headers()["date"].to_str().expect("text");
    let format = "%a, %d %b %Y %H:%M:%S GMT";
    let date = DateTime::strptime(format, date).expect("a date");
    TimeZone::UTC.to_timestamp(date).expect("a date").as_second()
}

/// Returns this machine's time, which is the database's too.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

/// Asserts that a time in an answer is between `since` and now.
fn assert_recent(time: &Value, since: Duration) {
    let text = time.as_str().expect("a time");
    let time: Timestamp = text.parse().expect("a time");
    let time = Duration::try_from(time.as_duration()).expect("it is after 1970");
    // Times have milliseconds.
    let (since, now) =
        (since.saturating_sub(Duration::from_secs(1)), now() + Duration::from_secs(1));
    assert!((since..=now).contains(&time), "{text} is {time:?}, not within {since:?} and {now:?}");
}

async fn get(whole: &Whole, user: &str, url: String) -> Value {
    let answer = whole.http.get(url).bearer_auth(format!("dev-{user}")).send().await;
    answer.expect("an answer").json().await.expect("JSON")
}

/// Opens a stream at an ingress with a ticket of the other one.
async fn stream(whole: &Whole, user: &str, at: usize, project: &str) -> Response {
    let url = format!("{}/sse/ticket", whole.cluster.ingress_url(1 - at));
    let issued = whole.http.post(url).bearer_auth(format!("dev-{user}"));
    let issued = issued.json(&json!({"project_id": project})).send().await.expect("an answer");
    let issued: Value = issued.json().await.expect("JSON");
    let ticket = issued["ticket"].as_str().expect("a ticket");
    let base = whole.cluster.ingress_url(at);
    let url = format!("{base}/sse/stream?project_id={project}&ticket={ticket}");
    let mut stream = whole.http.get(url).send().await.expect("an answer");
    assert_eq!(stream.status(), 200, "a ticket of the other ingress, at {at}");
    read_until(&mut stream, "\"hello\"").await;
    stream
}

/// Returns the application events in what a stream has said.
fn events(said: &str, kind: &str) -> Vec<Value> {
    let data = said.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events.filter(|event| event["type"] == kind).collect()
}

#[tokio::test]
async fn ingress_with_clocks_apart_agree_on_tickets_order_and_presence() {
    let began = now();
    let whole = start(&[]).await;
    let (project, urls) = (whole.project().await, [0, 1].map(|n| whole.cluster.ingress_url(n)));
    let member = format!("{}/api/chat/projects/{project}/members/grace", urls[1]);
    let add = whole.http.request(Method::PUT, member).bearer_auth("dev-ada");
    let added = add.json(&json!({"role": "member"})).send().await.expect("an answer");
    assert_eq!(added.status(), 200);
    let mut right = stream(&whole, "ada", 0, &project).await;
    let mut ahead = stream(&whole, "ada", 1, &project).await;

    for number in 0..20 {
        whole.send(&urls[number % 2], &project, &format!("text {number}.")).await;
    }
    let mut told = Vec::new();
    for stream in [&mut right, &mut ahead] {
        let said = read_until(stream, "text 19.").await;
        let events = events(&said, "message.created");
        for event in &events {
            assert_recent(&event["at"], began);
        }
        told.push(events.into_iter().map(|event| event["message"].clone()).collect::<Vec<_>>());
    }
    let times: Vec<&str> = told[0].iter().filter_map(|sent| sent["created_at"].as_str()).collect();
    assert_eq!(times.len(), 20);
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    for sent in &told[0] {
        assert_recent(&sent["created_at"], began);
    }
    for url in &urls {
        let page = get(&whole, "ada", format!("{url}/api/chat/projects/{project}/messages")).await;
        let ids = |list: &[Value]| list.iter().map(|sent| sent["id"].clone()).collect::<Vec<_>>();
        let mut history = page["messages"].as_array().expect("a list").clone();
        history.reverse();
        assert_eq!(ids(&history), ids(&told[0]), "history is in the order of the log");
        assert_eq!(ids(&told[1]), ids(&told[0]), "both streams have one order");
    }

    // Each leaves the ingress that is ahead. Ada has a stream at the other one and stays; Grace, who leaves later, goes.
    drop(ahead);
    let graces = stream(&whole, "grace", 1, &project).await;
    drop(graces);
    let said = read_until(&mut right, "\"offline\"").await;
    let offline = events(&said, "user.presence");
    let offline: Vec<_> =
        offline.iter().filter(|event| event["presence"]["state"] == "offline").collect();
    assert_eq!(offline.len(), 1, "{offline:?}");
    assert_eq!(offline[0]["presence"]["user"], "grace", "{offline:?}");
    for url in &urls {
        let present =
            get(&whole, "ada", format!("{url}/api/chat/projects/{project}/presence")).await;
        let present = present["presence"].as_array().expect("a list").clone();
        assert_eq!(present.len(), 1, "{present:?}");
        assert_recent(&present[0]["since"], began);
    }
    whole.stop().await;
}

/// Runs jobs longer than a lease on both procs. Returns how many of them changed hands.
async fn stolen(whole: &Whole, project: &str) -> usize {
    const JOBS: usize = 4;
    let body = json!({"project_id": project, "data": {"to": 80, "delay_ms": 100}});
    for number in 0..JOBS {
        let made = whole.post(&whole.cluster.proc_url(number % 2), COUNT, body.clone()).await;
        assert_eq!(made.status(), 202, "{}", made.text().await.unwrap_or_default());
    }
    let until = async |condition: &str| {
        let sql = format!("SELECT ({condition})::INT FROM jobs");
        let reached = async {
            while whole.query(&sql) == 0 {
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{condition} takes too long"));
    };
    until("count(DISTINCT worker) = 2").await;
    // A claim and an end make two.
    until("max(fence) > 2 OR bool_and(state = 'succeeded')").await;
    whole.query("SELECT count(*) FROM jobs WHERE fence > 2")
}

#[tokio::test]
async fn procs_with_clocks_apart_keep_their_jobs_and_fire_schedules_in_time() {
    let whole = start(&[]).await;
    let project = whole.project().await;
    let procs = [0, 1].map(|number| whole.cluster.proc_url(number));
    // Beyond what either clock takes for now.
    let at = (now() + Duration::from_secs(6)).as_secs();
    let cron = format!("{} {} {} * * *", at % 60, at / 60 % 60, at / 3600 % 24);
    let body = json!({"project_id": project, "bundle": "demo", "operation": "count", "data": {"to": 1}, "cron": cron});
    assert_eq!(whole.post(&procs[1], SCHEDULES, body).await.status(), 201);
    let fired = async {
        loop {
            let list =
                get(&whole, "ada", format!("{}{SCHEDULES}?project_id={project}", procs[0])).await;
            let fired = list["schedules"][0]["last_fire_at"].clone();
            if fired.is_string() {
                return fired;
            }
            sleep(POLL).await;
        }
    };
    let fired = timeout(PATIENCE, fired).await.expect("it fires");
    let (at, now) = (Duration::from_secs(at), now());
    assert!(at <= now, "it fired {:?} early", at.saturating_sub(now));
    assert!(now < at + LATE, "it fired {:?} late", now.saturating_sub(at));
    assert_recent(&fired, at);
    assert_eq!(stolen(&whole, &project).await, 0, "a live worker lost a job");
    // Each asks ingress who the caller is, and is asked for the caller's jobs.
    for ingress in 0..2 {
        let url = format!("{}/api/jobs/stream", whole.cluster.ingress_url(ingress));
        let mut stream =
            whole.http.get(url).bearer_auth("dev-ada").send().await.expect("an answer");
        read_until(&mut stream, "job.snapshot").await;
    }
    whole.stop().await;
}

#[tokio::test]
async fn procs_that_go_by_clocks_of_their_own_are_noticed() {
    let whole = start(&["--sabotage", "wall-clock"]).await;
    let project = whole.project().await;
    assert!(stolen(&whole, &project).await > 0, "no job changed hands");
}
