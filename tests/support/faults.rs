//! A library that is loaded before the system's and fails, or waits, on command. The compiler is the one that the build needs
//! anyway.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Dev;

pub struct Faults {
    dir: tempfile::TempDir,
    library: PathBuf,
}

impl Faults {
    pub fn new() -> Faults {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
        assert!(built.unwrap().success(), "cc");
        Faults { dir, library }
    }

    pub fn start(&self, home: tempfile::TempDir) -> Dev {
        self.start_args(home, &[])
    }

    pub fn start_args(&self, home: tempfile::TempDir, args: &[&str]) -> Dev {
        let (library, dir) = (self.library.to_str().unwrap(), self.dir.path().to_str().unwrap());
        Dev::start_args(home, args, &[("LD_PRELOAD", library), ("MAYFLY_FAULTS", dir)])
    }

    pub fn set(&self, what: &str, on: bool) {
        let flag = self.dir.path().join(what);
        if on { std::fs::write(flag, "").unwrap() } else { std::fs::remove_file(flag).unwrap() }
    }

    /// The same as [`Faults::start_args`], with a stderr that nobody reads.
    pub fn start_unheard(&self, home: tempfile::TempDir, args: &[&str]) -> Dev {
        let (library, dir) = (self.library.to_str().unwrap(), self.dir.path().to_str().unwrap());
        Dev::start_by(home, args, &[("LD_PRELOAD", library), ("MAYFLY_FAULTS", dir)], Stdio::piped())
    }

    /// Makes each sync of the journal take so much longer.
    pub fn slow(&self, by: std::time::Duration) {
        self.say("slow", &by.as_millis().to_string());
    }

    /// Sets the process's clock ahead by so many seconds, or back.
    pub fn clock(&self, ahead: i64) {
        self.say("clock", &ahead.to_string());
    }

    fn say(&self, what: &str, text: &str) {
        let (fresh, flag) = (self.dir.path().join("new"), self.dir.path().join(what));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, flag).unwrap();
    }

    pub fn is_set(&self, what: &str) -> bool {
        self.dir.path().join(what).exists()
    }
}
