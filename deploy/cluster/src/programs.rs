//! Where programs are, and how a child is started so that it ends with us.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::Context;
use rustix::process::{Signal, geteuid};

/// Builds the workspace's programs, for tests to start them. Whatever tests of the whole workspace have built is not built
/// again.
///
/// # Panics
/// If that is not possible.
pub fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(["build", "--locked", "--workspace", "--all-targets"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let output = cargo.output().expect("cargo is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

/// Finds a program in `PATH` and where Debian puts what is not in everybody's.
pub(crate) fn find(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.chain(postgres_folders()).map(|folder| folder.join(name));
    let mut found = found.filter(|program| program.is_file());
    found.next().with_context(|| format!("{name} is not installed; `make setup` installs it"))
}

/// Finds a program of the newest `PostgreSQL`; those in `PATH` may be wrappers.
pub(crate) fn find_postgres(name: &str) -> anyhow::Result<PathBuf> {
    let newest = postgres_folders().into_iter().map(|folder| folder.join(name));
    newest.into_iter().find(|program| program.is_file()).map_or_else(|| find(name), Ok)
}

fn postgres_folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path()).collect();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    versions.into_iter().map(|version| version.join("bin")).collect()
}

/// Says whether we may be any user.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Begins a command that runs as `user`, if that is given, and with `last` as its signal when this process is gone.
pub(crate) fn command(
    program: &Path,
    user: Option<&str>,
    last: Option<Signal>,
) -> anyhow::Result<Command> {
    // It sets both and then becomes the program, so the child is ours like any other.
    let Ok(setpriv) = find("setpriv") else {
        anyhow::ensure!(user.is_none(), "setpriv (of util-linux) is not installed");
        return Ok(Command::new(program));
    };
    let mut command = Command::new(setpriv);
    if let Some(user) = user {
        command.arg("--reuid").arg(user).arg("--regid").arg(user).arg("--init-groups");
    }
    if let Some(last) = last {
        command.arg("--pdeathsig").arg(name(last));
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// It knows signals by their names alone.
fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "TERM",
        Signal::QUIT => "QUIT",
        _ => "KILL",
    }
}
