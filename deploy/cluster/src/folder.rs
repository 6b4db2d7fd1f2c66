//! The folder that has everything: data, logs, secrets, and the mark of who is using it.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use rand::distr::{Alphanumeric, SampleString};

/// Names the process that uses the folder, which holds a lock on it as long as it does.
const MARK: &str = "cluster.pid";
const SECRET_CHARS: usize = 43;

/// A folder that is ours alone until dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, which is made if it is not there. What an earlier cluster left in it goes, unless `keep`.
    pub fn take(path: &Path, keep: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("failed to make {}", path.display()))?;
        let path = path.canonicalize()?;
        let mark = path.join(MARK);
        ensure!(
            mark.exists() || fs::read_dir(&path)?.next().is_none(),
            "{} has something in it that no cluster made",
            path.display()
        );
        let lock = File::options().create(true).truncate(false).read(true).write(true).open(&mark);
        let mut lock = lock.with_context(|| format!("failed to open {}", mark.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("a cluster is running in {}", path.display()),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if !keep {
            empty(&path)?;
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }

    /// Returns who uses the folder, `None` if nobody does.
    pub fn user(path: &Path) -> anyhow::Result<Option<i32>> {
        let Ok(mut mark) = File::options().read(true).write(true).open(path.join(MARK)) else {
            return Ok(None);
        };
        if mark.try_lock().is_ok() {
            return Ok(None);
        }
        let mut pid = String::new();
        mark.read_to_string(&mut pid)?;
        Ok(Some(pid.trim().parse().context("the mark of the cluster cannot be read")?))
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a folder in it, open to every user, and returns its path.
    pub fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Returns the secret of that name, a new one if there is none.
    pub(crate) fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        if let Ok(secret) = fs::read_to_string(&path) {
            return Ok(secret);
        }
        let secret = Alphanumeric.sample_string(&mut rand::rng(), SECRET_CHARS);
        write_private(&path, &secret)?;
        Ok(secret)
    }
}

/// Writes a file that nobody else may read.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    Ok(file?.write_all(text.as_bytes())?)
}

fn empty(path: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
