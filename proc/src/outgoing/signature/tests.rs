//! Signatures as the public `standardwebhooks` library makes them, and all that is none.

use proptest::prelude::*;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Made by `standardwebhooks` 1.1.0 from `PyPI`; the first is in the specification too.
const SIGNED: [(&str, i64, &str, &str); 2] = [
    (
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    ("0193.1", 1_700_000_000, r#"{"log":"ä"}"#, "v1,I2ZxQVKj16tK8glEgvhXr/tgwrsOkstsujron41epMc="),
];

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(seconds * 1000)
}

fn head(id: &str, seconds: &str, signature: &str) -> HeaderMap {
    let pairs = [(ID, id), (TIMESTAMP, seconds), (SIGNATURE, signature)];
    let pairs = pairs.map(|(name, value)| {
        (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
    });
    pairs.into_iter().collect()
}

fn check(secret: &Secret, head: &HeaderMap, body: &[u8], now: Timestamp) -> Option<String> {
    SignedHead::read(head, now).and_then(|head| secret.check(&head, body))
}

#[test]
fn signatures_are_those_of_the_public_library() {
    let secret: Secret = SECRET.parse().unwrap();
    for (id, seconds, body, signature) in SIGNED {
        assert_eq!(secret.sign(id, at(seconds), body.as_bytes()), signature);
        let head = head(id, &seconds.to_string(), signature);
        assert_eq!(check(&secret, &head, body.as_bytes(), at(seconds)).as_deref(), Some(id));
    }
}

#[test]
fn a_message_is_good_for_five_minutes_either_way_and_only_as_it_was_signed() {
    let secret: Secret = SECRET.parse().unwrap();
    let (id, seconds, body, signature) = SIGNED[0];
    let verify = |secret: &Secret, head: &HeaderMap, body: &str, now| {
        check(secret, head, body.as_bytes(), at(now))
    };
    let check = |head: &HeaderMap, body: &str, now| verify(&secret, head, body, now);
    let good = head(id, &seconds.to_string(), signature);
    for (late, is_good) in [(300, true), (-300, true), (301, false), (-301, false)] {
        assert_eq!(check(&good, body, seconds + late).is_some(), is_good, "{late}");
    }
    let rotated = format!("v1,AAAA v1a,{} {signature}", &signature[3..]);
    assert!(check(&head(id, &seconds.to_string(), &rotated), body, seconds).is_some());
    let other: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx".parse().unwrap();
    assert!(verify(&other, &good, body, seconds).is_none());
    for (id, time, signature, body) in [
        ("msg_other", &*seconds.to_string(), signature, body),
        (id, &(seconds + 1).to_string(), signature, body),
        (id, &seconds.to_string(), signature, "{}"),
        (id, &seconds.to_string(), &signature[3..], body),
        (id, &seconds.to_string(), "v1,", body),
        (id, &seconds.to_string(), "", body),
        ("", &seconds.to_string(), signature, body),
        (id, "", signature, body),
        (id, "9223372036854775807", signature, body),
        (id, "-9223372036854775808", signature, body),
    ] {
        assert!(check(&head(id, time, signature), body, seconds).is_none(), "{id} {time}");
    }
    assert!(check(&HeaderMap::new(), body, seconds).is_none());
}

#[test]
fn a_secret_has_its_form_and_is_never_printed() {
    for junk in [
        "",
        "whsec_",
        "whsec_short",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!",
    ] {
        let refused = junk.parse::<Secret>().unwrap_err();
        assert!(junk.is_empty() || junk == "whsec_" || !refused.to_string().contains(junk));
    }
    let secret: Secret = SECRET.parse().unwrap();
    assert_eq!(secret.text().as_str(), SECRET);
    assert!(!format!("{secret:?}").contains("MfKQ"));
}

proptest! {
    #[test]
    fn what_is_signed_is_known_and_nothing_else_is(
        id in "[a-zA-Z0-9_.-]{1,128}",
        body in prop::collection::vec(any::<u8>(), 0..200),
        seconds in 0i64..4_000_000_000,
        flip in any::<prop::sample::Index>(),
    ) {
        let secret: Secret = SECRET.parse().unwrap();
        let signature = secret.sign(&id, at(seconds), &body);
        let head = head(&id, &seconds.to_string(), &signature);
        prop_assert_eq!(check(&secret, &head, &body, at(seconds)), Some(id));
        let mut other = body.clone();
        other.insert(flip.index(body.len() + 1), b'x');
        prop_assert_eq!(check(&secret, &head, &other, at(seconds)), None);
    }
}
