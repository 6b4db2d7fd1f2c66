//! Tokens and pairs that are not to be taken: each is refused, and all in the same words.

mod single;

use serde_json::json;

use super::{
    issuer::{AUDIENCE, CLIENT, Issuer, Signer, base64},
    me,
    pair::{Change, Pair, now},
    ready, start,
};
use crate::support::{Answer, Client, Parley};

/// What is refused: its name and both tokens.
struct Case(String, String, Option<String>);

/// What is wrong with two tokens together, or with one in the place of the other.
fn of_both(issuer: &Issuer, keys: &Keys) -> Vec<Case> {
    let good = || Pair::new(issuer, &keys.first, "ada");
    let [access, id] = good().sign();
    let [_, others_id] = Pair::new(issuer, &keys.first, "grace").sign();
    let mut cases = vec![
        Case("no ID token".into(), access.clone(), None),
        Case("the access token twice".into(), access.clone(), Some(access.clone())),
        Case("the ID token twice".into(), id.clone(), Some(id.clone())),
        Case("each in the other's place".into(), id, Some(access.clone())),
        Case("tokens of two users".into(), access, Some(others_id)),
    ];
    let changes: [(&str, Change); 19] = [
        ("an ID token for the API", |pair| pair.access.claims["nonce"] = "abc".into()),
        ("an ID token with a hash", |pair| pair.access.claims["at_hash"] = "abc".into()),
        ("an ID token that says so", |pair| pair.access.claims["typ"] = "ID".into()),
        ("an ID token by its use", |pair| pair.access.claims["token_use"] = "id".into()),
        ("for both", |pair| pair.access.claims["aud"] = json!([AUDIENCE, CLIENT])),
        ("for the client", |pair| pair.access.claims["aud"] = CLIENT.into()),
        ("another client's", |pair| pair.access.claims["client_id"] = "other".into()),
        ("an access token that says so", |pair| pair.id.claims["typ"] = "Bearer".into()),
        ("an access token by its use", |pair| pair.id.claims["token_use"] = "access".into()),
        ("an access token by its head", |pair| pair.id.head["typ"] = "at+jwt".into()),
        ("for the API", |pair| pair.id.claims["aud"] = AUDIENCE.into()),
        ("for many, and nobody's", |pair| pair.id.claims["aud"] = json!([CLIENT, "other"])),
        ("for many, and another's", |pair| {
            pair.id.claims["aud"] = json!([CLIENT, "other"]);
            pair.id.claims["azp"] = "other".into();
        }),
        ("a hash of nothing", |pair| pair.id.claims["at_hash"] = "".into()),
        ("a hash of another", |pair| pair.id.claims["at_hash"] = "mvtmnNF6EOuKPcMZV0bLnw".into()),
        ("a hash that is none", |pair| pair.id.claims["at_hash"] = 7.into()),
        ("a user with too long a name", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.claims["sub"] = "x".repeat(256).into();
            }
        }),
        ("a user with a NUL", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.claims["sub"] = "ada\u{0}".into();
            }
        }),
        ("both over", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.claims["exp"] = (now() - 1).into();
            }
        }),
    ];
    cases.extend(changes.into_iter().map(|(name, change)| {
        let mut pair = good();
        change(&mut pair);
        let [access, id] = pair.sign();
        Case(name.into(), access, Some(id))
    }));
    cases
}

/// The issuer's keys, and one that is not its.
struct Keys {
    first: Signer,
    wide: Signer,
    unlisted: Signer,
}

async fn show(client: &Client, Case(_, access, id): &Case) -> Answer {
    let mut request = client.request("GET", "/api/auth/me");
    request = request.header("authorization", format!("Bearer {access}"));
    if let Some(id) = id {
        request = request.header("x-id-token", id);
    }
    Answer::to(request).await
}

fn publish(issuer: &Issuer, keys: &Keys) {
    let [mut second, mut encrypts] =
        [Signer::rsa(1, "rsa-2"), keys.first.clone()].map(|key| key.jwk());
    second["alg"] = "RS256".into();
    encrypts["kid"] = "for-encryption".into();
    encrypts["use"] = "enc".into();
    let secret = json!({"kty": "oct", "kid": "secret", "alg": "RS256", "k": base64("secret")});
    let list =
        [keys.first.jwk(), second, Signer::ec("ec").jwk(), keys.wide.jwk(), encrypts, secret];
    issuer.publish_text(&json!({"keys": list}).to_string());
}

async fn holds(issuer: &Issuer, parley: &Parley, keys: &Keys) -> usize {
    let good = Pair::new(issuer, &keys.first, "ada");
    let mut cases = of_both(issuer, keys);
    for (name, make) in single::all(issuer, keys) {
        let [access, id] = good.sign();
        cases.push(Case(format!("access: {name}"), make(&good.access), Some(id)));
        cases.push(Case(format!("id: {name}"), access, Some(make(&good.id))));
    }
    let client = parley.client();
    let refusal = client.get("/api/auth/me").await;
    let challenge = refusal.header("www-authenticate").to_owned();
    let mut expected = refusal.refused(401, "unauthenticated");
    expected["trace_id"].take();
    for case in &cases {
        let answer = show(&client, case).await;
        assert_eq!(answer.status, 401, "{}: {answer:?}", case.0);
        assert_eq!(answer.header("www-authenticate"), challenge, "{}", case.0);
        let mut body = answer.refused(401, "unauthenticated");
        body["trace_id"].take();
        assert_eq!(body, expected, "{}", case.0);
    }
    // So it was not for another reason.
    me(parley, &good).await.is(200);
    cases.len()
}

#[tokio::test]
async fn whatever_is_wrong_with_tokens_the_answer_is_the_same() {
    let first = Signer::rsa(0, "rsa");
    let keys = Keys { first, wide: Signer::ec384("wide"), unlisted: Signer::rsa(1, "rsa") };
    let (issuer, parley) = start(&keys.first).await;
    ready(&parley, &Pair::new(&issuer, &keys.first, "ada")).await;
    // They are fetched at the first name that is not known.
    publish(&issuer, &keys);
    let second = Signer::rsa(1, "rsa-2");
    me(&parley, &Pair::new(&issuer, &second, "ada")).await.is(200);
    let refused = holds(&issuer, &parley, &keys).await;
    assert!(refused >= 175, "{refused}");
    assert!(!parley.log().contains("panicked"));
}
