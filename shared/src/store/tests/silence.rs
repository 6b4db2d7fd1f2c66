//! A server that sends nothing: every call is answered in time, and nothing is done twice.

use std::{net::SocketAddr, process::Command};

use cluster::{Link, Then, Trap, scratch};

use super::*;

/// How soon a call is answered, whatever the database does.
const ANSWER: Duration = Duration::from_secs(8);
/// How soon it is known that the database does not answer, and that it does again.
const NOTICE: Duration = Duration::from_secs(10);
const COMMIT: &str = "SELECT 1; COMMIT";

/// A store that reaches its database by a link.
struct Linked {
    store: Store,
    bus: Bus,
    link: Link,
    url: String,
    _folder: tempfile::TempDir,
}

impl Linked {
    async fn open(sabotage: Option<Sabotage>) -> Self {
        let url = scratch::database().unwrap();
        let (before, server) = url.split_once('@').unwrap();
        let (addr, name) = server.split_once('/').unwrap();
        let link = Link::open(addr.parse::<SocketAddr>().unwrap()).unwrap();
        let linked = format!("{before}@{}/{name}", link.addr());
        let (folder, bus) = (tempfile::tempdir().unwrap(), Bus::default());
        let store = Store::connect(&linked, &bus, sabotage).unwrap();
        let table = "CREATE TABLE things (id UUID PRIMARY KEY, count BIGINT, name TEXT)";
        store.write(move |tx| tx.execute(table, &[])).await.unwrap();
        Self { store, bus, link, url, _folder: folder }
    }

    /// Runs SQL without the link.
    fn sql(&self, sql: &str) -> String {
        let output = Command::new("psql").args([&self.url, "-qAtc", sql]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn until_answering(&self, expected: bool) -> Duration {
        let (health, began) = (self.store.health(), Instant::now());
        while health.is_answering() != expected {
            assert!(began.elapsed() < NOTICE, "answering is not {expected} in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }

    /// Writes a thing that has a name, in a topic that this makes.
    async fn write_named(&self, topic: Topic, name: &'static str) -> Result<usize, Error> {
        let write = self.store.write(move |tx| {
            let sql = "INSERT INTO things (id, name) VALUES ($1, $2)";
            tx.append(&topic, "test", "{}")?;
            tx.execute(sql, &[Value::Uuid(Uuid::now_v7()), name.into()])
        });
        let began = Instant::now();
        let outcome = write.await;
        assert!(began.elapsed() < ANSWER, "answered after {:?}", began.elapsed());
        outcome
    }
}

#[tokio::test]
async fn a_silent_server_is_answered_for_in_time_and_found_again() {
    let linked = Linked::open(None).await;
    let store = &linked.store;
    linked.until_answering(true).await;
    linked.link.stall();
    let began = Instant::now();
    let calls = (0..40).map(|n| async move {
        match n % 3 {
            0 => store.write(move |tx| insert(tx, Uuid::now_v7(), n)).await.unwrap_err(),
            1 => store.write_lease(move |tx| insert(tx, Uuid::now_v7(), n)).await.unwrap_err(),
            _ => store.read(|reader| reader.find("SELECT 1", &[], |_| Ok(()))).await.unwrap_err(),
        }
    });
    let (errors, noticed) =
        tokio::join!(futures_util::future::join_all(calls), linked.until_answering(false));
    assert!(began.elapsed() < ANSWER, "answered after {:?}", began.elapsed());
    for error in errors {
        assert!(error.is_temporary(), "{error}");
    }
    println!("noticed after {noticed:?}, answered after {:?}", began.elapsed());

    // Now that it is known, nobody waits for nothing.
    let began = Instant::now();
    store.write(|tx| insert(tx, Uuid::nil(), 0)).await.unwrap_err();
    store.read(|reader| reader.find("SELECT 1", &[], |_| Ok(()))).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1), "refused after {:?}", began.elapsed());

    linked.link.mend();
    let found = linked.until_answering(true).await;
    println!("found again after {found:?}");
    // Nothing that was answered so had got as far as its commit.
    assert_eq!(counts(store).await, [0; 0]);
    store.write(|tx| insert(tx, Uuid::nil(), 7)).await.unwrap();
    assert_eq!(counts(store).await, [7]);
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_is_given_up() {
    let linked = Linked::open(None).await;
    linked.link.cut();
    // The server accepts connections and sends nothing.
    linked.link.stall();
    let began = Instant::now();
    let error = linked.store.write(|tx| insert(tx, Uuid::nil(), 0)).await.unwrap_err();
    assert!(error.is_temporary() && began.elapsed() < ANSWER, "{error}, {:?}", began.elapsed());
    linked.until_answering(false).await;
    linked.link.mend();
    linked.until_answering(true).await;
    linked.store.write(|tx| insert(tx, Uuid::nil(), 7)).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_is_not_answered_is_found_out_and_done_once() {
    let linked = Linked::open(None).await;
    let mut heard = linked.bus.subscribe(&Topic::jobs());
    for (round, then) in (1..).zip([Then::StallOne, Then::Cut]) {
        linked.link.set(Trap { after: "marked", text: COMMIT, then });
        linked.write_named(Topic::jobs(), "marked").await.expect("the server has committed");
        linked.link.sprung().await;
        assert_eq!(linked.sql("SELECT COUNT(*) FROM things"), round.to_string(), "{then:?}");
        let Notice::Entry(entry) = heard.next().await.unwrap() else { panic!("one entry") };
        assert_eq!(entry.position.seq, round, "{then:?}");
    }
}

/// Cuts the connection while the server is in the middle of a commit that makes a topic, and lets the server go on a little
/// later. Returns the answer.
async fn cut_while_committing(linked: &Linked) -> Result<usize, Error> {
    let set = |standby: &str| {
        linked.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"));
        linked.sql("SELECT pg_reload_conf()");
    };
    linked.link.set(Trap { after: "marked", text: COMMIT, then: Then::Cut });
    // Commits wait for a standby that does not exist.
    set("nobody");
    let committing = async {
        linked.link.sprung().await;
        let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let blocked =
            "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        while linked.sql(waiting) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let began = Instant::now();
        // The resolver of the lost commit waits by now, or never will.
        while linked.sql(blocked) == "0" && began.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        set("");
    };
    let (outcome, ()) = tokio::join!(linked.write_named(Topic::search(), "marked"), committing);
    outcome
}

/// Tests that change settings of the one server of all tests.
static SETTINGS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_commit_that_made_its_topic_is_waited_for() {
    let _one = SETTINGS.lock().await;
    let linked = Linked::open(None).await;
    let outcome = cut_while_committing(&linked).await;
    assert_eq!(outcome.expect("the server has committed"), 1);
    assert_eq!(linked.sql("SELECT COUNT(*) FROM things"), "1");
    assert_eq!(linked.sql("SELECT head FROM topics WHERE name = 'search'"), "1");
}

#[tokio::test]
async fn a_commit_that_is_not_waited_for_is_noticed() {
    let _one = SETTINGS.lock().await;
    let linked = Linked::open(Some(Sabotage::NoCommitWait)).await;
    let outcome = cut_while_committing(&linked).await;
    let count = linked.sql("SELECT COUNT(*) FROM things");
    assert!(outcome.is_err() || count != "1", "{outcome:?}, {count} things");
}
