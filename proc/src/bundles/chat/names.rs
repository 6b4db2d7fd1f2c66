//! Turns Slack's names into names that chat allows.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use shared::ids::{ChannelName, UserId};

use crate::blobs::hex;

/// The longest name of a channel in characters.
const MAX_CHANNEL_CHARS: usize = 80;

/// Gives each of Slack's channels a valid name of its own. The same names in the same order give the same answer.
pub(super) fn channels<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> HashMap<String, ChannelName> {
    let mut given = HashMap::new();
    let mut taken = HashSet::new();
    for name in names {
        if given.contains_key(name) {
            continue;
        }
        let free = (1..).find_map(|number| {
            channel(name, number).filter(|candidate| !taken.contains(candidate))
        });
        if let Some(free) = free {
            taken.insert(free.clone());
            given.insert(name.to_owned(), free);
        }
    }
    given
}

/// Returns the `number`th choice for a name.
fn channel(name: &str, number: u32) -> Option<ChannelName> {
    let allowed = |c: char| c.to_string().parse::<ChannelName>().is_ok();
    let lowered = name.to_lowercase();
    let valid = lowered.chars().map(|c| if allowed(c) { c } else { '-' });
    let suffix = if number == 1 { String::new() } else { format!("-{number}") };
    let stem: String = valid.take(MAX_CHANNEL_CHARS - suffix.len()).collect();
    let stem = if stem.is_empty() { "channel".into() } else { stem };
    format!("{stem}{suffix}").parse().ok()
}

/// Returns the id of a Slack user or bot here. A bot that Slack knows by a bare name only, which may hold anything, gets
/// an id made from the name.
pub(super) fn author(id: &str) -> String {
    let plain = format!("slack:{id}");
    if plain.parse::<UserId>().is_ok() {
        return plain;
    }
    format!("slack:name-{}", &hex(&Sha256::digest(id))[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_get_valid_names_of_their_own() {
        let long = "x".repeat(200);
        let names = ["general", "General", "A, B/c", "", " ", &long, "Über", "general-2"];
        let given = channels(names);
        let name = |from: &str| given[from].as_str().to_owned();
        assert_eq!(name("general"), "general");
        assert_eq!(name("General"), "general-2");
        assert_eq!(name("general-2"), "general-2-2");
        assert_eq!(name("A, B/c"), "a--b-c");
        assert_eq!(name(""), "channel");
        assert_eq!(name(" "), "-");
        assert_eq!(name(&long).len(), 80);
        assert_eq!(name("Über"), "über");
        assert_eq!(given.values().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn authors_always_have_a_valid_id() {
        assert_eq!(author("U0055C244"), "slack:U0055C244");
        for name in ["git hub", "ボット", &"x".repeat(300)] {
            let id = author(name);
            assert!(id.parse::<UserId>().is_ok(), "{id}");
            assert_eq!(id, author(name));
        }
        assert_ne!(author("a b"), author("a c"));
    }
}
