//! Tokens and pairs that are not to be taken: each is refused, and all in the same words.

use serde_json::{Value, json};

use super::{
    issuer::{AUDIENCE, CLIENT, Issuer, Signer, base64},
    me,
    pair::{Draft, Pair, now},
    ready, start,
};
use crate::support::{Answer, Client, Parley};

/// What is refused: its name and both tokens.
struct Case(String, String, Option<String>);

/// What may be wrong with either token alone.
fn of_one(issuer: &Issuer, keys: &Keys) -> Vec<(String, Box<dyn Fn(&Draft) -> String>)> {
    let mut cases: Vec<(String, Box<dyn Fn(&Draft) -> String>)> = Vec::new();
    let mut edit = |name: String, edit: Box<dyn Fn(&mut Draft)>| {
        let signed = move |draft: &Draft| {
            let mut draft = draft.clone();
            edit(&mut draft);
            draft.sign()
        };
        cases.push((name, Box::new(signed)));
    };
    for claim in ["exp", "iss", "aud", "sub"] {
        edit(
            format!("no {claim}"),
            Box::new(move |draft| {
                draft.claims.as_object_mut().unwrap().remove(claim);
            }),
        );
    }
    let soon = (now() + 600).to_string();
    for (claim, value) in [
        ("exp", Value::Null),
        ("exp", json!(soon)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!(now() - 1)),
        ("exp", json!(1e300)),
        ("exp", json!([now() + 600])),
        ("nbf", json!(now() + 3600)),
        ("nbf", json!(soon)),
        ("nbf", json!(-1)),
        ("iat", json!(now() + 3600)),
        ("iat", json!("now")),
        ("iss", Value::Null),
        ("iss", json!("")),
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{}/", issuer.url))),
        ("iss", json!(issuer.url.to_uppercase())),
        ("iss", json!([issuer.url])),
        ("iss", json!([issuer.url, "https://evil.example"])),
        ("aud", Value::Null),
        ("aud", json!("")),
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", json!(["other"])),
        ("aud", json!({AUDIENCE: true, CLIENT: true})),
        ("aud", json!(7)),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!(["ada"])),
        ("sub", json!("grace")),
        ("sub", json!("Ada")),
        ("sub", json!("ada\u{0}")),
        ("azp", json!("other")),
        ("azp", json!(7)),
        ("typ", json!("Refresh")),
        ("typ", json!("Logout")),
        ("token_use", json!("refresh")),
    ] {
        edit(
            format!("{claim} is {value}"),
            Box::new(move |draft| draft.claims[claim] = value.clone()),
        );
    }
    let url = format!("{}/jwks", issuer.url);
    for (field, value) in [
        ("alg", json!("none")),
        ("alg", json!("None")),
        ("alg", json!("HS256")),
        ("alg", json!("RS512")),
        ("alg", json!("PS256")),
        ("alg", json!("ES256")),
        ("alg", json!("rs256")),
        ("alg", json!("")),
        ("alg", Value::Null),
        ("alg", json!(["RS256"])),
        ("kid", Value::Null),
        ("kid", json!("")),
        ("kid", json!("unknown")),
        ("kid", json!("ec")),
        ("kid", json!("rsa-2")),
        ("kid", json!("for-encryption")),
        ("kid", json!("secret")),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("{}%s%n")),
        ("kid", json!(0)),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("jwk", keys.unlisted.jwk()),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("JOSE")),
    ] {
        edit(
            format!("head has {field} {value}"),
            Box::new(move |draft| draft.head[field] = value.clone()),
        );
    }
    let unlisted = keys.unlisted.clone();
    edit("another's signature".into(), Box::new(move |draft| draft.signer = unlisted.clone()));
    let unlisted = keys.unlisted.clone();
    edit(
        "another's key inside".into(),
        Box::new(move |draft| {
            draft.signer = unlisted.clone();
            draft.head["jwk"] = unlisted.jwk();
            draft.head["kid"] = unlisted.kid.clone().into();
        }),
    );
    let wide = keys.wide.clone();
    edit(
        "a curve that is not allowed".into(),
        Box::new(move |draft| {
            draft.signer = wide.clone();
            draft.head["alg"] = "ES384".into();
            draft.head["kid"] = wide.kid.clone().into();
        }),
    );
    let wide = keys.wide.clone();
    edit(
        "a key of another curve".into(),
        Box::new(move |draft| {
            draft.signer = wide.clone();
            draft.head["alg"] = "ES256".into();
            draft.head["kid"] = wide.kid.clone().into();
        }),
    );
    let public = keys.first.jwk();
    let secrets = [public["n"].as_str().unwrap().to_owned(), public.to_string()];
    for (number, secret) in secrets.into_iter().enumerate() {
        let name = format!("the public key as a secret, form {number}");
        cases.push((name, Box::new(move |draft| by_secret(draft, secret.as_bytes()))));
    }
    let mut broken = |name: &str, break_it: fn(&Draft, String) -> String| {
        cases.push((name.into(), Box::new(move |draft| break_it(draft, draft.sign()))));
    };
    broken("no signature", |_, token| token[..=token.rfind('.').unwrap()].into());
    broken("two parts", |_, token| token[..token.rfind('.').unwrap()].into());
    broken("four parts", |_, token| format!("{token}.AAAA"));
    broken("five parts", |_, token| format!("{token}.AAAA.AAAA"));
    broken("a point before it", |_, token| format!(".{token}"));
    broken("padding", |_, token| format!("{token}="));
    broken("more signature", |_, token| format!("{token}AAAA"));
    broken("half a signature", |_, token| token[..token.len() - 100].into());
    broken("another character in front", |_, token| format!("A{token}"));
    broken("quotes", |_, token| format!("\"{token}\""));
    broken("another alphabet", |_, token| token.replacen('.', "+/.", 1));
    broken("another bit in the signature", |_, token| {
        let at = token.rfind('.').unwrap() + 10;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &token[..at], &token[at + 1..])
    });
    broken("changed claims", |draft, token| {
        let mut claims = draft.claims.clone();
        claims["roles"] = json!(["admin"]);
        let parts: Vec<_> = token.split('.').collect();
        format!("{}.{}.{}", parts[0], base64(claims.to_string()), parts[2])
    });
    broken("claims that are no JSON", |draft, _| draft.signer.token(&draft.head.to_string(), "{"));
    broken("claims that are a list", |draft, _| draft.signer.token(&draft.head.to_string(), "[]"));
    broken("claims in another encoding", |draft, _| {
        let signed = draft.claims.to_string();
        draft.signer.token(&draft.head.to_string(), &format!("\u{feff}{signed}"))
    });
    broken("a head that is no JSON", |draft, _| draft.signer.token("{", &draft.claims.to_string()));
    broken("a head that is a list", |draft, _| draft.signer.token("[]", &draft.claims.to_string()));
    broken("two of a claim", |draft, _| {
        let claims = draft.claims.to_string();
        let twice = format!("{{\"sub\":\"grace\",{}", &claims[1..]);
        draft.signer.token(&draft.head.to_string(), &twice)
    });
    broken("two algorithms", |draft, _| {
        let head = draft.head.to_string();
        let twice = format!("{{\"alg\":\"none\",{}", &head[1..]);
        draft.signer.token(&twice, &draft.claims.to_string())
    });
    broken("too long", |draft, _| {
        let mut draft = draft.clone();
        draft.claims["more"] = "x".repeat(8 * 1024).into();
        draft.sign()
    });
    broken("nothing", |_, _| String::new());
    broken("points", |_, _| "..".into());
    broken("a word", |_, _| "dev-ada".into());
    cases
}

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
    let changes: [(&str, fn(&mut Pair)); 20] = [
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
        ("a user nobody can be", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.claims["sub"] = "ada lovelace/../".into();
            }
        }),
        ("a user with a long name", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.claims["sub"] = "x".repeat(129).into();
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

/// Signs with what everybody knows, as if it were a secret that is shared.
fn by_secret(draft: &Draft, secret: &[u8]) -> String {
    let mut head = draft.head.clone();
    head["alg"] = "HS256".into();
    let signed = format!("{}.{}", base64(head.to_string()), base64(draft.claims.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    format!("{signed}.{}", base64(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
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
    for (name, make) in of_one(issuer, keys) {
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
    assert!(refused >= 180, "{refused}");
    assert!(!parley.log().contains("panicked"));
}
