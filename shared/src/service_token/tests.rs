//! Tests what a signature is good for.

use proptest::prelude::*;

use super::*;

const PATH: &str = "/parley.v1.Jobs/ListUnfinishedJobs";
const CALL: Call<'_> = Call { replica: "one", path: PATH };
const BODY: &[u8] = b"a message";
const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn config(key: Option<&str>, previous: Option<&str>) -> ServiceTokenConfig {
    let secret = |key: Option<&str>| key.map(|key| SecretString::from(key.to_owned()));
    ServiceTokenConfig { service_token: secret(key), service_token_previous: secret(previous) }
}

fn with_keys(key: &str, previous: Option<&str>) -> ServiceToken {
    ServiceToken::required(&config(Some(key), previous)).unwrap()
}

fn service() -> impl Strategy<Value = Service> {
    prop_oneof![Just(Service::Ingress), Just(Service::Proc)]
}

proptest! {
    #[test]
    fn what_was_signed_is_known(from in service(), path in "/[a-zA-Z.]{1,40}/[a-zA-Z]{1,20}", age_ms in -60_000..60_000_i64) {
        let token = ServiceToken::random();
        let signed = token.sign(from, Call { replica: "one", path: &path }, BODY, NOW);
        let call = Call { replica: "one", path: &path };
        let checked = token.check(&signed, from.other(), call, Timestamp::from_ms(NOW.as_ms() + age_ms));
        prop_assert!(checked.is_some_and(|signed| signed.covers(BODY)));
    }

    #[test]
    fn one_changed_byte_is_noticed(from in service(), at in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let token = ServiceToken::random();
        let signed = token.sign(from, CALL, BODY, NOW);
        let mut forged = signed.clone().into_bytes();
        let at = at.index(forged.len());
        prop_assume!(!forged[at].eq_ignore_ascii_case(&byte));
        forged[at] = byte;
        let forged = String::from_utf8(forged).unwrap();
        prop_assert!(token.check(&forged, from.other(), CALL, NOW).is_none(), "{forged} for {signed}");
    }

    #[test]
    fn anything_else_is_no_signature(text in "\\PC{0,200}", shaped in "v2\\.(ingress|proc)\\.[0-9]{1,20}\\.[0-9a-f]{32}\\.[0-9a-f]{64}\\.[0-9a-f]{64}") {
        let token = ServiceToken::random();
        prop_assert!(token.check(&text, Service::Proc, CALL, NOW).is_none());
        prop_assert!(token.check(&shaped, Service::Proc, CALL, NOW).is_none());
    }

    #[test]
    fn a_signature_of_another_time_is_refused(away_ms in 60_001..i64::MAX / 2, before in any::<bool>()) {
        let token = ServiceToken::random();
        let at = if before { NOW.as_ms() - away_ms } else { NOW.as_ms() + away_ms };
        let signed = token.sign(Service::Ingress, CALL, BODY, Timestamp::from_ms(at));
        prop_assert!(token.check(&signed, Service::Proc, CALL, NOW).is_none());
    }
}

#[test]
fn a_signature_is_for_one_method_of_one_replica_and_one_body() {
    let token = ServiceToken::random();
    let signed = token.sign(Service::Ingress, CALL, BODY, NOW);
    let checked = token.check(&signed, Service::Proc, CALL, NOW).expect("it is signed");
    assert!(checked.covers(BODY) && !checked.covers(b"another") && !checked.covers(b""));
    let path = "/parley.v1.Jobs/Other";
    assert!(token.check(&signed, Service::Proc, Call { path, ..CALL }, NOW).is_none());
    let replica = "two";
    assert!(token.check(&signed, Service::Proc, Call { replica, ..CALL }, NOW).is_none());
    assert!(token.check(&signed, Service::Ingress, CALL, NOW).is_none());
    assert!(ServiceToken::random().check(&signed, Service::Proc, CALL, NOW).is_none());
    let again = token.sign(Service::Ingress, CALL, BODY, NOW);
    assert_ne!(signed, again, "each has a nonce of its own");
}

#[test]
fn clocks_may_be_a_minute_apart() {
    let token = ServiceToken::random();
    let known = |ahead_ms: i64| {
        let at = Timestamp::from_ms(NOW.as_ms() + ahead_ms);
        let signed = token.sign(Service::Proc, CALL, BODY, at);
        token.check(&signed, Service::Ingress, CALL, NOW).is_some()
    };
    assert_eq!([60_000, 60_001, -60_000, -60_001].map(known), [true, false, true, false]);
}

#[test]
fn a_nonce_is_used_once_for_as_long_as_its_signature_is_good() {
    let (nonces, start) = (Nonces::default(), Instant::now());
    let later = |seconds: u64| start + Duration::from_secs(seconds);
    assert!(nonces.is_new_at("a", later(0)));
    assert!(nonces.is_new_at("b", later(119)));
    for seconds in [0, 60, 119, 120] {
        assert!(!nonces.is_new_at("a", later(seconds)), "used again after {seconds} s");
    }
    assert!(!nonces.is_new_at("b", later(238)), "used again after 119 s");
    assert!(nonces.is_new_at("c", later(800)));
    let kept = nonces.generations.lock().unwrap();
    assert_eq!((kept.new.len(), kept.old.len()), (1, 0), "nonces are kept for ever");
}

#[test]
fn a_key_is_replaced_while_the_other_service_still_has_the_old_one() {
    let [old, new] = ["o".repeat(32), "n".repeat(32)];
    let before = with_keys(&old, None);
    let during = with_keys(&new, Some(&old));
    let after = with_keys(&new, None);
    let known = |by: &ServiceToken, signer: &ServiceToken| {
        let signed = signer.sign(Service::Ingress, CALL, BODY, NOW);
        by.check(&signed, Service::Proc, CALL, NOW).is_some()
    };
    assert!(known(&during, &before) && known(&during, &after) && known(&after, &during));
    assert!(!known(&after, &before) && !known(&before, &during));
}

#[test]
fn a_short_key_is_refused_and_not_shown() {
    let short = "s3cret".repeat(5);
    for config in [config(Some(&short), None), config(Some(&"k".repeat(32)), Some(&short))] {
        let refusal = format!("{:?}", ServiceToken::configured(&config).unwrap_err());
        assert!(refusal.contains("at least 32 characters"), "{refusal}");
        assert!(!refusal.contains("s3cret") && !format!("{config:?}").contains("s3cret"));
    }
    let only_previous = config(None, Some(&"k".repeat(32)));
    assert!(ServiceToken::configured(&only_previous).is_err());
}

#[test]
fn services_apart_need_a_key() {
    let refusal = ServiceToken::required(&config(None, None)).unwrap_err().to_string();
    assert!(refusal.starts_with("set SERVICE_TOKEN"), "{refusal}");
    assert!(ServiceToken::configured(&config(None, None)).unwrap().is_none());
    let token = with_keys("kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", None);
    assert!(!format!("{token:?}").contains("kkkk"));
}
