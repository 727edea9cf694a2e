//! Running the load tester, with the issuer from beside it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses what it needs")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_mayfly-loadtest");

pub fn binary() -> PathBuf {
    let binary = Path::new(LOADTEST).with_file_name("mayfly");
    if !binary.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "-p", "mayfly", "--bin", "mayfly", "--locked"]).status();
        assert!(built.is_ok_and(|status| status.success()), "the issuer does not build");
    }
    binary
}

/// What it said, and left in `r.json` and `r.html` of the folder.
pub fn run(scenario: &str, dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(LOADTEST);
    command.args([scenario, "--json", "r.json", "--html", "r.html", "--duration", "1.5", "--concurrency", "8"]);
    command.args(more).arg("--mayfly").arg(binary()).current_dir(dir).output().unwrap()
}

/// Its report.
pub fn loadtest(scenario: &str, dir: &Path, more: &[&str]) -> Value {
    let done = run(scenario, dir, more);
    assert!(done.status.success(), "{scenario}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&std::fs::read(dir.join("r.json")).unwrap()).unwrap()
}
