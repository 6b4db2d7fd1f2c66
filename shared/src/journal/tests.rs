//! The journal over real databases.

use std::time::Duration;

use cluster::{on_both_stores, scratch::Home};

use super::*;
use crate::{
    bus::{Bus, Notice},
    store::Store,
};

on_both_stores!(
    a_rollback_gives_its_number_back,
    concurrent_appends_are_dense_and_published,
    a_panicking_write_leaves_nothing_and_the_writer_goes_on,
    every_kind_of_unusable_cursor_resets_to_the_head,
    retention_keeps_the_newest_and_expires_the_rest,
    retention_leaves_answers_whole,
    what_is_appended_together_is_read_like_anything_else,
    tags_are_random_and_the_head_has_the_last_one,
    cursors_from_before_stored_tags_stay_valid,
    a_row_can_be_rewritten_and_keeps_its_tags,
    retention_reads_the_topics_that_are_due_and_no_other,
    retention_finds_a_topic_again_when_it_is_over_a_limit_again,
    retention_of_many_entries_takes_bounded_transactions,
    a_follower_goes_on_only_where_its_last_entry_still_is,
    an_entry_names_the_tag_of_the_one_before,
    texts_from_before_the_index_are_redacted_in_packs_too,
    an_edit_redacts_the_version_before_by_one_row,
);

fn open(home: Home, folder: &std::path::Path, bus: &Bus) -> Store {
    match home.url() {
        None => Store::open(folder, bus).unwrap(),
        Some(url) => Store::connect(&url, bus, None).unwrap(),
    }
}

struct Fixture {
    store: Store,
    topic: Topic,
    _folder: tempfile::TempDir,
}

fn fixture(home: Home) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, folder.path(), &Bus::default());
    Fixture { store, topic: Topic::project(ProjectId::mint()), _folder: folder }
}

impl Fixture {
    async fn append(&self, data: &'static str) -> Arc<Entry> {
        let topic = self.topic.clone();
        self.store.write(move |tx| tx.append(&topic, "test", data)).await.unwrap()
    }

    async fn start(&self, cursor: &str) -> Start {
        let (topic, cursor) = (self.topic.clone(), cursor.to_owned());
        self.store.read(move |reader| reader.start(&topic, Some(&cursor))).await.unwrap().unwrap()
    }

    fn cursor(&self, entry: &Entry) -> String {
        Cursor::at(&self.topic, entry.position).to_string()
    }
}

async fn a_rollback_gives_its_number_back(home: Home) {
    let fixture = fixture(home);
    assert_eq!(fixture.append("1").await.position.seq, 1);
    let topic = fixture.topic.clone();
    let failed: Result<(), Error> = fixture
        .store
        .write(move |tx| {
            tx.append(&topic, "test", "never")?;
            Err(Error::Gone)
        })
        .await;
    assert!(failed.is_err());
    assert_eq!(fixture.append("2").await.position.seq, 2);
}

async fn concurrent_appends_are_dense_and_published(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let store = open(home, folder.path(), &bus);
    let topic = Topic::jobs();
    let mut heard = bus.subscribe(&topic);
    let writes =
        (0..200).map(|_| {
            let (store, topic) = (store.clone(), topic.clone());
            async move {
                store.write(move |tx| tx.append(&topic, "test", "x")).await.unwrap().position.seq
            }
        });
    let mut answered = futures_util::future::join_all(writes).await;
    answered.sort_unstable();
    assert_eq!(answered, (1..=200).collect::<Vec<_>>());
    let mut told = Vec::new();
    for _ in 1..=200 {
        let Notice::Entry(entry) = heard.next().await.unwrap() else { panic!() };
        told.push(entry.position.seq);
    }
    if home == Home::Postgres {
        // Its writers overtake each other after their commits.
        told.sort_unstable();
    }
    assert_eq!(told, answered);
}

async fn a_panicking_write_leaves_nothing_and_the_writer_goes_on(home: Home) {
    let fixture = fixture(home);
    let topic = fixture.topic.clone();
    let lost: Result<(), Error> = fixture
        .store
        .write(move |tx| {
            tx.append(&topic, "test", "never")?;
            panic!("deliberate")
        })
        .await;
    assert!(matches!(lost, Err(Error::Gone)));
    assert_eq!(fixture.append("1").await.position.seq, 1);
}

async fn every_kind_of_unusable_cursor_resets_to_the_head(home: Home) {
    let fixture = fixture(home);
    let first = fixture.append("1").await;
    let last = fixture.append("2").await;
    let good = fixture.start(&fixture.cursor(&first)).await;
    assert_eq!(good, Start { position: first.position, reset: None });

    let changed = |change: fn(&mut Position)| {
        let mut position = first.position;
        change(&mut position);
        Cursor::at(&fixture.topic, position).to_string()
    };
    let foreign = Cursor::at(&Topic::jobs(), first.position).to_string();
    for (cursor, reason) in [
        ("junk".to_owned(), ResetReason::Malformed),
        ("v1.".repeat(60), ResetReason::Malformed),
        (foreign, ResetReason::UnknownEpoch),
        (changed(|p| p.epoch += 1), ResetReason::UnknownEpoch),
        (changed(|p| p.tag ^= 1), ResetReason::UnknownEpoch),
        (changed(|p| p.seq = 99), ResetReason::Ahead),
    ] {
        let start = fixture.start(&cursor).await;
        assert_eq!(start, Start { position: last.position, reset: Some(reason) }, "{cursor}");
    }
}

async fn retention_keeps_the_newest_and_expires_the_rest(home: Home) {
    let fixture = fixture(home);
    let mut entries = Vec::new();
    for _ in 0..10 {
        entries.push(fixture.append("x").await);
    }
    let by_count =
        RetentionConfig { journal_max_age: Duration::from_hours(1), journal_max_entries: 4 };
    let deleted = trim(&fixture.store, &by_count, Timestamp::now()).await.unwrap();
    assert_eq!(deleted.rows, 6);
    assert_eq!(fixture.start(&fixture.cursor(&entries[5])).await.reset, Some(ResetReason::Expired));
    assert_eq!(fixture.start(&fixture.cursor(&entries[6])).await.reset, None);

    let later = Timestamp::now().after(Duration::from_hours(2));
    trim(&fixture.store, &by_count, later).await.unwrap();
    assert_eq!(fixture.start(&fixture.cursor(&entries[8])).await.reset, Some(ResetReason::Expired));
    assert_eq!(fixture.start(&fixture.cursor(&entries[9])).await.reset, None);
    assert_eq!(fixture.append("y").await.position.seq, 11);
}

async fn retention_leaves_answers_whole(home: Home) {
    let fixture = Fixture { topic: Topic::answer(crate::ids::AnswerId::mint()), ..fixture(home) };
    let first = fixture.append("1").await;
    for _ in 0..9 {
        fixture.append("x").await;
    }
    let config =
        RetentionConfig { journal_max_age: Duration::from_hours(1), journal_max_entries: 4 };
    let later = Timestamp::now().after(Duration::from_hours(2));
    for _ in 0..2 {
        assert_eq!(trim(&fixture.store, &config, later).await.unwrap().rows, 0);
        assert_eq!(fixture.start(&fixture.cursor(&first)).await.reset, None);
        fixture.append("y").await;
    }
    let due = trim(&fixture.store, &config, later).await.unwrap();
    let again = trim(&fixture.store, &config, later).await.unwrap();
    assert_eq!((due.topics, again.topics), (1, 0), "a topic without anything to trim stays due");
}

async fn what_is_appended_together_is_read_like_anything_else(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let fixture = Fixture {
        store: open(home, folder.path(), &bus),
        topic: Topic::project(ProjectId::mint()),
        _folder: folder,
    };
    let mut heard = bus.subscribe(&fixture.topic);
    fixture.append("0").await;
    // More than are told of, and more than a row holds.
    let topic = fixture.topic.clone();
    let together = fixture.store.write(move |tx| {
        let data: Vec<String> = (1..=600).map(|number| number.to_string()).collect();
        tx.append_all(&topic, &data.iter().map(|data| ("test", data.as_str())).collect::<Vec<_>>())
    });
    together.await.unwrap();
    fixture.append("601").await;
    for (number, data) in [(1, "0"), (602, "601")] {
        let Notice::Entry(entry) = heard.next().await.unwrap() else { panic!() };
        assert_eq!((entry.position.seq, &*entry.data), (number, data));
        if number == 1 {
            heard.next().await.unwrap_err();
        }
    }
    let page = async |after, limit| {
        let topic = fixture.topic.clone();
        fixture.store.read(move |reader| reader.entries(&topic, after, limit)).await.unwrap()
    };
    let mut all: Vec<Arc<Entry>> = Vec::new();
    loop {
        let page = page(all.len().try_into().unwrap(), 70).await;
        if page.is_empty() {
            break;
        }
        assert!(page.len() == 70 || all.len() + page.len() == 602, "{}", page.len());
        all.extend(page);
    }
    for (number, entry) in all.iter().enumerate() {
        assert_eq!((&*entry.data, &*entry.kind), (number.to_string().as_str(), "test"));
        assert_eq!(entry.position.seq, i64::try_from(number).unwrap() + 1);
    }
    for entry in [&all[300], &all[601]] {
        let start = fixture.start(&fixture.cursor(entry)).await;
        assert_eq!(start, Start { position: entry.position, reset: None });
        let entry = entry.clone();
        let has = fixture.store.read(move |reader| {
            let mut other = Entry::clone(&entry);
            other.position.tag ^= 1;
            Ok::<_, Error>((reader.has(&entry)?, reader.has(&other)?))
        });
        assert_eq!(has.await.unwrap(), (true, false));
    }
    // What is kept of those that came together goes with the last of their row.
    let most =
        RetentionConfig { journal_max_age: Duration::from_hours(1), journal_max_entries: 300 };
    trim(&fixture.store, &most, Timestamp::now()).await.unwrap();
    assert_eq!(fixture.start(&fixture.cursor(&all[0])).await.reset, Some(ResetReason::Expired));
    assert_eq!(fixture.start(&fixture.cursor(&all[303])).await.reset, None);
    let left = page(0, 1_000).await;
    assert!((300..602).contains(&left.len()), "{}", left.len());
    let positions = |all: &[Arc<Entry>]| all.iter().map(|entry| entry.position).collect::<Vec<_>>();
    assert_eq!(positions(&left), positions(&all[602 - left.len()..]));
}

async fn tags_are_random_and_the_head_has_the_last_one(home: Home) {
    let fixture = fixture(home);
    let mut tags = std::collections::HashSet::new();
    for number in 0..4 {
        tags.insert(fixture.append("the same").await.position.tag);
        let topic = fixture.topic.clone();
        let together =
            fixture.store.write(move |tx| tx.append_all(&topic, &[("test", "the same"); 3]));
        together.await.unwrap();
        let topic = fixture.topic.clone();
        let read = fixture.store.read(move |reader| {
            let entries = reader.entries(&topic, number * 4, 10)?;
            let heads = reader.heads(std::slice::from_ref(&topic))?;
            Ok::<_, Error>((entries, reader.head(&topic)?, heads[&topic]))
        });
        let (entries, head, same_head) = read.await.unwrap();
        let last = entries.last().expect("four entries").position;
        assert_eq!((head, same_head), (Some(last), last), "the topic knows the tag of its head");
        tags.extend(entries.iter().map(|entry| entry.position.tag));
    }
    assert_eq!(tags.len(), 16, "each entry has a tag of its own: {tags:?}");
}

async fn cursors_from_before_stored_tags_stay_valid(home: Home) {
    let fixture = fixture(home);
    fixture.append("one").await;
    let topic = fixture.topic.clone();
    let together = [("test", "two"), ("test", "three"), ("test", "four")];
    fixture.store.write(move |tx| tx.append_all(&topic, &together)).await.unwrap();
    // As the step before left it.
    let topic = fixture.topic.clone();
    let forget = fixture.store.write(move |tx| {
        tx.execute("UPDATE entries SET tags = NULL WHERE topic = $1", &[topic.as_str().into()])?;
        tx.execute("UPDATE topics SET tag = NULL WHERE name = $1", &[topic.as_str().into()])
    });
    forget.await.unwrap();
    let topic = fixture.topic.clone();
    let read = fixture
        .store
        .read(move |reader| Ok::<_, Error>((reader.entries(&topic, 0, 10)?, reader.head(&topic)?)));
    let (old, head) = read.await.unwrap();
    for (entry, data) in old.iter().zip(["one", "two", "three", "four"]) {
        assert_eq!((&*entry.data, entry.position.tag), (data, crc32fast::hash(data.as_bytes())));
    }
    assert_eq!(head, Some(old[3].position), "the head has the checksum of its data");
    // A new entry behind them, and a topic that is only made sure of.
    let topic = fixture.topic.clone();
    fixture.store.write(move |tx| tx.ensure(&topic)).await.unwrap();
    fixture.append("five").await;
    for entry in &old {
        let start = fixture.start(&fixture.cursor(entry)).await;
        assert_eq!(start, Start { position: entry.position, reset: None }, "{}", entry.data);
    }
}

async fn a_row_can_be_rewritten_and_keeps_its_tags(home: Home) {
    let fixture = fixture(home);
    let topic = fixture.topic.clone();
    let together = [("test", "one"), ("test", "two"), ("test", "three")];
    fixture.store.write(move |tx| tx.append_all(&topic, &together)).await.unwrap();
    let topic = fixture.topic.clone();
    let rewrite = fixture.store.write(move |tx| {
        let before = tx.entries(&topic, 0, 10)?;
        let sql = "SELECT type, data, packed, tags FROM entries WHERE topic = $1 AND seq = 3";
        let row = tx.find(sql, &[topic.as_str().into()], |row| {
            let packed: Option<Vec<u8>> = row.get(2)?;
            pack::Row::of(row.get(0)?, row.get(1)?, packed.as_deref(), row.get(3)?)
                .ok_or(Error::Gone)
        })?;
        let mut entries = row.ok_or(Error::Gone)?.into_entries();
        entries[1].1 = "redacted".to_owned();
        let row = pack::encode(3, &entries).ok_or(Error::Gone)?;
        let sql =
            "UPDATE entries SET data = $2, packed = $3, tags = $4 WHERE topic = $1 AND seq = 3";
        let params = [
            topic.as_str().into(),
            row.data.into(),
            row.before.as_deref().into(),
            row.tags.as_slice().into(),
        ];
        tx.execute(sql, &params)?;
        Ok::<_, Error>((before, tx.entries(&topic, 0, 10)?))
    });
    let (before, after) = rewrite.await.unwrap();
    let data: Vec<&str> = after.iter().map(|entry| &*entry.data).collect();
    assert_eq!(data, ["one", "redacted", "three"]);
    let positions = |entries: &[Arc<Entry>]| entries.iter().map(|e| e.position).collect::<Vec<_>>();
    assert_eq!(positions(&after), positions(&before), "number and tag stay");
}

const HOUR: Duration = Duration::from_hours(1);

/// Makes topics, each with one entry from `at`, by one statement.
async fn many_topics(store: &Store, count: i64, at: Timestamp) {
    let make = move |tx: &mut Tx<'_>| {
        let numbers = "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < $1)";
        let sql = format!(
            "INSERT INTO topics (name, epoch, head, floor) {numbers} SELECT 'user/' || CAST(i AS TEXT), 1, 1, 1 FROM n"
        );
        tx.execute(&sql, &[count.into()])?;
        let sql = format!(
            "INSERT INTO entries (topic, seq, type, data, at) {numbers} \
             SELECT 'user/' || CAST(i AS TEXT), 1, 'test', '{{}}', CAST($2 AS BIGINT) FROM n"
        );
        tx.execute(&sql, &[count.into(), at.into()])
    };
    store.write(make).await.unwrap();
}

async fn retention_reads_the_topics_that_are_due_and_no_other(home: Home) {
    let fixture = fixture(home);
    let config = RetentionConfig { journal_max_age: HOUR, journal_max_entries: 1_000 };
    let now = Timestamp::now();
    many_topics(&fixture.store, 4_000, now).await;
    // Each topic is looked at once, as those of before the upgrade are.
    let first = trim(&fixture.store, &config, now).await.unwrap();
    assert_eq!(first, Trimmed { topics: 4_000, rows: 0 });
    fixture.append("1").await;
    fixture.append("2").await;
    trim(&fixture.store, &config, now).await.unwrap();
    let late = now.after(HOUR * 2);
    for (at, due) in [
        (now.after(HOUR / 2), Trimmed::default()),
        (late, Trimmed { topics: 1, rows: 1 }),
        (late, Trimmed::default()),
    ] {
        assert_eq!(trim(&fixture.store, &config, at).await.unwrap(), due, "at {at}");
    }
    // The count says what retention looks at, the plan what the database reads for that.
    let is_sqlite = home.url().is_none();
    let explain = if is_sqlite { "EXPLAIN QUERY PLAN" } else { "EXPLAIN" };
    fixture.store.write(|tx| tx.execute("ANALYZE topics", &[])).await.unwrap();
    let due = retention::DUE.replace("$1", "1").replace("$2", "200");
    let plan = fixture.store.read(move |reader| {
        let column = if is_sqlite { 3 } else { 0 };
        reader.query(&format!("{explain} {due}"), &[], |row| row.get::<String>(column))
    });
    let plan = plan.await.unwrap().join("\n");
    assert!(plan.contains("topics_due"), "the plan does not use the index of due topics: {plan}");
}

async fn retention_finds_a_topic_again_when_it_is_over_a_limit_again(home: Home) {
    let fixture = fixture(home);
    let config = RetentionConfig { journal_max_age: HOUR, journal_max_entries: 64 };
    let now = Timestamp::now();
    let run = async |at| trim(&fixture.store, &config, at).await.unwrap().rows;
    for _ in 0..64 {
        fixture.append("x").await;
    }
    assert_eq!(run(now).await, 0);
    // Within the slack nothing is due; beyond it the topic goes back to its limit.
    for deleted in [0, 0, 3] {
        fixture.append("x").await;
        assert_eq!(run(now).await, deleted);
    }
    // By age down to the newest, and once more after an entry that came to that one.
    assert_eq!(run(now.after(HOUR * 2)).await, 63);
    assert_eq!(run(now.after(HOUR * 4)).await, 0);
    fixture.append("y").await;
    assert_eq!(run(now.after(HOUR * 4)).await, 1);
    assert_eq!(run(now.after(HOUR * 4)).await, 0);
    let topic = fixture.topic.clone();
    let left = fixture.store.read(move |reader| reader.entries(&topic, 0, 10)).await.unwrap();
    assert_eq!(left.iter().map(|entry| entry.position.seq).collect::<Vec<_>>(), [68]);
}

async fn retention_of_many_entries_takes_bounded_transactions(home: Home) {
    let fixture = fixture(home);
    let config = RetentionConfig { journal_max_age: HOUR, journal_max_entries: 1_000_000 };
    // Rows of their own, by one statement: what is appended together is packed.
    let topic = fixture.topic.clone();
    let fill = move |tx: &mut Tx<'_>| {
        let name = topic.as_str().into();
        tx.execute(
            "INSERT INTO topics (name, epoch, head, floor) VALUES ($1, 1, 5000, 1)",
            &[name],
        )?;
        let sql = "INSERT INTO entries (topic, seq, type, data, at) WITH RECURSIVE n(i) AS \
                   (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                   SELECT CAST($1 AS TEXT), i, 'test', '{}', CAST($2 AS BIGINT) FROM n";
        tx.execute(sql, &[name, Timestamp::now().into()])
    };
    fixture.store.write(fill).await.unwrap();
    let trimmed = trim(&fixture.store, &config, Timestamp::now().after(HOUR * 2)).await.unwrap();
    assert_eq!(trimmed, Trimmed { topics: 3, rows: 4_999 });
}

async fn an_entry_names_the_tag_of_the_one_before(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let store = open(home, folder.path(), &bus);
    let fixture = Fixture { store, topic: Topic::project(ProjectId::mint()), _folder: folder };
    let mut heard = bus.subscribe(&fixture.topic);
    fixture.append("1").await;
    let topic = fixture.topic.clone();
    let together = [("test", "2"), ("test", "3")];
    fixture.store.write(move |tx| tx.append_all(&topic, &together)).await.unwrap();
    let topic = fixture.topic.clone();
    fixture.store.write(move |tx| tx.ensure(&topic)).await.unwrap();
    fixture.append("4").await;
    let mut before = Some(0);
    for _ in 0..4 {
        let Notice::Entry(entry) = heard.next().await.unwrap() else { panic!() };
        assert_eq!(entry.previous, before, "{}", entry.data);
        before = Some(entry.position.tag);
    }
}

async fn a_follower_goes_on_only_where_its_last_entry_still_is(home: Home) {
    let fixture = fixture(home);
    let mut known = Tail::at(Position { epoch: 0, seq: 0, tag: 0 });
    for number in 0..6 {
        let position = fixture.append("old").await.position;
        if number == 0 {
            known = Tail::at(position);
        } else {
            known.push(position);
        }
    }
    let follow = async |last: Position| {
        let topic = fixture.topic.clone();
        fixture.store.read(move |reader| reader.follow(&topic, last, 10)).await.unwrap()
    };
    let last = known.last();
    assert_eq!(follow(last).await, Ok(vec![]), "nothing is new");
    // A restore loses the last two entries.
    let topic = fixture.topic.clone();
    let lose = fixture.store.write(move |tx| {
        tx.execute("DELETE FROM entries WHERE topic = $1 AND seq > 4", &[topic.as_str().into()])?;
        let sql = "UPDATE topics SET head = 4, tag = NULL WHERE name = $1";
        tx.execute(sql, &[topic.as_str().into()])
    });
    lose.await.unwrap();
    assert_eq!(follow(last).await, Err(tail::Error::Diverged), "the head is below");
    for _ in 0..3 {
        fixture.append("new").await;
    }
    assert_eq!(follow(last).await, Err(tail::Error::Diverged), "the number is used again");
    let topic = fixture.topic.clone();
    let rewind = fixture.store.read(move |reader| {
        let mut tail = known.clone();
        let found = reader.rewind(&topic, &mut tail)?;
        Ok::<_, Error>((found, tail, reader.follow(&topic, tail_end(&topic, reader)?, 10)?))
    });
    let (found, tail, after) = rewind.await.unwrap();
    assert!(found, "the fourth entry was not lost");
    assert_eq!(tail.last().seq, 4);
    assert_eq!(after.map(|entries| entries.len()), Ok(3), "all new entries follow the fourth");
    let new = follow(tail.last()).await.expect("it goes on");
    assert_eq!(new[0].previous, Some(tail.last().tag));
}

fn tail_end(topic: &Topic, reader: &crate::store::Reader<'_>) -> Result<Position, Error> {
    Ok(reader.entries(topic, 3, 1)?[0].position)
}

fn event(message: MessageId, text: &str) -> String {
    serde_json::json!({"message": {"id": message, "text": text, "metadata": {"a": text}}})
        .to_string()
}

async fn texts_from_before_the_index_are_redacted_in_packs_too(home: Home) {
    let fixture = fixture(home);
    let (first, second) = (MessageId::mint(), MessageId::mint());
    let topic = fixture.topic.clone();
    let fill = move |tx: &mut Tx<'_>| {
        tx.append_text(
            &topic,
            "message.created",
            &event(first, "secret"),
            Text { message: first, sent_at: None },
        )?;
        let packed = [event(second, "secret"), event(first, "secret too"), event(second, "kept")];
        let [created, updated, kept] = packed.each_ref().map(String::as_str);
        let together =
            [("message.created", created), ("message.updated", updated), ("other.event", kept)];
        tx.append_all(&topic, &together)?;
        tx.append_text(
            &topic,
            "message.updated",
            &event(first, "secret again"),
            Text { message: first, sent_at: None },
        )?;
        // As the steps before left it.
        let name = [topic.as_str().into()];
        tx.execute("UPDATE entries SET tags = NULL, message_id = NULL WHERE topic = $1", &name)?;
        tx.execute("UPDATE topics SET tag = NULL, unmarked = head WHERE name = $1", &name)
    };
    fixture.store.write(fill).await.unwrap();
    let topic = fixture.topic.clone();
    let redact = move |tx: &mut Tx<'_>| {
        let before = tx.entries(&topic, 0, 10)?;
        let redaction = Redaction { message: first, deleted_at: Some(Timestamp::now()) };
        assert_eq!(tx.redact(&topic, redaction)?, 3);
        assert_eq!(tx.redact(&topic, redaction)?, 3, "again, with the new time");
        let redaction = Redaction { message: second, deleted_at: None };
        assert_eq!(tx.redact(&topic, redaction)?, 1);
        assert_eq!(tx.redact(&topic, redaction)?, 0);
        Ok::<_, Error>((before, tx.entries(&topic, 0, 10)?))
    };
    let (before, after) = fixture.store.write(redact).await.unwrap();
    for (index, (old, new)) in before.iter().zip(&after).enumerate() {
        assert_eq!((old.position.seq, &old.kind, old.at), (new.position.seq, &new.kind, new.at));
        // A checksum of the text goes with the text.
        let is_redacted = index != 3;
        assert_eq!(old.position.tag != new.position.tag, is_redacted, "entry {index}");
        assert!(!new.data.contains("secret"), "entry {index}: {}", new.data);
        assert_eq!(new.data.contains("\"redacted\":true"), is_redacted, "entry {index}");
        let start = fixture.start(&fixture.cursor(old)).await;
        assert_eq!(start.reset.is_some(), is_redacted, "a cursor exactly at entry {index}");
        assert_eq!(fixture.start(&fixture.cursor(new)).await.reset, None, "entry {index}");
    }
    assert!(after[3].data.contains("kept"));
}

async fn an_edit_redacts_the_version_before_by_one_row(home: Home) {
    let fixture = fixture(home);
    let message = MessageId::mint();
    let (topic, mut before) = (fixture.topic.clone(), Vec::new());
    let send = {
        let topic = topic.clone();
        move |tx: &mut Tx<'_>| {
            tx.append_text(
                &topic,
                "message.created",
                &event(message, "version 0"),
                Text { message, sent_at: None },
            )
        }
    };
    before.push(fixture.store.write(send).await.unwrap());
    for number in 1..4 {
        let topic = topic.clone();
        let edit = move |tx: &mut Tx<'_>| {
            let redaction = Redaction { message, deleted_at: None };
            assert_eq!(tx.redact(&topic, redaction)?, 1, "only the last version has a text");
            let text = format!("version {number}");
            tx.append_text(
                &topic,
                "message.updated",
                &event(message, &text),
                Text { message, sent_at: None },
            )
        };
        before.push(fixture.store.write(edit).await.unwrap());
    }
    let read = fixture.store.read(move |reader| reader.entries(&topic, 0, 10));
    let after = read.await.unwrap();
    let texts: Vec<bool> = after.iter().map(|entry| entry.data.contains("version")).collect();
    assert_eq!(texts, [false, false, false, true]);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.position, new.position, "number and tag stay");
    }
}
