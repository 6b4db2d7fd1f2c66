//! A database and a data folder of an earlier version, opened by this one.

use std::{path::Path, process::Command};

use cluster::{Folder, Ports, Postgres};

use crate::whole::Whole;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
/// Longer than any fixture will be old.
const NEVER: &str = "36500d";
const AGES: [&str; 4] =
    ["JOURNAL_MAX_AGE", "PROC_JOB_MAX_AGE", "PROC_UPLOAD_MAX_AGE", "ANSWER_MAX_AGE"];

#[tokio::test]
async fn a_database_of_version_0_1_0_opens_with_everything_in_it() {
    let whole = Whole::start_filled(fill, |options| {
        options.keep = true;
        (options.ingress, options.proc) = (2, 1);
        options.settings.extend(AGES.map(|age| (age.into(), NEVER.into())));
        options.settings.push(("PROC_HTTP_BUNDLES_LOOPBACK".into(), "true".into()));
    })
    .await;
    for ingress in 0..2 {
        let base = whole.cluster.ingress_url(ingress);
        run("check.py", &["0.1.0", "postgres", &base, &whole.cluster.proc_url(0)], "");
    }
    let data = whole.cluster.folder().path().join("parley");
    let url = whole.cluster.postgres().url();
    run("find_secrets.py", &["0.1.0", "postgres", data.to_str().expect("text")], &url);
    whole.stop().await;
}

/// Loads the dump into the database of a cluster that has not started yet.
async fn fill(folder: &Path) {
    let folder = Folder::take(folder, false).expect("the folder is empty");
    let postgres = Postgres::plan(&folder, &mut Ports::default()).expect("PostgreSQL is installed");
    postgres.start().await.expect("PostgreSQL starts");
    let data = folder.make("parley").expect("the folder is ours");
    let data = data.to_str().expect("its name is text");
    run("restore.py", &["0.1.0", "postgres", data], &postgres.url());
    assert!(postgres.stop().await.expect("it runs").success(), "PostgreSQL stops well");
}

/// Runs a program of the fixtures, which fails with what it prints.
fn run(program: &str, arguments: &[&str], database: &str) {
    let program = Path::new(FIXTURES).join(program);
    let mut command = Command::new("python3");
    let output = command.arg(&program).args(arguments).env("DATABASE_URL", database).output();
    let output = output.expect("python3 is installed");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(output.status.success(), "{}: {printed}", program.display());
}
