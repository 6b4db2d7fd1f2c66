//! The keys of an issuer that a test plays, in a time that a test makes pass.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tokio::{task::JoinSet, time::advance};
use tokio_util::sync::DropGuard;

use super::*;

/// An issuer that rotates its key when it is told to, and the keys that are known of it.
struct Played {
    keys: Keys,
    fetches: Arc<AtomicU64>,
    key: Arc<AtomicU64>,
    away: Arc<AtomicBool>,
    _running: JoinSet<()>,
    _stop: DropGuard,
}

impl Played {
    async fn start(away: bool) -> Self {
        let (keys, refresher) = Refresher::new();
        let (fetches, key) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let away = Arc::new(AtomicBool::new(away));
        let (counted, current, is_away) = (fetches.clone(), key.clone(), away.clone());
        let fetch = move |before: Option<Arc<KeySet>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let kid = current.load(Ordering::SeqCst).to_string();
            let jwks = json!({"keys": [{"kty": "RSA", "kid": kid, "n": "AQAB", "e": "AQAB"}]});
            let is_away = is_away.load(Ordering::SeqCst);
            async move {
                sleep(Duration::from_secs(1)).await;
                anyhow::ensure!(!is_away, "away");
                KeySet::parse(jwks.to_string().as_bytes(), &[Algorithm::RS256], before.as_deref())
            }
        };
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(refresher.run(fetch, stop.clone()));
        let played = Self { keys, fetches, key, away, _running: running, _stop: stop.drop_guard() };
        played.pass(1_500).await;
        played
    }

    /// Lets time go by in steps, so that whoever waits for a point in it gets there.
    async fn pass(&self, ms: u64) {
        for _ in 0..ms / 100 {
            advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
    }

    async fn find(&self, kid: &str) -> Option<Option<Arc<Key>>> {
        self.keys.find(kid, Algorithm::RS256).await
    }

    async fn has(&self, kid: &str) -> bool {
        self.find(kid).await.is_some_and(|key| key.is_some())
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn made_up_names_of_keys_cause_one_fetch_in_thirty_seconds() {
    let issuer = Played::start(false).await;
    assert_eq!(issuer.fetches(), 1);
    for _ in 0..2 {
        let before = issuer.fetches();
        let mut asking = JoinSet::new();
        for number in 0..10_000 {
            let keys = issuer.keys.clone();
            asking.spawn(async move {
                keys.find(&format!("made up {number}"), Algorithm::RS256).await.unwrap().is_some()
            });
        }
        assert!(asking.join_all().await.iter().all(|found| !found));
        for _ in 0..20 {
            issuer.pass(1_000).await;
            assert!(!issuer.has("made up").await);
        }
        assert_eq!(issuer.fetches(), before + 1);
        issuer.pass(10_000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_by_all_who_ask_for_it_at_once() {
    let issuer = Played::start(false).await;
    let old = issuer.find("0").await.flatten().unwrap();
    assert!(issuer.keys.hold(&old));
    issuer.key.store(1, Ordering::SeqCst);
    let mut asking = JoinSet::new();
    for _ in 0..1_000 {
        let keys = issuer.keys.clone();
        asking.spawn(async move { keys.find("1", Algorithm::RS256).await.flatten().is_some() });
    }
    assert!(asking.join_all().await.iter().all(|found| *found));
    assert_eq!(issuer.fetches(), 2);
    // What was verified with the old one is not good any more.
    assert!(!issuer.keys.hold(&old));
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_by_and_by_and_stay_while_the_issuer_is_away() {
    let issuer = Played::start(false).await;
    issuer.pass(TTL.as_secs() * 1_000 + 2_000).await;
    assert_eq!(issuer.fetches(), 2);
    issuer.away.store(true, Ordering::SeqCst);
    issuer.key.store(1, Ordering::SeqCst);
    issuer.pass(TTL.as_secs() * 2_000).await;
    assert!(issuer.fetches() > 10, "it is asked again: {}", issuer.fetches());
    assert!(issuer.has("0").await);
    assert!(!issuer.has("1").await);
    issuer.away.store(false, Ordering::SeqCst);
    issuer.pass(40_000).await;
    assert!(issuer.has("1").await);
    assert!(!issuer.has("0").await);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_was_never_there_is_asked_until_it_is() {
    let issuer = Played::start(true).await;
    assert!(issuer.find("0").await.is_none());
    issuer.pass(120_000).await;
    let fetches = issuer.fetches();
    assert!((6..=12).contains(&fetches), "{fetches}");
    assert!(issuer.find("0").await.is_none(), "nobody is told that there is no such key");
    issuer.away.store(false, Ordering::SeqCst);
    issuer.pass(50_000).await;
    assert!(issuer.has("0").await);
}
