//! Schedules, with more than one replica of proc to fire them.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{support::PATIENCE, whole::Whole};

const SCHEDULES: &str = "/api/integrations/schedules";

#[tokio::test]
async fn every_time_is_one_job_although_a_replica_is_lost_meanwhile() {
    let whole = Whole::start(|_| {}).await;
    let procs = [whole.cluster.proc_url(0), whole.cluster.proc_url(1)];
    let project = whole.project().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let mut made = BTreeSet::new();
    for number in 0..20 {
        let at = (now + Duration::from_secs(4 + number / 5)).as_secs();
        let cron = format!("{} {} {} * * *", at % 60, at / 60 % 60, at / 3600 % 24);
        let body = json!({"project_id": project, "bundle": "demo", "operation": "count", "data": {"to": 1}, "cron": cron});
        let base = &procs[usize::from(number % 2 == 0)];
        let schedule: Value = whole.post(base, SCHEDULES, body).await.json().await.expect("JSON");
        made.insert(schedule["id"].as_str().expect("an id").to_owned());
    }
    let get = async |path: String| -> Value {
        let url = format!("{}{path}", procs[1]);
        let answer = whole.http.get(url).bearer_auth("dev-ada").send().await.expect("an answer");
        answer.json().await.expect("JSON")
    };
    let fired = async || {
        let list = get(format!("{SCHEDULES}?project_id={project}")).await;
        let list = list["schedules"].as_array().expect("a list").clone();
        let fired = list.into_iter().filter(|schedule| schedule["last_job_id"].is_string());
        fired.map(|schedule| schedule["last_job_id"].to_string()).collect::<BTreeSet<_>>()
    };
    let first = async { while fired().await.is_empty() {} };
    timeout(PATIENCE, first).await.expect("the first ones fire");
    whole.cluster.proc(0).kill().await.expect("it runs");
    let rest = async { while fired().await.len() < made.len() {} };
    timeout(PATIENCE, rest).await.expect("all of them fire");
    let jobs = get(format!("/api/integrations/jobs?project_id={project}&limit=200")).await;
    let jobs = jobs["jobs"].as_array().expect("a list").iter().map(|job| job["id"].to_string());
    let jobs: Vec<String> = jobs.collect();
    assert_eq!(jobs.len(), made.len(), "one for each");
    assert_eq!(jobs.into_iter().collect::<BTreeSet<_>>(), fired().await);
    whole.cluster.proc(0).start().await.expect("it does");
    whole.stop().await;
}
