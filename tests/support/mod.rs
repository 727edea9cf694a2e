//! A running `mayfly dev` in a folder of its own, and commands beside it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test file uses what it needs"
)]

#[cfg(target_os = "linux")]
pub mod faults;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mayfly_agent::channel::{ChannelSettings, Trust, connect};
use mayfly_verify::TrustDomain;
use serde_json::Value;
use tonic::transport::Channel;

pub const BIN: &str = env!("CARGO_BIN_EXE_mayfly");

pub struct Dev {
    pub dir: tempfile::TempDir,
    pub endpoint: Value,
    child: Child,
}

impl Dev {
    pub fn start() -> Dev {
        Dev::start_in(tempfile::tempdir().unwrap())
    }

    pub fn start_in(dir: tempfile::TempDir) -> Dev {
        Dev::start_with(dir, &[])
    }

    pub fn start_with(dir: tempfile::TempDir, envs: &[(&str, &str)]) -> Dev {
        Dev::start_args(dir, &[], envs)
    }

    pub fn start_args(dir: tempfile::TempDir, args: &[&str], envs: &[(&str, &str)]) -> Dev {
        Dev::start_by(dir, args, envs, Stdio::inherit())
    }

    /// The end of a piped stderr is closed at once, so that nobody ever reads it.
    pub fn start_by(dir: tempfile::TempDir, args: &[&str], envs: &[(&str, &str)], stderr: Stdio) -> Dev {
        let (mut child, endpoint) = spawn_by(dir.path(), args, envs, stderr);
        drop(child.stderr.take());
        Dev { dir, endpoint, child }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.endpoint[name].as_str().unwrap_or_default().to_owned()
    }

    /// Runs a command line in the folder.
    pub fn run(&self, line: &str) -> Output {
        run_in(self.dir.path(), line)
    }

    /// Runs a command line that must succeed and print JSON.
    pub fn json(&self, line: &str) -> Value {
        let out = self.run(&format!("{line} -o json"));
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// Runs a command line that must fail with this code; its message.
    pub fn fails(&self, line: &str, code: i32) -> String {
        let out = self.run(line);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{line}: {text}");
        text
    }

    /// Writes an ID token of a development user into a file.
    pub fn token(&self, user: &str, file: &str) {
        let out = self.run(&format!("token {user}"));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::write(self.path(file), out.stdout).unwrap();
    }

    /// A file's text, without the end of its last line.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap().trim_end().to_owned()
    }

    /// Waits for the process to end by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn kill(mut self) -> tempfile::TempDir {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        // `Drop` finds it gone.
        let fresh = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.dir, fresh)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A channel to a development issuer: with the identity in a folder, or with none.
pub async fn channel(dev: &Dev, identity: Option<&str>) -> Channel {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let roots = mayfly::folder::certificates(&dev.path(".mayfly/workloads/orchestrator/bundle.pem")).unwrap();
    connect(ChannelSettings {
        address: dev.text("grpc"),
        trust_domain: TrustDomain::new("dev.mayfly.test").unwrap(),
        trust: Trust::Roots(roots),
        identity: identity.map(|dir| mayfly::folder::identity(&dev.path(dir)).unwrap()),
        connect_timeout: Duration::from_secs(10),
    })
    .await
    .unwrap()
}

/// Where `mayfly dev` keeps the workload that has joined.
pub const ORCHESTRATOR: &str = ".mayfly/workloads/orchestrator";

pub fn spawn(dir: &Path, args: &[&str], envs: &[(&str, &str)]) -> (Child, Value) {
    spawn_by(dir, args, envs, Stdio::inherit())
}

fn spawn_by(dir: &Path, args: &[&str], envs: &[(&str, &str)], stderr: Stdio) -> (Child, Value) {
    let mut child = Command::new(BIN)
        .args(["dev", "-o", "json"])
        .args(args)
        .current_dir(dir)
        .envs(envs.iter().copied())
        .env_remove("MAYFLY_HOME")
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let endpoint = serde_json::from_str(&line).unwrap_or_else(|e| panic!("`{line}`: {e}"));
    (child, endpoint)
}

pub fn run_in(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(BIN);
    // Who runs the tests may have chosen a place of their own.
    command.args(line.split_whitespace()).current_dir(dir).env_remove("MAYFLY_HOME").env("XDG_CONFIG_HOME", dir.join("config"));
    command.output().unwrap()
}

/// Every method of the API, and the roles that may call it.
pub fn table() -> Vec<(&'static str, &'static [mayfly::caller::Role])> {
    let roles = mayfly::judge::access::roles;
    mayfly::doors::grpc::METHODS.iter().map(|method| (method.name, roles(method.action))).collect()
}
