//! Turns Slack's names into names that chat allows.

use sha2::{Digest, Sha256};
use shared::ids::UserId;

use crate::blobs::hex;

/// The longest name of a folder: what most file systems take.
const MAX_FOLDER_BYTES: usize = 200;
/// How the folder's name begins where the channel's is none for a folder.
const MADE_FOLDER: &str = "channel-";
/// How the ids of imported people begin.
const SOURCE: &str = "slack:";
/// How the ids of logins begin in an export; no id here may hold it.
const LOGIN: char = '~';

/// Returns the id of a Slack user or bot here. A bot that Slack knows by a bare name only, which may hold anything, gets
/// an id made from the name.
pub(super) fn author(id: &str) -> String {
    let plain = format!("{SOURCE}{id}");
    if plain.parse::<UserId>().is_ok() {
        return plain;
    }
    format!("slack:name-{}", &hex(&Sha256::digest(id))[..16])
}

/// Returns the id that a user has in an export: an imported one has the id that it came with. A login's begins with a
/// character that no imported id here can have, so that nobody who names people in an archive can become one with a login
/// in a later export.
pub(super) fn exported(user: &str) -> String {
    match user.strip_prefix(SOURCE) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("{LOGIN}{user}"),
    }
}

/// Says whether a user of an export has a login where it was made.
pub(super) fn is_login(exported: &str) -> bool {
    exported.starts_with(LOGIN)
}

/// Returns the name that a channel has in an export, where it is a folder's too: its own if that is safe on any system,
/// else one made from it. No two channels have the same.
pub(super) fn folder(channel: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let stem = channel.split('.').next().unwrap_or_default();
    let device = ["con", "prn", "aux", "nul"].contains(&stem)
        || (stem.len() == 4 && (stem.starts_with("com") || stem.starts_with("lpt")));
    let dotted = channel.starts_with('.') || channel.ends_with('.');
    // Lists lie beside the folders.
    let made = channel.starts_with(MADE_FOLDER) || channel.rsplit('.').next() == Some("json");
    if !channel.is_empty()
        && channel.chars().all(plain)
        && channel.len() <= MAX_FOLDER_BYTES
        && !(device || dotted || made)
    {
        return channel.to_owned();
    }
    format!("{MADE_FOLDER}{}", &hex(&Sha256::digest(channel))[..32])
}

/// Returns the id that a channel has in an export.
pub(super) fn channel_id(channel: &str) -> String {
    format!("C{}", hex(&Sha256::digest(channel))[..16].to_uppercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn a_folder_is_safe_wherever_the_archive_is_unpacked() {
        for name in ["general", "über-uns", "release-1.0", "日本"] {
            assert_eq!(folder(name), name);
        }
        let long = "語".repeat(80);
        for name in [
            "..",
            ".",
            ".git",
            "a.",
            "a\\b",
            "c:",
            "*",
            "con",
            "nul.txt",
            "com1",
            "channel-x",
            "$(x)",
            &long,
        ] {
            let folder = folder(name);
            assert!(folder.starts_with("channel-") && folder.len() == 40, "{name}: {folder}");
        }
    }

    #[test]
    fn no_import_makes_an_author_who_is_a_login_in_the_next_export() {
        let (login, imported) = (exported("ada"), exported("slack:ada"));
        assert_eq!((login.as_str(), imported.as_str()), ("~ada", "ada"));
        for id in [&login, &imported, "slack:", "~", "~~ada"] {
            let here = author(id);
            assert!(here.starts_with("slack:"), "{id}: {here}");
            assert!(!is_login(&exported(&here)), "{id}: {here}");
        }
    }

    proptest! {
        #[test]
        fn ids_that_came_in_go_out_and_come_in_as_they_are(id in "[A-Za-z0-9._@|:+-]{1,120}") {
            prop_assert_eq!(exported(&author(&id)), id);
        }

        #[test]
        fn different_channels_have_different_folders(a in "[a-c.:-]{1,4}", b in "[a-c.:-]{1,4}") {
            prop_assert_eq!(folder(&a) == folder(&b), a == b);
            prop_assert_eq!(folder(&folder(&a)) == folder(&a), !folder(&a).starts_with("channel-"));
        }
    }
}
