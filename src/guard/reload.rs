//! Runs the command that makes a server read its files again, within a time limit.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often the command is polled.
const LOOK: Duration = Duration::from_millis(20);

/// Why the server may not have read its files again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The shell cannot be started, or not waited for.
    #[error("the reload command cannot be run: {0}")]
    Io(#[from] std::io::Error),
    /// The command exited with an error.
    #[error("the reload command failed: {0}")]
    Failed(ExitStatus),
    /// It took too long.
    #[error("the reload command took longer than {0:?}, and was stopped")]
    Slow(Duration),
    /// The guard is stopped.
    #[error("the reload command was stopped with the guard")]
    Stopped,
}

/// Runs a line of the shell, with `MAYFLY_CRL` set to `file`, for at most `patience` and until `stop` is set. Its standard output
/// is discarded, and its standard error is that of this process. Processes that it leaves in the background when it ends by itself
/// are not stopped. Blocks: not for async code.
pub(super) fn reload(line: &str, file: &OsStr, patience: Duration, stop: &AtomicBool) -> Result<(), ReloadError> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).env("MAYFLY_CRL", file).stdin(Stdio::null()).stdout(Stdio::null());
    // It has a process group of its own, so that all of its processes can be stopped, and Ctrl-C reaches the guard alone.
    let mut child = command.process_group(0).spawn()?;
    let until = Instant::now() + patience;
    loop {
        let looked = child.try_wait();
        match looked {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(ReloadError::Failed(status)),
            Ok(None) if stop.load(Ordering::Relaxed) => {
                end(&mut child);
                return Err(ReloadError::Stopped);
            }
            Ok(None) if Instant::now() >= until => {
                end(&mut child);
                return Err(ReloadError::Slow(patience));
            }
            Ok(None) => std::thread::sleep(LOOK),
            Err(e) => {
                end(&mut child);
                return Err(e.into());
            }
        }
    }
}

fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::path::{Path, PathBuf};

    use super::*;

    fn run(line: &str, patience: u64) -> Result<(), ReloadError> {
        reload(line, OsStr::new("/x/crl.pem"), Duration::from_millis(patience), &AtomicBool::new(false))
    }

    /// A command that hangs together with a child of its own, and the file that gets the pid of that child.
    fn hanging(dir: &Path) -> (String, PathBuf) {
        let mark = dir.join("pid");
        // The rename makes the file appear with its full content.
        (format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", mark.display()), mark)
    }

    fn assert_gone(mark: &Path) {
        let pid: i32 = std::fs::read_to_string(mark).unwrap().trim().parse().unwrap();
        // Its new parent may take a moment to reap it.
        let gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..500 {
            if gone() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the child of the command runs on");
    }

    #[test]
    fn t206_a_command_that_fails_or_is_not_there_is_told() {
        assert!(run("test \"$MAYFLY_CRL\" = /x/crl.pem", 600_000).is_ok());
        assert!(matches!(run("exit 3", 600_000), Err(ReloadError::Failed(status)) if status.code() == Some(3)));
        assert!(matches!(run("/no/such/command 2>&1", 600_000), Err(ReloadError::Failed(status)) if status.code() == Some(127)));
        assert!(matches!(run("kill -9 $$", 600_000), Err(ReloadError::Failed(status)) if status.code().is_none()));
    }

    #[test]
    fn t206_a_command_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let (line, mark) = hanging(dir.path());
        // On a slow machine the command may not have started its child yet.
        let patience = (0..).map(|n| 250 << n).find(|patience| {
            assert!(matches!(run(&line, *patience), Err(ReloadError::Slow(_))));
            mark.exists()
        });
        assert!(patience.is_some());
        assert_gone(&mark);
    }

    #[test]
    fn t206_a_command_ends_with_the_guard() {
        let dir = tempfile::tempdir().unwrap();
        let (line, mark) = hanging(dir.path());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| reload(&line, OsStr::new("x"), Duration::from_secs(600), &stop));
            while !mark.exists() {
                std::thread::sleep(LOOK);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(matches!(running.join().unwrap(), Err(ReloadError::Stopped)));
        });
        assert_gone(&mark);
    }
}
