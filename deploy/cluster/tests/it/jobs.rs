//! Jobs in two processes that are killed, frozen past their lease and stopped at any moment: each ends once, and its owner's
//! log says so without a gap.

use std::process::Command;

use cluster::{Postgres, Service};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{support::PATIENCE, whole::Whole};

/// Jobs of each owner; `CHAOS_JOBS=2500` is the long form.
const JOBS: Option<&str> = option_env!("CHAOS_JOBS");
const OWNERS: [&str; 2] = ["ada", "grace"];

fn ask(postgres: &Postgres, sql: &str) -> String {
    let output = Command::new("psql").args([&postgres.url(), "-qAtc", sql]).output();
    let output = output.expect("psql is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn count(postgres: &Postgres, sql: &str) -> usize {
    ask(postgres, sql).parse().expect("a number")
}

const ENDED: &str = "SELECT COUNT(*) FROM entries WHERE topic = 'jobs' AND type IN ('job.succeeded', 'job.failed', 'job.cancelled')";
const RUNNING: &str = "SELECT COUNT(*) FROM jobs WHERE state = 'running'";
const INTERRUPTED: &str =
    "SELECT COUNT(*) FROM entries WHERE topic = 'jobs' AND type = 'job.interrupted'";

impl Whole {
    async fn project_of(&self, owner: &str) -> String {
        let url = format!("{}/api/chat/projects", self.cluster.base_url());
        let made = self.http.post(url).bearer_auth(format!("dev-{owner}"));
        let made = made.json(&json!({"name": "x"})).send().await.expect("an answer");
        let made: Value = made.json().await.expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Submits a job until it is taken; its key makes it the same one.
    async fn submit(&self, owner: &str, project: &str, number: usize) {
        let path = "/api/integrations/bundles/demo/operations/count";
        let body = json!({"project_id": project, "data": {"to": 20, "delay_ms": 20}});
        for turn in number.. {
            let url = format!("{}{path}", self.cluster.proc_url(turn % 2));
            let request = self.http.post(&url).bearer_auth(format!("dev-{owner}")).json(&body);
            let request = request.header("idempotency-key", format!("{number}"));
            match request.send().await.map(|answer| answer.status().as_u16()) {
                Ok(200 | 202) => return,
                // It is away, or going away.
                Ok(503) | Err(_) => tokio::task::yield_now().await,
                Ok(status) => panic!("{status}"),
            }
        }
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("jobs go on");
}

async fn fault(number: usize, proc: &Service, postgres: &Postgres, all: usize) {
    // Each of two workers a process has a job, or the last ones run.
    until(|| count(postgres, RUNNING) > 2 || count(postgres, ENDED) + 4 > all).await;
    let (interrupted, ended) = (count(postgres, INTERRUPTED), count(postgres, ENDED));
    // It has shown, or the others have done so much meanwhile that the lease is long over.
    let shown = || {
        let ended = count(postgres, ENDED) >= all.min(ended + 12);
        ended || count(postgres, INTERRUPTED) > interrupted
    };
    match number % 3 {
        0 => {
            proc.kill().await.expect("it does");
            until(shown).await;
            proc.start().await.expect("it does");
        }
        1 => {
            proc.freeze().expect("it does");
            until(shown).await;
            proc.thaw().expect("it does");
        }
        _ => {
            assert!(proc.stop().await.expect("it does").success());
            proc.start().await.expect("it does");
        }
    }
}

#[tokio::test]
async fn every_job_ends_once_whatever_becomes_of_its_workers() {
    let each: usize = JOBS.map_or(100, |jobs| jobs.parse().expect("a number"));
    let whole = Whole::start(|options| {
        options.ingress = 1;
        *options = options
            .clone()
            .set("PROC_WORKERS", "2")
            .set("PROC_LEASE", "1s")
            .set("PROC_QUEUE_LIMIT", "100000")
            .set("RATE_LIMIT_SUBMITS", "off");
    })
    .await;
    let (cluster, postgres) = (&whole.cluster, whole.cluster.postgres());
    let all = each * OWNERS.len();
    let submitting = OWNERS.map(|owner| {
        let whole = &whole;
        async move {
            let project = whole.project_of(owner).await;
            for number in 0..each {
                whole.submit(owner, &project, number).await;
            }
        }
    });
    let breaking = async {
        let mut faults = 0;
        while count(postgres, ENDED) < all {
            fault(faults, cluster.proc(faults % 2), postgres, all).await;
            faults += 1;
        }
        faults
    };
    let (_, faults) = tokio::join!(join_all(submitting), breaking);
    let interrupted = count(postgres, INTERRUPTED);
    eprintln!("{all} jobs, {faults} faults, {interrupted} interruptions");
    assert!(faults >= 3 && interrupted > 0);

    let ended = ask(postgres, "SELECT state, COUNT(*) FROM jobs GROUP BY state");
    assert_eq!(ended, format!("succeeded|{all}"));
    assert_eq!(count(postgres, ENDED), all, "each ends once in the log of all");
    assert_eq!(ask(postgres, "SELECT DISTINCT result FROM jobs"), "{\"counted\":20}");
    let holes = "SELECT COUNT(*) FROM topics t WHERE head <> (SELECT COUNT(*) FROM entries e WHERE e.topic = t.name)";
    assert_eq!(count(postgres, holes), 0, "a log has a hole");
    for owner in OWNERS {
        // Of each job, in the order of its owner's log: one end, and it is the last.
        let ends = format!(
            "SELECT COUNT(*) FROM (SELECT DISTINCT ON (data::json->'job'->>'id') type FROM entries \
             WHERE topic = 'user/{owner}' ORDER BY data::json->'job'->>'id', seq DESC) last WHERE type = 'job.succeeded'"
        );
        assert_eq!(count(postgres, &ends), each);
        let told = format!(
            "SELECT COUNT(*) FROM entries WHERE topic = 'user/{owner}' AND type = 'job.succeeded'"
        );
        assert_eq!(count(postgres, &told), each);
    }
    whole.cluster.stop().await.expect("every part ends well");
}
