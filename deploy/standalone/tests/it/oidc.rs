//! OpenID Connect as callers meet it: an issuer of the test's own, real keys, real discovery.

mod hostile;
mod issuer;
mod pair;
mod providers;
mod rotation;

use std::sync::Arc;

use serde_json::json;

use self::{
    issuer::{AUDIENCE, CLIENT, Issuer, Signer, base64},
    pair::{Change, Pair, now},
};
use crate::{
    sse::Sse,
    support::{Answer, Parley},
};

/// An issuer with one key, and a service that trusts it.
async fn start(signer: &Signer) -> (Issuer, Parley) {
    let issuer = Issuer::start(&[signer]).await;
    let parley = Parley::start_with(&issuer.flags()).await;
    (issuer, parley)
}

async fn me(parley: &Parley, pair: &Pair) -> Answer {
    Answer::to(pair.request(&parley.client(), "GET", "/api/auth/me")).await
}

/// Waits until the keys have come; until then nobody can be let in.
async fn ready(parley: &Parley, pair: &Pair) {
    crate::support::eventually("the keys", async || me(parley, pair).await.status == 200).await;
}

#[tokio::test]
async fn the_tokens_say_who_is_calling_and_what_they_may() {
    let signer = Signer::rsa(0, "key-1");
    let (issuer, parley) = start(&signer).await;
    let pair = Pair::new(&issuer, &signer, "auth0|5f7c8ec7c33c6c004bbafe82");
    ready(&parley, &pair).await;
    let body = me(&parley, &pair).await.is(200);
    assert_eq!(body["user"], "auth0|5f7c8ec7c33c6c004bbafe82");
    assert_eq!(body["name"], "auth0|5f7c8ec7c33c6c004bbafe82's name");
    assert_eq!((&body["auth_mode"], &body["roles"]), (&json!("oidc"), &json!([])));
    for (access, id, name, roles) in [
        (json!({"roles": ["admin"]}), json!({}), "ada's name", json!(["admin"])),
        (json!({"roles": ["x", "admin"]}), json!({}), "ada's name", json!(["admin"])),
        (json!({"roles": "x admin"}), json!({}), "ada's name", json!(["admin"])),
        (json!({"roles": ["administrator"]}), json!({}), "ada's name", json!([])),
        (json!({"roles": {"admin": true}}), json!({}), "ada's name", json!([])),
        // What the ID token says of roles is nothing.
        (json!({}), json!({"roles": ["admin"]}), "ada's name", json!([])),
        (json!({}), json!({"name": " A\u{0}d\na "}), "Ada", json!([])),
        (json!({}), json!({"name": "", "preferred_username": "al"}), "al", json!([])),
        (json!({}), json!({"name": 7, "nickname": "al"}), "al", json!([])),
        (json!({}), json!({"name": null}), "ada", json!([])),
        (json!({}), json!({"name": "\u{202e}evil\u{200b}"}), "evil", json!([])),
        (json!({}), json!({"name": "\u{2066}\u{2069}", "nickname": "al"}), "al", json!([])),
    ] {
        let mut pair = Pair::new(&issuer, &signer, "ada");
        for (draft, more) in [(&mut pair.access, access), (&mut pair.id, id)] {
            draft.claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let body = me(&parley, &pair).await.is(200);
        assert_eq!((&body["name"], &body["roles"]), (&json!(name), &roles), "{body}");
    }
}

#[tokio::test]
async fn tokens_of_the_usual_issuers_are_taken() {
    let (rsa, ec) = (Signer::rsa(0, "rsa"), Signer::ec("ec"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let mut flags = issuer.flags();
    flags.extend(["--oidc-roles-claim", "/realm_access/roles"]);
    let parley = Parley::start_with(&flags).await;
    let pair = Pair::new(&issuer, &ec, "ada");
    ready(&parley, &pair).await;
    let userinfo = format!("{}/userinfo", issuer.url);
    let half = |token: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        base64(&digest.as_ref()[..16])
    };
    let cases: [(&str, Change); 8] = [
        ("RFC 9068", |pair| {
            pair.access.head["typ"] = "at+JWT".into();
            pair.access.claims["client_id"] = CLIENT.into();
            pair.access.claims["nbf"] = now().into();
        }),
        ("a clock a little ahead", |pair| pair.access.claims["nbf"] = (now() + 20).into()),
        ("Cognito", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.head.as_object_mut().unwrap().remove("typ");
            }
            pair.access.claims["token_use"] = "access".into();
            pair.access.claims["client_id"] = CLIENT.into();
            pair.id.claims["token_use"] = "id".into();
        }),
        ("Keycloak", |pair| {
            pair.access.claims["aud"] = json!(["account", AUDIENCE]);
            pair.access.claims["typ"] = "Bearer".into();
            pair.access.claims["azp"] = CLIENT.into();
            pair.access.claims["realm_access"] = json!({"roles": ["offline_access", "admin"]});
            pair.id.claims["typ"] = "ID".into();
            pair.id.claims["azp"] = CLIENT.into();
            pair.id.claims["nonce"] = "abc".into();
        }),
        ("several audiences of an ID token", |pair| {
            pair.id.claims["aud"] = json!([CLIENT, "other"]);
            pair.id.claims["azp"] = CLIENT.into();
        }),
        ("a thumbprint beside the key's name", |pair| pair.access.head["x5t"] = "abc".into()),
        ("a certificate in the head, as of ADFS and SAP", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                draft.head["x5c"] = json!(["MIIB"]);
                draft.head["jku"] = "https://keys.example/jwks".into();
                draft.head["x5u"] = "https://keys.example/x5u".into();
            }
        }),
        ("times with a fraction", |pair| {
            for draft in [&mut pair.access, &mut pair.id] {
                #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
                let begun = now() as f64;
                draft.claims["iat"] = (begun + 0.25).into();
                draft.claims["nbf"] = (begun + 0.25).into();
                draft.claims["exp"] = (begun + 600.75).into();
            }
        }),
    ];
    for (name, change) in cases {
        for signer in [&rsa, &ec] {
            let mut pair = Pair::new(&issuer, signer, "ada");
            change(&mut pair);
            // RSA signatures are the same each time, so that the hash is of the token that is sent.
            if signer.kid == "rsa" {
                pair.id.claims["at_hash"] = half(&pair.access.sign()).into();
            }
            let body = me(&parley, &pair).await;
            assert_eq!(body.status, 200, "{name}: {body:?}");
            assert_eq!(body.body["roles"] == json!(["admin"]), name == "Keycloak", "{name}");
        }
    }
    let mut pair = Pair::new(&issuer, &rsa, "ada");
    pair.access.claims["aud"] = json!([AUDIENCE, userinfo]);
    pair.access.claims["azp"] = CLIENT.into();
    pair.access.claims["scope"] = "openid profile".into();
    me(&parley, &pair).await.is(200);
}

#[tokio::test]
async fn tokens_are_taken_from_header_query_of_streams_and_cookie_in_this_order() {
    let signer = Signer::ec("key-1");
    let (issuer, parley) = start(&signer).await;
    let pair = Pair::new(&issuer, &signer, "ada");
    ready(&parley, &pair).await;
    let [access, id] = pair.sign();
    let [others_access, others_id] = Pair::new(&issuer, &signer, "grace").sign();
    let cookies = format!("__Secure-LATC={access}; __Secure-LITC={id}");
    let others = format!("__Secure-LATC={others_access}; __Secure-LITC={others_id}");
    let query = format!("?bearer_token={access}&id_token={id}");
    let client = parley.client();
    let (me, jobs) = ("/api/auth/me".to_owned(), "/api/jobs/stream".to_owned());
    let (me_query, jobs_query) = (format!("{me}{query}"), format!("{jobs}{query}"));
    for (path, header, cookie, status) in [
        (&me, Some((&access, &id)), None, 200),
        (&me, None, Some(&cookies), 200),
        (&me, Some((&access, &id)), Some(&others), 200),
        // Of two users, or only one of two.
        (&me, Some((&access, &others_id)), Some(&cookies), 401),
        (&me_query, None, None, 401),
        (&me_query, None, Some(&cookies), 200),
        (&jobs, Some((&access, &id)), None, 200),
        (&jobs, None, Some(&cookies), 200),
        (&jobs_query, None, None, 200),
        (&jobs_query, None, Some(&others), 200),
        (&jobs_query, Some((&access, &others_id)), None, 401),
    ] {
        // HEAD takes no slot.
        let mut request = client.request("HEAD", path);
        if let Some((access, id)) = header {
            request = request.bearer_auth(access).header("x-id-token", id);
        }
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path} {header:?} {cookie:?}");
    }
    let only_access = client.request("GET", &me).bearer_auth(&access);
    Answer::to(only_access).await.refused(401, "unauthenticated");
    let one_of_each = client.request("GET", &me).bearer_auth(&access).header("cookie", &cookies);
    Answer::to(one_of_each).await.is(200);
    let twice = client.request("GET", &me).header("authorization", format!("Bearer {access}"));
    let twice = twice.header("authorization", format!("Bearer {access}")).header("x-id-token", &id);
    Answer::to(twice).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_stream_ends_with_its_tokens() {
    let signer = Signer::ec("key-1");
    let (issuer, parley) = start(&signer).await;
    ready(&parley, &Pair::new(&issuer, &signer, "ada")).await;
    for shortened in ["access", "id"] {
        let mut pair = Pair::new(&issuer, &signer, "ada");
        let draft = if shortened == "id" { &mut pair.id } else { &mut pair.access };
        draft.claims["exp"] = (now() + 3).into();
        let request = pair.request(&parley.client(), "GET", "/api/jobs/stream");
        let mut stream = Sse::open(request).await;
        let bye = loop {
            let event = stream.next().await.expect("a last word");
            if event.name == "bye" {
                break event;
            }
        };
        assert_eq!(bye.data["reason"], "token_expired", "{shortened}");
        assert!(stream.next().await.is_none());
        // What was found good before is not good for longer.
        me(&parley, &pair).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn who_has_signed_in_can_be_made_a_member() {
    let signer = Signer::ec("key-1");
    let (issuer, mut parley) = start(&signer).await;
    let ada = Pair::new(&issuer, &signer, "ada");
    ready(&parley, &ada).await;
    let new = ada.request(&parley.client(), "POST", "/api/chat/projects");
    let project = Answer::to(new.json(&json!({"name": "Test"}))).await.is(201);
    let path = format!("/api/chat/projects/{}/members/grace", project["id"].as_str().unwrap());
    let put = async |parley: &Parley| {
        let request = ada.request(&parley.client(), "PUT", &path);
        Answer::to(request.json(&json!({"role": "member"}))).await
    };
    put(&parley).await.refused(422, "invalid_field");
    let mut grace = Pair::new(&issuer, &signer, "grace");
    grace.id.claims["name"] = "Grace H.".into();
    me(&parley, &grace).await.is(200);
    assert_eq!(put(&parley).await.is(200)["name"], "Grace H.");
    // Another name is the name from then on, a restart too.
    grace.id.claims["name"] = "Grace Hopper".into();
    me(&parley, &grace).await.is(200);
    assert!(parley.terminate().await.success());
    let parley = Parley::start_in(&parley.dir, &issuer.flags()).await;
    ready(&parley, &ada).await;
    assert_eq!(put(&parley).await.is(200)["name"], "Grace Hopper");
}

#[tokio::test]
async fn no_token_of_an_issuer_reaches_the_log() {
    let signer = Signer::ec("key-1");
    let issuer = Issuer::start(&[&signer]).await;
    let mut flags = issuer.flags();
    flags.extend(["--log", "trace"]);
    let parley = Parley::start_with(&flags).await;
    let good = Pair::new(&issuer, &signer, "ada");
    ready(&parley, &good).await;
    let mut bad = good.clone();
    bad.access.claims["aud"] = "other".into();
    for pair in [&good, &bad] {
        let [access, id] = pair.sign();
        let client = parley.client();
        for request in [
            client
                .request("HEAD", &format!("/api/jobs/stream?bearer_token={access}&id_token={id}")),
            client.request("GET", &format!("/api/auth/me?bearer_token={access}&id_token={id}")),
            client.request("GET", &format!("/nothing?bearer_token={access}")),
            client
                .request("GET", &format!("/sse/stream?project_id={access}&bearer_token={access}")),
            client
                .request("GET", "/api/auth/me")
                .header("cookie", format!("__Secure-LATC={access}; __Secure-LITC={id}")),
            client.request("GET", "/api/auth/me").bearer_auth(&access).header("x-id-token", &id),
            client.request("POST", "/api/chat/projects").bearer_auth(&id).body(access.clone()),
        ] {
            request.send().await.unwrap();
        }
    }
    let log = parley.log();
    assert!(log.contains("/api/jobs/stream") && log.contains("tokens refused"));
    // Heads are the same for all, the rest is a token's own.
    for part in good.sign().iter().chain(&bad.sign()).filter_map(|token| token.split('.').nth(1)) {
        assert!(!log.contains(part), "{part}");
    }
}

#[tokio::test]
async fn settings_that_are_not_safe_are_refused() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let good = [
        ("--oidc-issuer", "https://auth.example"),
        ("--oidc-audience", "api"),
        ("--oidc-client-id", "web"),
        ("--oidc-algorithms", "RS256"),
    ];
    for (flag, value, said) in [
        ("--oidc-issuer", "", "OIDC_ISSUER"),
        ("--oidc-issuer", "http://auth.example", "OIDC_ISSUER"),
        ("--oidc-issuer", "https://auth.example?realm=chat", "OIDC_ISSUER"),
        ("--oidc-audience", "", "OIDC_AUDIENCE"),
        ("--oidc-audience-claim", "", "OIDC_AUDIENCE_CLAIM"),
        ("--oidc-client-id", "", "OIDC_CLIENT_ID"),
        ("--oidc-algorithms", "RS256,HS256", "HMAC"),
        ("--oidc-algorithms", "none", "no such algorithm"),
        ("--oidc-user-claim", "email", "another person can get the same email later"),
        ("--oidc-user-claim", "upn", "another person can get"),
        ("--oidc-user-claim", "preferred_username", "another person can get"),
        ("--oidc-user-claim", "uid,preferred_username", "another person can get"),
        ("--oidc-user-claim", "iss", "does not tell one user from another"),
        ("--oidc-user-claim", "", "OIDC_USER_CLAIM"),
        ("--oidc-user-claim", "a,b,c", "OIDC_USER_CLAIM"),
        ("--oidc-id-token-only", "true", "every account of the provider can sign in"),
        ("--oidc-required-claim", "hd", "OIDC_REQUIRED_CLAIM"),
        ("--oidc-required-claim", "hd=", "OIDC_REQUIRED_CLAIM"),
        ("--oidc-console-client-id", "other", "OIDC_CONSOLE_CLIENT_ID"),
        ("--oidc-console-scope", "profile", "openid"),
        ("--oidc-console-parameters", "audience", "OIDC_CONSOLE_PARAMETERS"),
        ("--oidc-console-parameters", "state=1", "the console sets it itself"),
        ("--oidc-console-redirect-path", "/api/auth/me", "OIDC_CONSOLE_REDIRECT_PATH"),
        ("--oidc-console-redirect-path", "/console/main.js", "OIDC_CONSOLE_REDIRECT_PATH"),
        ("--oidc-console-redirect-path", "/console/{*a}", "OIDC_CONSOLE_REDIRECT_PATH"),
    ] {
        let mut flags = vec!["--auth-mode", "oidc"];
        for (other, usual) in good {
            if other != flag {
                flags.extend([other, usual]);
            }
        }
        flags.extend([flag, value]);
        let refusal = Parley::refusal(&dir, &flags).await;
        assert!(refusal.contains(said), "{flag} {value}: {refusal}");
    }
}

#[tokio::test]
async fn tokens_that_name_no_key_are_verified_with_the_keys_of_their_algorithm() {
    let (first, second) = (Signer::rsa(0, "first"), Signer::rsa(1, "second"));
    for (count, is_named) in [(1, true), (1, false), (3, true)] {
        let signers = [first.clone(), Signer::ec("ec"), second.clone()];
        let issuer = Issuer::start(&[&first]).await;
        let mut keys: Vec<_> = signers[..count].iter().map(Signer::jwk).collect();
        if !is_named {
            keys[0].as_object_mut().unwrap().remove("kid");
        }
        issuer.publish_text(&json!({"keys": keys}).to_string());
        let parley = Parley::start_with(&issuer.flags()).await;
        let pair = |signer: &Signer| {
            let mut pair = Pair::new(&issuer, signer, "ada");
            for draft in [&mut pair.access, &mut pair.id] {
                draft.head.as_object_mut().unwrap().remove("kid");
            }
            pair
        };
        ready(&parley, &pair(&first)).await;
        let last = me(&parley, &pair(&second)).await.status;
        assert_eq!(last, if count == 3 { 200 } else { 401 }, "{count} keys");
        let mut expired = pair(&first);
        expired.access.claims["exp"] = (now() - 60).into();
        me(&parley, &expired).await.refused(401, "unauthenticated");
    }
}
