//! The README works when pasted, and its table of settings is the program's.

use std::{fmt::Write, fs, os::unix::fs::symlink, path::Path, process::Command};

use clap::CommandFactory;

use crate::support::Parley;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The shell blocks of the tour, as one script.
fn tour(readme: &str) -> String {
    let (_, tour) = readme.split_once("## A five-minute tour").expect("the tour");
    let (tour, _) = tour.split_once("## Settings").expect("the settings");
    let blocks = tour.split("```sh\n").skip(1);
    blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect()
}

#[tokio::test]
async fn the_tour_can_be_pasted() {
    let parley = Parley::start_as_shipped().await;
    let folder = tempfile::tempdir().unwrap();
    symlink(root().join("proc"), folder.path().join("proc")).unwrap();
    let script = tour(&readme())
        .replace("http://127.0.0.1:8010", &parley.ingress)
        .replace("http://127.0.0.1:8020", &parley.proc);
    let (script, at) = (script.clone(), folder.path().to_owned());
    let run = move || Command::new("bash").args(["-eu", "-c", &script]).current_dir(at).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut rest = said.as_str();
    for expected in [
        r#""user":"ada""#,
        r#""type":"hello""#,
        r#""type":"message.created""#,
        "\"resumed\":true\n\"text\":\"number 2\"\n\"text\":\"number 3\"\n\"text\":\"number 4\"\n",
        "\"type\":\"job.snapshot\"\n\"type\":\"job.queued\"\n\"type\":\"job.started\"\n",
        "\"type\":\"job.succeeded\"\n",
        r#""imported":4106"#,
        r#""author_name":"ubotu""#,
    ] {
        let found = rest.find(expected);
        let from = found.unwrap_or_else(|| panic!("{expected} is missing in order, in:\n{said}"));
        rest = &rest[from + expected.len()..];
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Run with `PARLEY_REGENERATE=1` to write the table anew.
#[test]
fn the_table_of_settings_is_the_programs() {
    let mut table = String::from("\n| variable | default | meaning |\n| --- | --- | --- |\n");
    for argument in standalone::Config::command().get_arguments() {
        let Some(variable) = argument.get_env() else { continue };
        let default = argument.get_default_values().first();
        let default =
            default.map_or_else(String::new, |value| format!("`{}`", value.to_string_lossy()));
        let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let variable = variable.to_string_lossy();
        let _ = writeln!(table, "| `{variable}` | {default} | {meaning} |");
    }
    let readme = readme();
    let (before, rest) = readme.split_once("<!-- settings -->").unwrap();
    let (present, after) = rest.split_once("<!-- /settings -->").unwrap();
    if option_env!("PARLEY_REGENERATE").is_some() {
        let fresh = format!("{before}<!-- settings -->{table}<!-- /settings -->{after}");
        fs::write(root().join("README.md"), fresh).unwrap();
    } else {
        assert_eq!(present, table, "run `make settings`");
    }
}
