//! Any JSON at all as a message.

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};

use crate::support::Parley;

/// The fields that a message has, and what is none.
const NAMES: [&str; 9] =
    ["text", "channel", "client_message_id", "reply_to", "metadata", "id", "", "\0", "__proto__"];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("general")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner, 0..6).prop_map(
                |map| Value::Object(
                    map.into_iter().map(|(name, value)| (name.into(), value)).collect()
                )
            ),
        ]
    })
}

/// A message that may well be fine, or any JSON at all.
fn any_body() -> impl Strategy<Value = Value> {
    let message = (any::<String>(), any::<String>(), any_json()).prop_map(
        |(text, key, metadata)| json!({"text": text, "client_message_id": key, "metadata": metadata}),
    );
    let plain = any::<String>().prop_map(|text| json!({"text": text}));
    prop_oneof![any_json(), message, plain]
}

#[test]
fn any_json_is_a_message_or_a_refusal() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (parley, project) = runtime.block_on(async {
        let parley = Parley::start().await;
        let project = parley.as_user("ada").project().await;
        (parley, project)
    });
    let config = Config {
        cases: 500,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&any_body(), |body| {
        let answer = runtime.block_on(project.call("POST", "/messages", &body));
        match answer.status {
            200 | 201 => prop_assert_eq!(&answer.body["text"], &body["text"]),
            400 | 409 | 422 => answer.is_well_formed_refusal(),
            other => prop_assert!(false, "{other}"),
        }
        Ok(())
    });
    outcome.unwrap();
    let sent = runtime.block_on(project.history());
    assert!(sent.len() > 50, "some of them were messages");
    drop(parley);
}
