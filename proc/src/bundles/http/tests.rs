//! Schemas that others write.

use serde_json::{Value, json};

use super::*;

fn ready(input: &Value) -> Result<jsonschema::Validator, String> {
    let manifest = json!({"name": "o", "description": "d", "role": "viewer", "timeout_seconds": 1, "input": input});
    validator(&serde_json::from_value(manifest).unwrap())
}

#[test]
fn a_schema_that_asks_for_what_is_elsewhere_or_is_none_is_refused() {
    for schema in [
        json!({"type": "object", "$ref": "https://example.org/schema.json"}),
        json!({"type": "object", "$ref": "file:///etc/passwd"}),
        json!({"type": "object", "properties": {"a": {"$ref": "other.json"}}}),
        json!({"type": "object", "properties": {"a": {"pattern": "(a)\\1"}}}),
        json!({"type": "object", "properties": {"a": {"type": "nonsense"}}}),
        json!({"type": "object", "required": 1}),
        json!({"type": "string"}),
        json!({}),
        json!(true),
        json!(null),
    ] {
        assert!(ready(&schema).is_err(), "{schema}");
    }
}

#[test]
fn a_schema_takes_no_time_and_no_stack_of_the_server() {
    let evil = json!({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}});
    let text = format!("{}b", "a".repeat(50_000));
    assert!(!ready(&evil).unwrap().is_valid(&json!({"a": text})));
    for endless in [
        json!({"type": "object", "$ref": "#"}),
        json!({"type": "object", "allOf": [{"$ref": "#"}]}),
        json!({"type": "object", "$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        if let Ok(validator) = ready(&endless) {
            let _ = validator.is_valid(&json!({"a": 1}));
            let _ = validator.validate(&json!({"a": 1})).is_ok();
        }
    }
}
