//! Topics that are looked for and topics that are made.

use clap::Parser;
use shared::{config::Config, ids::ProjectId};

use super::*;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

#[tokio::test]
async fn a_topic_that_is_only_looked_for_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["test", "--data-dir", folder.path().to_str().unwrap()];
    let parts = Parts::embedded(&Arguments::parse_from(flags).config).unwrap();
    let hub = Hub::new(&parts);
    let topic = Topic::project(ProjectId::mint());
    let head = async || {
        let topic = topic.clone();
        parts.store.read(move |reader| reader.head(&topic)).await.unwrap()
    };
    assert!(hub.find(&topic).await.unwrap().is_none());
    assert_eq!(head().await, None);
    let made = hub.follow(&topic).await.unwrap();
    assert!(head().await.is_some());
    assert!(hub.find(&topic).await.unwrap().is_some_and(|found| found.is_of(&made)));
}

#[tokio::test]
async fn the_task_that_feeds_a_topic_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["test", "--data-dir", folder.path().to_str().unwrap()];
    let parts = Parts::embedded(&Arguments::parse_from(flags).config).unwrap();
    let hub = Hub::new(&parts);
    let topic = Topic::project(ProjectId::mint());
    let before = hub.follow(&topic).await.unwrap();
    let active = hub.lock().get(&topic).cloned().expect("it is followed");
    active.end();
    // Followed anew at once, so that nothing but the task itself can find out that the old one is over.
    let after = hub.follow(&topic).await.unwrap();
    assert!(!after.is_of(&before) && before.is_over() && !after.is_over());
    let (left, ()) = (Arc::downgrade(&active), drop((active, before)));
    let ended = async {
        while left.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("the task ends");
}
