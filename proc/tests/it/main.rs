//! The program as a process of its own. What it does is tested where it runs with others.

use std::process::Command;

#[test]
fn it_does_not_start_without_a_database() {
    let output = Command::new(env!("CARGO_BIN_EXE_proc")).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("DATABASE_URL"), "{said}");
}
