//! The issuer's keys change, are asked for by name, and cannot be had.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    issuer::{Issuer, Signer},
    me,
    pair::Pair,
    ready,
};
use crate::support::{Answer, Parley, eventually};

/// A service that has the issuer's keys, both halves of it.
async fn start(issuer: &Issuer, pair: &Pair) -> Parley {
    let parley = Parley::start_with(&issuer.flags()).await;
    ready(&parley, pair).await;
    let jobs = async || {
        let request = pair.request(&parley.client(), "GET", "/api/integrations/jobs");
        Answer::to(request).await.status == 200
    };
    eventually("proc's keys", jobs).await;
    parley
}

#[tokio::test]
async fn no_good_token_is_refused_while_keys_rotate_under_load() {
    let (old, new) = (Signer::rsa(0, "old"), Signer::rsa(1, "new"));
    let issuer = Arc::new(Issuer::start(&[&old]).await);
    let parley = start(&issuer, &Pair::new(&issuer, &old, "ada")).await;
    let fetches = issuer.fetches();
    let (rotated, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let by_new = Arc::<AtomicUsize>::default();
    let mut load = JoinSet::new();
    for worker in 0..16 {
        let (issuer, client, old, new) =
            (issuer.clone(), parley.client(), old.clone(), new.clone());
        let (rotated, stop, by_new) = (rotated.clone(), stop.clone(), by_new.clone());
        load.spawn(async move {
            let mut served = 0;
            while !stop.load(Ordering::SeqCst) {
                let is_new = rotated.load(Ordering::SeqCst);
                // Each a token that was never seen, so that each is verified.
                let user = format!("user-{worker}-{served}");
                let pair = Pair::new(&issuer, if is_new { &new } else { &old }, &user);
                Answer::to(pair.request(&client, "GET", "/api/auth/me")).await.is(200);
                served += 1;
                by_new.fetch_add(usize::from(is_new), Ordering::SeqCst);
            }
            served
        });
    }
    eventually("load", async || issuer.fetches() >= fetches).await;
    // The new key signs in the moment in which it is there.
    issuer.publish(&[&old, &new]);
    rotated.store(true, Ordering::SeqCst);
    eventually("tokens by the new key", async || by_new.load(Ordering::SeqCst) > 200).await;
    stop.store(true, Ordering::SeqCst);
    let served: usize = load.join_all().await.into_iter().sum();
    assert!(served > 200);
    assert_eq!(issuer.fetches(), fetches + 1);
    me(&parley, &Pair::new(&issuer, &old, "late")).await.is(200);
}

#[tokio::test]
async fn ten_thousand_made_up_keys_cause_one_fetch() {
    let signer = Signer::ec("key-1");
    let issuer = Arc::new(Issuer::start(&[&signer]).await);
    let good = Pair::new(&issuer, &signer, "ada");
    let parley = start(&issuer, &good).await;
    let (fetches, began) = (issuer.fetches(), Instant::now());
    let [access, id] = good.sign();
    let (_, rest) = access.split_once('.').unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..20 {
        let (client, id, rest) = (parley.client(), id.clone(), rest.to_owned());
        callers.spawn(async move {
            for number in 0..500 {
                let head = json!({"alg": "ES256", "kid": format!("{caller}/../{number}")});
                let access = format!("{}.{rest}", super::base64(head.to_string()));
                let request = client.request("GET", "/api/auth/me").bearer_auth(access);
                Answer::to(request.header("x-id-token", &id)).await.refused(401, "unauthenticated");
            }
        });
    }
    callers.join_all().await;
    let allowed = 1 + usize::try_from(began.elapsed().as_secs() / 30).unwrap();
    let caused = issuer.fetches() - fetches;
    assert!((1..=allowed).contains(&caused), "{caused} in {:?}", began.elapsed());
    me(&parley, &good).await.is(200);
}

#[tokio::test]
async fn keys_outlast_their_issuer() {
    let signer = Signer::ec("key-1");
    let issuer = Issuer::start(&[&signer]).await;
    let parley = start(&issuer, &Pair::new(&issuer, &signer, "ada")).await;
    issuer.set_away(true);
    let unknown = Pair::new(&issuer, &Signer::ec("key-2"), "ada");
    me(&parley, &unknown).await.refused(401, "unauthenticated");
    me(&parley, &Pair::new(&issuer, &signer, "never-seen-before")).await.is(200);
}

#[tokio::test]
async fn while_there_were_never_keys_nobody_is_told_that_their_token_is_wrong() {
    let signer = Signer::ec("key-1");
    let issuer = Issuer::start(&[&signer]).await;
    issuer.set_away(true);
    let parley = Parley::start_with(&issuer.flags()).await;
    let pair = Pair::new(&issuer, &signer, "ada");
    for path in ["/api/auth/me", "/api/jobs/stream", "/api/integrations/jobs"] {
        let answer = Answer::to(pair.request(&parley.client(), "GET", path)).await;
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        answer.refused(503, "unavailable");
    }
    parley.client().get("/api/auth/me").await.refused(401, "unauthenticated");
    parley.client().get("/health/ready").await.is(200);
    issuer.set_away(false);
    ready(&parley, &pair).await;
}

#[tokio::test]
async fn an_issuer_that_is_not_to_be_trusted_gives_no_keys() {
    let signer = Signer::ec("key-1");
    let issuer = Issuer::start(&[&signer]).await;
    issuer.set_away(true);
    let jwks = json!({"keys": [signer.jwk()]});
    let long = json!({"keys": [signer.jwk()], "more": "x".repeat(70_000)});
    let many = json!({"keys": (0..21).map(|n| {
        let mut key = signer.jwk();
        key["kid"] = format!("key-{n}").into();
        key
    }).collect::<Vec<_>>()});
    let secret = json!({"keys": [{"kty": "oct", "kid": "key-1", "k": "c2VjcmV0", "alg": "ES256"}]});
    let is_fine = json!({});
    for (what, discovery, keys, said) in [
        ("another name", json!({"issuer": format!("{}/", issuer.url)}), &jwks, "another issuer"),
        ("keys elsewhere", json!({"jwks_uri": "http://keys.example/"}), &jwks, "jwks_uri"),
        ("a file", json!({"jwks_uri": "file:///etc/passwd"}), &jwks, "jwks_uri"),
        ("no URL", json!({"jwks_uri": 7}), &jwks, "discovery is not"),
        ("a redirect", json!({"jwks_uri": format!("{}/moved", issuer.url)}), &jwks, "302"),
        ("nothing there", json!({"jwks_uri": format!("{}/none", issuer.url)}), &jwks, "404"),
        ("long discovery", json!({"more": "x".repeat(70_000)}), &jwks, "limit"),
        ("a long list", is_fine.clone(), &long, "limit"),
        ("many keys", is_fine.clone(), &many, "more than 20"),
        ("a secret", is_fine.clone(), &secret, "none of its keys"),
        ("no list", is_fine.clone(), &Value::Null, "no JWKS"),
    ] {
        issuer.discover(discovery);
        issuer.publish_text(&keys.to_string());
        issuer.set_away(false);
        let parley = Parley::start_with(&issuer.flags()).await;
        eventually(what, async || parley.log().contains(said)).await;
        me(&parley, &Pair::new(&issuer, &signer, "ada")).await.refused(503, "unavailable");
    }
}
