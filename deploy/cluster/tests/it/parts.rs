//! PostgreSQL and NATS as processes: they start, stop, are killed, and come back where they were with what they had.

use std::process::Command;

use cluster::{Nats, Options, Ports, Postgres};
use tokio::net::TcpStream;

use crate::support::folder;

/// Runs SQL and returns what it gives.
fn query(postgres: &Postgres, sql: &str) -> String {
    let output = Command::new("psql").args([&postgres.url(), "-qAtc", sql]).output();
    let output = output.expect("psql is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn postgres_keeps_what_was_committed() {
    let (_dir, folder) = folder();
    let postgres = Postgres::plan(&folder, &mut Ports::default()).unwrap();
    postgres.start().await.unwrap();
    query(&postgres, "create table kept (n int); insert into kept values (1)");
    assert_eq!(query(&postgres, "show fsync"), "on");
    assert_eq!(query(&postgres, "select 'b' < 'A'"), "f", "texts are in the order of their bytes");

    assert!(postgres.stop().await.unwrap().success());
    assert!(postgres.pid().is_none());
    postgres.start().await.unwrap();
    assert_eq!(query(&postgres, "select count(*) from kept"), "1");
    let wrong = postgres.url().replacen(':', ":x", 2);
    let refused = Command::new("psql").args([wrong.as_str(), "-c", "select 1"]).output().unwrap();
    assert!(!refused.status.success(), "it wants the password");
}

#[tokio::test]
async fn a_database_that_may_lose_what_it_confirmed_is_refused() {
    cluster::build_programs();
    let (_dir, folder) = folder();
    let postgres = Postgres::plan(&folder, &mut Ports::default()).unwrap();
    postgres.start().await.unwrap();
    let start = || {
        let programs = Options::new("").programs;
        let mut ingress = Command::new(programs.join("ingress"));
        let ports = ["--ingress-listen", "127.0.0.1:0", "--ingress-internal-listen", "127.0.0.1:0"];
        ingress.args(ports).env("DATABASE_URL", postgres.url());
        // Nobody answers there, which it would wait for.
        ingress.envs([("NATS_URL", "nats://127.0.0.1:1"), ("SERVICE_TOKEN", &"k".repeat(32))]);
        let output = ingress.output().expect("it was built");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for setting in ["fsync", "full_page_writes"] {
        for value in ["off", "on"] {
            query(&postgres, &format!("alter system set {setting} = {value}"));
            query(&postgres, "select pg_reload_conf()");
            // The server reads its settings a moment later.
            let is_so = || query(&postgres, &format!("show {setting}")) == value;
            assert!((0..1_000).any(|_| is_so()), "{setting} is not {value}");
            if value == "off" {
                let said = start();
                assert!(said.contains(&format!("set {setting}=on in postgresql.conf")), "{said}");
            }
        }
    }
}

#[tokio::test]
async fn nats_comes_back_where_it_was() {
    let (_dir, folder) = folder();
    let nats = Nats::plan(&folder, &mut Ports::default(), None).unwrap();
    nats.start().await.unwrap();
    assert!(nats.start().await.is_err(), "it runs");
    nats.kill().await.unwrap();
    assert!(TcpStream::connect(nats.addr()).await.is_err());
    nats.start().await.unwrap();
    assert!(nats.stop().await.unwrap().success());
    nats.start().await.unwrap();
    drop(nats);
}

#[tokio::test]
async fn a_part_that_does_not_start_says_why() {
    let (_dir, folder) = folder();
    let nats = Nats::plan(&folder, &mut Ports::default(), None).unwrap();
    std::fs::write(folder.path().join("nats.conf"), "not: { a").unwrap();
    let error = format!("{:#}", nats.start().await.unwrap_err());
    assert!(error.contains("nats did not start") && error.contains("Parse error"), "{error}");
    assert!(nats.pid().is_none());
}
