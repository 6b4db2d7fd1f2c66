//! Data that fits into a frame: one line, and no longer than every reader takes.

use std::{borrow::Cow, fmt::Write};

use serde_json::{Map, Value};

/// The longest frame in bytes: widespread readers give up at 64 KiB.
pub(crate) const MAX_FRAME_BYTES: usize = 64_000;
/// The longest data of a frame: besides it there are the event's name and the `id:`.
pub(crate) const MAX_DATA_BYTES: usize = MAX_FRAME_BYTES - 300;

/// Users of a kind of reaction that an event shows, fewer where it would be too long.
const SHOWN_USERS: [usize; 3] = [10, 3, 0];
/// Lengths to which texts are shortened, in characters, until the event fits.
const SHOWN_CHARS: [usize; 4] = [8_000, 1_000, 200, 40];

/// Returns the JSON as one line that fits into a frame. Data that is too long loses parts, says `"truncated": true`, and
/// the routes of the resource have the whole: routes refuse texts that would be too long, so this is for results of jobs,
/// for messages with many reactions, and for entries of an earlier version.
pub(super) fn fit(json: &str) -> Cow<'_, str> {
    let line = one_line(json);
    if line.len() <= MAX_DATA_BYTES { line } else { shortened(&line).into() }
}

/// Returns how long a text is as JSON in a frame.
pub(crate) fn json_bytes(text: &str) -> Result<usize, serde_json::Error> {
    Ok(one_line(&serde_json::to_string(text)?).len())
}

fn shortened(json: &str) -> String {
    let Ok(Value::Object(mut event)) = serde_json::from_str(json) else { return "{}".into() };
    event.insert("truncated".into(), true.into());
    for users in SHOWN_USERS {
        show_users(&mut event, users);
        if let Some(line) = fitting(&event) {
            return line;
        }
    }
    for drop in [drop_results, drop_metadata, drop_reactions] {
        drop(&mut event);
        if let Some(line) = fitting(&event) {
            return line;
        }
    }
    for chars in SHOWN_CHARS {
        event.values_mut().for_each(|value| show_chars(value, chars));
        if let Some(line) = fitting(&event) {
            return line;
        }
    }
    // Not of our making: lists without an end.
    event.retain(|_, value| !value.is_array() && !value.is_object());
    fitting(&event).unwrap_or_else(|| "{}".into())
}

/// Returns the event as a line, if it fits.
fn fitting(event: &Map<String, Value>) -> Option<String> {
    let json = serde_json::to_string(event).ok()?;
    let line = one_line(&json);
    (line.len() <= MAX_DATA_BYTES).then(|| line.into_owned())
}

fn drop_results(event: &mut Map<String, Value>) {
    let jobs = event.get_mut("jobs").and_then(Value::as_array_mut).map(|jobs| jobs.iter_mut());
    for job in jobs.into_iter().flatten() {
        null(job, "result");
    }
    if let Some(job) = event.get_mut("job") {
        null(job, "result");
    }
}

fn drop_metadata(event: &mut Map<String, Value>) {
    if let Some(message) = event.get_mut("message") {
        null(message, "metadata");
    }
}

fn drop_reactions(event: &mut Map<String, Value>) {
    if let Some(reactions) = event.get_mut("message").and_then(|it| it.get_mut("reactions")) {
        *reactions = Value::Array(Vec::new());
    }
}

fn null(resource: &mut Value, field: &str) {
    if let Some(value) = resource.get_mut(field) {
        *value = Value::Null;
    }
}

fn show_users(event: &mut Map<String, Value>, most: usize) {
    let message = event.get_mut("message").and_then(|message| message.get_mut("reactions"));
    for reaction in message.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(users) = reaction.get_mut("users").and_then(Value::as_array_mut) {
            users.truncate(most);
        }
    }
}

fn show_chars(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(most) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| show_chars(value, most)),
        Value::Object(fields) => fields.values_mut().for_each(|value| show_chars(value, most)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// JSON has no line ends of its own here; these are line ends to some readers and legal inside strings.
pub(crate) fn one_line(json: &str) -> Cow<'_, str> {
    let breaks = |c: char| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\r' | '\n');
    if !json.contains(breaks) {
        return json.into();
    }
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '\r' | '\n' => line.push(' '),
            c if breaks(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fitted(event: &Value) -> Value {
        let json = event.to_string();
        let line = fit(&json);
        assert!(line.len() <= MAX_DATA_BYTES, "{}", line.len());
        assert!(!line.contains(['\n', '\u{85}', '\u{2028}']), "one line");
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let event = json!({"type": "message.created", "message": {"text": "x".repeat(63_000)}});
        assert_eq!(fitted(&event), event);
    }

    #[test]
    fn a_result_that_is_too_long_is_left_out_and_the_job_stays() {
        let job = json!({"id": "1", "state": "succeeded", "result": "x".repeat(65_000)});
        let shown = fitted(&json!({"type": "job.succeeded", "job": job}));
        let job = json!({"id": "1", "state": "succeeded", "result": null});
        assert_eq!(shown, json!({"type": "job.succeeded", "job": job, "truncated": true}));
    }

    #[test]
    fn of_many_reactions_few_users_are_shown_and_the_text_stays() {
        let user = "u".repeat(128);
        let kind = json!({"emoji": "x", "users": vec![user; 200], "count": 200});
        let text = "x".repeat(57_000);
        let message = json!({"text": text, "metadata": {"a": 1}, "reactions": vec![kind; 50]});
        let shown = fitted(&json!({"type": "message.updated", "message": message}));
        assert_eq!(shown["message"]["text"], text);
        let reactions = shown["message"]["reactions"].as_array().unwrap();
        assert!(reactions.len() == 50 && reactions.iter().all(|kind| kind["count"] == 200));
    }

    #[test]
    fn anything_fits_in_the_end() {
        for event in [
            json!({"type": "message.created", "message": {"text": "\u{2028}".repeat(32_000)}}),
            json!({"type": "history.imported", "channels": vec!["channel"; 20_000]}),
            json!({"type": "x", "a": {"b": vec![json!({"c": "d".repeat(50)}); 5_000]}}),
        ] {
            let shown = fitted(&event);
            assert_eq!((&shown["type"], &shown["truncated"]), (&event["type"], &json!(true)));
        }
    }
}
