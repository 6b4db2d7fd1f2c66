//! The table of `docs/search.md` is true.

use std::collections::HashMap;

use serde_json::json;

use super::{ask, has_documents};
use crate::support::{Parley, text};

const PAGE: &str = include_str!("../../../../../docs/search.md");

/// A row: a message, a question, and whether the question finds the message.
struct Row {
    message: String,
    question: String,
    is_found: bool,
}

/// Returns a cell's text without its backticks, with the characters that are written as `\u{…}`.
fn unescaped(cell: &str) -> String {
    let cell = cell.trim().trim_matches('`');
    let mut parts = cell.split("\\u{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').expect("a closing brace");
        let char = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        text.push(char.expect("a character"));
        text.push_str(rest);
    }
    text
}

fn rows() -> Vec<Row> {
    let table = PAGE.split("| message | question | found |").nth(1).expect("the table");
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [message, question, found] = cells[..] else { panic!("a row has three cells: {line}") };
        let is_found = found.trim().starts_with("yes");
        assert!(is_found || found.trim().starts_with("no"), "yes or no: {line}");
        Row { message: unescaped(message), question: unescaped(question), is_found }
    };
    lines.map(row).collect()
}

#[tokio::test]
async fn the_table_of_what_is_found_is_true() {
    let rows = rows();
    assert!(rows.len() > 80, "rows of the table: {}", rows.len());
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let mut ids = HashMap::new();
    for Row { message, .. } in &rows {
        if !ids.contains_key(message) {
            ids.insert(message.clone(), text(&project.send(message).await["id"]));
        }
    }
    has_documents(&parley, ids.len().try_into().expect("a number")).await;
    let mut wrong = Vec::new();
    for Row { message, question, is_found } in &rows {
        let found = ask(&project, &[("q", question), ("limit", "50")]).await.is(200);
        let hits = found["messages"].as_array().expect("a list");
        let hit = hits.iter().find(|hit| hit["id"] == json!(ids[message]));
        if hit.is_some() != *is_found {
            wrong.push(format!("{message} | {question}: found is {}", !is_found));
        }
        let marks = hit.map_or(1, |hit| hit["highlights"].as_array().map_or(0, Vec::len));
        if marks == 0 && !question.starts_with("from:") {
            wrong.push(format!("{message} | {question}: nothing is highlighted"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
