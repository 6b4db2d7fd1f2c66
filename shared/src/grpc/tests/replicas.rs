//! Replicas come and go at a name, and calls go on.

use std::collections::HashSet;

use tokio::time::timeout;
use tonic::Code;

use super::*;
use crate::config::DrainConfig;

/// Calls until every one of these has answered.
async fn until_answered_by(calls: &Calls, names: &[&str]) {
    let mut seen = HashSet::new();
    let all = async {
        while !names.iter().all(|name| seen.contains(*name)) {
            if let Ok(name) = ask(calls).await {
                seen.insert(name);
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{names:?} should have answered"));
}

/// Calls until nobody else answers any more: replicas take turns.
async fn until_answered_only_by(calls: &Calls, name: &str) {
    let only = async {
        let mut in_a_row = 0;
        while in_a_row < 20 {
            let answer = ask(calls).await;
            in_a_row = if answer.is_ok_and(|answer| answer == name) { in_a_row + 1 } else { 0 };
        }
    };
    timeout(PATIENCE, only).await.unwrap_or_else(|_| panic!("only {name} should answer"));
}

#[tokio::test]
async fn no_call_fails_when_one_of_two_replicas_is_killed() {
    let (token, names) = (ServiceToken::random(), Names::default());
    let mut a = Replica::start("a", &token, false);
    let b = Replica::start("b", &token, false);
    names.set(&[a.address, b.address]);
    let (peer, _tasks) = names.peer(&token);
    let calls = peer.calls(PATIENCE).repeatable();
    until_answered_by(&calls, &["a", "b"]).await;
    a.kill();
    for _ in 0..200 {
        // Connections of the killed process are closed by its system, a moment after.
        let answer = ask(&calls).await.unwrap();
        assert!(["a", "b"].contains(&answer.as_str()));
    }
    until_answered_only_by(&calls, "b").await;
    drop(b);
}

#[tokio::test]
async fn that_all_are_gone_is_noticed_at_once() {
    let (token, names) = (ServiceToken::random(), Names::default());
    let mut all = [Replica::start("a", &token, false), Replica::start("b", &token, false)];
    names.set(&all.each_ref().map(|replica| replica.address));
    let (peer, _tasks) = names.peer(&token);
    let calls = peer.calls(PATIENCE).repeatable();
    until_answered_by(&calls, &["a", "b"]).await;
    for replica in &mut all {
        replica.kill();
    }
    let gone = async { while ask(&calls).await.is_ok() {} };
    timeout(Duration::from_secs(2), gone).await.unwrap();
    let asked = timeout(Duration::from_secs(2), ask(&calls)).await.expect("at once");
    assert_eq!(asked.unwrap_err().code(), Code::Unavailable);

    // The first one that is back is found.
    let back = Replica::start("back", &token, false);
    names.set(&[back.address]);
    until_answered_only_by(&calls, "back").await;
}

#[tokio::test]
async fn who_is_new_at_the_name_is_called_and_who_left_is_not() {
    let (token, names) = (ServiceToken::random(), Names::default());
    let a = Replica::start("a", &token, false);
    names.set(&[a.address]);
    let (peer, _tasks) = names.peer(&token);
    let calls = peer.calls(PATIENCE).repeatable();
    until_answered_by(&calls, &["a"]).await;
    let b = Replica::start("b", &token, false);
    names.set(&[a.address, b.address]);
    until_answered_by(&calls, &["a", "b"]).await;
    names.set(&[b.address]);
    until_answered_only_by(&calls, "b").await;
    let asked = a.asked();
    for _ in 0..20 {
        assert_eq!(ask(&calls).await.unwrap(), "b");
    }
    assert_eq!(a.asked(), asked);
}

#[tokio::test]
async fn the_first_call_waits_for_the_name_and_not_for_ever() {
    let (token, names) = (ServiceToken::random(), Names::default());
    // Nobody looks the name up, so it stays unknown.
    let urls = vec!["http://proc.invalid:9020".parse().unwrap()];
    let peer = Peer::new(Service::Ingress, urls, token.clone());
    let refused = ask(&peer.calls(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);

    let a = Replica::start("a", &token, false);
    names.set(&[a.address]);
    let (peer, _tasks) = names.peer(&token);
    assert_eq!(ask(&peer.calls(PATIENCE)).await.unwrap(), "a");
}

#[tokio::test]
async fn a_draining_replica_is_called_only_when_there_is_no_other() {
    let (token, names) = (ServiceToken::random(), Names::default());
    let a = Replica::start("a", &token, false);
    let mut b = Replica::start("b", &token, false);
    names.set(&[a.address, b.address]);
    let (peer, _tasks) = names.peer(&token);
    let calls = peer.calls(PATIENCE).repeatable();
    until_answered_by(&calls, &["a", "b"]).await;
    let drain = DrainConfig {
        drain_delay: PATIENCE * 2,
        drain_spread: Duration::ZERO,
        drain_timeout: PATIENCE * 2,
    };
    let draining = a.lifecycle.clone();
    a.runtime.as_ref().unwrap().spawn(async move { draining.run(async {}, &drain).await });
    until_answered_only_by(&calls, "b").await;
    b.kill();
    until_answered_only_by(&calls, "a").await;
}
