//! Files that only the process's own user may read.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use rustix::{fs::Mode, process::umask};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Takes all rights of groups and others from the files and folders that the process makes from now on: database, write-ahead
/// log, blobs, search index.
pub fn restrict_new_files() {
    umask(Mode::from_raw_mode(0o077));
}

/// Makes a folder that its owner alone may enter. One that is there already and lets others in is narrowed; where that is
/// not allowed, as on a volume that somebody else owns, a warning is logged.
pub fn private_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    narrow(folder, FOLDER_MODE);
    Ok(())
}

/// Narrows a file of an earlier version, if it is there.
pub fn private_file(file: &Path) {
    narrow(file, FILE_MODE);
}

fn narrow(path: &Path, mode: u32) {
    let narrowed = fs::metadata(path).and_then(|found| {
        let is_wide = found.permissions().mode() & 0o077 != 0;
        if is_wide { fs::set_permissions(path, Permissions::from_mode(mode)) } else { Ok(()) }
    });
    match narrowed {
        Err(error) if error.kind() != ErrorKind::NotFound => tracing::warn!(
            %error, path = %path.display(),
            "others on this machine may read the data: failed to set the mode to {mode:o}"
        ),
        _ => {}
    }
}
