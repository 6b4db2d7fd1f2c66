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
