//! The rows of a send without Parley: `pgbench` on the same database, in projects of its own.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};

use super::place::Place;

const SCRIPT: &str = include_str!("send.sql");

/// Writes the rows of sends from so many connections, and returns how many sends a second were committed.
pub(super) async fn run(
    place: &Place,
    connections: usize,
    projects: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let script = place.folder().join("send.sql");
    fs::write(&script, SCRIPT)?;
    let mut command = place.cluster.postgres().client("pgbench")?;
    command.args(["--no-vacuum", "--protocol=prepared", "--jobs=2"]);
    command.arg(format!("--client={connections}")).arg(format!("--time={}", time.as_secs()));
    command.arg(format!("--define=projects={projects}")).arg(file(&script)?);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbench failed ({}): {wrong}", output.status);
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
    // On a busy machine a second may be over before all are connected.
    let is_none = said.lines().any(|line| line.ends_with("actually processed: 0"));
    let rate = rate.or(is_none.then_some("0"));
    rate.context("pgbench does not say how much it did")?.parse().context("pgbench's rate")
}

fn file(script: &Path) -> anyhow::Result<String> {
    Ok(format!("--file={}", script.to_str().context("the folder's name is not text")?))
}
