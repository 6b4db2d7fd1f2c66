//! Clock skew: a process under `libfaketime` sees another time than its machine has.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;

/// Returns the environment of a process whose wall clock is `ahead` of its machine's. Its monotonic clock is right.
pub(crate) fn environment(ahead: Duration) -> anyhow::Result<[(String, String); 4]> {
    let library = library().context("libfaketime is not installed; `make setup` installs it")?;
    let library = library.to_str().context("the folder's name is not text")?;
    let settings = [
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME", format!("+{:.3}", ahead.as_secs_f64())),
        // Timers that wait for a moment of the monotonic clock would wait for the wrong one.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        // Times of files are the disk's, whose clock is nobody's.
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value)))
}

/// Finds the library for programs of several threads, which is in a folder of the machine's architecture.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}
