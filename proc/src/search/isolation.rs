//! Tests that one project's messages are found the same, bit for bit, whatever is written in another project.

use std::{collections::HashMap, path::Path};

use proptest::prelude::*;
use proto::Filter;
use shared::{
    ids::{MessageId, ProjectId},
    time::Timestamp,
};
use tantivy::Searcher;

use super::{
    index::Index,
    query::Searched,
    schema::{Scope, Told},
    statistics::{Statistics, TotalsCache},
    text::{Asked, Style},
};

const MEMORY_BYTES: usize = 15_000_000;
/// Words that are near each other, so that each may be taken for another one.
const VOCABULARY: [&str; 12] = [
    "quuxelbart",
    "quuxelbarn",
    "quuxelbard",
    "quuxelbars",
    "partition",
    "partitions",
    "printer",
    "printers",
    "the",
    "C++",
    "café",
    "apt-get",
];

/// A write in the other project, or what happens to the index meanwhile.
#[derive(Clone, Debug)]
enum Event {
    Add(Vec<usize>),
    Delete(usize),
    DeleteAll,
    Commit,
    Merge,
    Reopen,
}

fn words() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..VOCABULARY.len(), 1..6)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => words().prop_map(Event::Add),
        3 => any::<usize>().prop_map(Event::Delete),
        1 => Just(Event::DeleteAll),
        2 => Just(Event::Commit),
        2 => Just(Event::Merge),
        1 => Just(Event::Reopen),
    ]
}

fn text(words: &[usize]) -> String {
    words.iter().map(|word| VOCABULARY[*word]).collect::<Vec<_>>().join(" ")
}

fn message(words: &[usize]) -> Told {
    let (channel, author) = ("general".into(), "ada".into());
    Told { id: MessageId::mint(), channel, author, text: text(words) }
}

/// Identity and bits of the score of each hit, in order.
type Hits = Vec<(MessageId, u32)>;

/// Returns the hits of every question about the words.
fn hits(searcher: &Searcher, index: &Index, scope: Scope) -> HashMap<String, Hits> {
    let cache = TotalsCache::default();
    let statistics = Statistics::read(searcher, index.fields, scope, &cache).expect("statistics");
    let searched = Searched { searcher, fields: index.fields, scope, statistics: &statistics };
    let mut questions: Vec<String> = VOCABULARY.iter().map(|word| (*word).to_owned()).collect();
    let pairs = VOCABULARY.windows(2).map(|pair| pair.join(" "));
    questions.extend(pairs.chain(["quuxelbarm", "\"the printer\"", "pritner"].map(Into::into)));
    let find = |question: String| {
        let asked = Asked::read(&question, Style::Typed);
        let now = Timestamp::from_ms(1_800_000_000_000);
        let found = searched.find(&Filter::default(), &asked, 50, now).expect("a search");
        (question, found.hits.iter().map(|hit| (hit.message, hit.score.to_bits())).collect())
    };
    questions.into_iter().map(find).collect()
}

fn open(folder: &Path) -> Index {
    Index::open(folder, MEMORY_BYTES).expect("an index")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn writes_in_one_project_change_nothing_in_another(
        mine in prop::collection::vec((words(), any::<bool>(), any::<bool>()), 1..24),
        events in prop::collection::vec(event(), 1..24),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut index = open(folder.path());
        let [my_scope, other_scope] = [(); 2].map(|()| Scope { project: ProjectId::mint(), build: 1 });
        for (words, is_deleted, is_committed) in &mine {
            let message = message(words);
            index.add(my_scope, &message).expect("a message");
            if *is_committed {
                index.commit().expect("a commit");
            }
            if *is_deleted {
                index.remove(message.id);
            }
        }
        let mut searcher = index.commit().expect("a commit");
        let before = hits(&searcher, &index, my_scope);
        let mut theirs = Vec::new();
        for event in events {
            match &event {
                Event::Add(words) => {
                    let message = message(words);
                    index.add(other_scope, &message).expect("a message");
                    theirs.push(message.id);
                }
                Event::Delete(_) if theirs.is_empty() => {}
                Event::Delete(which) => index.remove(theirs.swap_remove(which % theirs.len())),
                Event::DeleteAll => index.remove_all(other_scope),
                Event::Commit => searcher = index.commit().expect("a commit"),
                Event::Merge => searcher = index.merge().expect("a merge"),
                Event::Reopen => {
                    index.close().expect("a closed index");
                    index = open(folder.path());
                    searcher = index.searcher();
                    theirs.clear();
                }
            }
            prop_assert_eq!(&hits(&searcher, &index, my_scope), &before, "after {:?}", event);
        }
    }
}

#[test]
fn words_are_found_in_their_own_project_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut index = open(folder.path());
    let [mine, other] = [(); 2].map(|()| Scope { project: ProjectId::mint(), build: 1 });
    let message = message(&[0, 4]);
    index.add(mine, &message).expect("a message");
    let searcher = index.commit().expect("a commit");
    let found = hits(&searcher, &index, mine);
    let finders = found.iter().filter(|(_, hits)| !hits.is_empty()).count();
    assert!(finders > 6, "its words, words near them and pairs find the message: {found:?}");
    assert_eq!(found["quuxelbarm"][0].0, message.id, "a letter is wrong");
    assert!(hits(&searcher, &index, other).values().all(Vec::is_empty), "nothing of another one");
}
