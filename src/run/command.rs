//! Runs the command: starts it, forwards our signals to it, waits for it, and passes the terminal to it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_process, kill_process_group, wait};
use rustix::stdio::stdin;
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::group::Group;
use super::tree::Tree;
use super::{LOOKS, PAUSE};

/// Signals that are forwarded to the command. This process ends when the command does.
const PASSED: [Signal; 8] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::WINCH];

/// How often a process in the background looks whether it was brought to the front of the terminal that its command waits for.
const FRONT: Duration = Duration::from_millis(200);

/// An event while the command runs.
#[derive(Debug)]
pub enum Event {
    /// The command has ended, with this exit code.
    Ended(u8),
    /// We received a signal that is meant for the command.
    Signal(Signal),
}

/// Why the command could not be run.
#[derive(Debug)]
pub struct NotRun {
    /// Our exit code: 127 if there is no such program, 126 if it cannot be run, 1 for anything else.
    pub code: u8,
    /// The error message.
    pub message: String,
}

impl From<String> for NotRun {
    fn from(message: String) -> NotRun {
        NotRun { code: 1, message }
    }
}

/// A running command, in a process group of its own, and in the foreground of the terminal if we were.
pub struct Running {
    pid: Pid,
    tree: Tree,
    signals: mpsc::Receiver<Signal>,
    children: tokio::signal::unix::Signal,
    continued: tokio::signal::unix::Signal,
    terminal: bool,
    /// Whether the command was stopped in the background of the terminal.
    waits: bool,
    ended: Option<u8>,
}

impl Running {
    /// Starts it, in a control group of its own if the system allows one. Its environment is ours with the changes in `env`, where
    /// `None` removes a variable.
    pub fn start(command: &[OsString], env: &[(&str, Option<String>)], user: Option<(u32, u32)>) -> Result<Running, NotRun> {
        let ours = |message: &dyn ToString| NotRun { code: 1, message: message.to_string() };
        let (program, arguments) = command.split_first().ok_or_else(|| ours(&"give a command to run"))?;
        // ORDER: before the command starts, so that no signal and no exit is missed.
        let children = signal(SignalKind::child()).map_err(|e| ours(&e))?;
        let continued = signal(SignalKind::from_raw(Signal::CONT.as_raw())).map_err(|e| ours(&e))?;
        let signals = listen().map_err(|e| ours(&e))?;
        let terminal = in_foreground();
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        for (name, value) in env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some((uid, gid)) = user {
            // As root, this also drops all other groups.
            command.uid(uid).gid(gid);
        }
        let (child, group) = started(&mut command, Group::new())?;
        let child = child.map_err(|e| NotRun {
            // The exit codes that shells use.
            code: if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 },
            message: format!("cannot run `{}`: {e}", program.display()),
        })?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| ours(&"the command has no process id"))?;
        let running =
            Running { pid, tree: Tree::here().within(group), signals, children, continued, terminal, waits: false, ended: None };
        running.give_terminal();
        Ok(running)
    }

    /// The process tree of the command.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(code) = self.reap() {
                return Event::Ended(code);
            }
            tokio::select! {
                _ = self.children.recv() => {}
                _ = self.continued.recv() => self.resume(),
                // A shell's `fg` of a job that runs says nothing: only the terminal tells that we are in front.
                () = tokio::time::sleep(FRONT), if self.waits => if in_foreground() { self.resume() },
                Some(signal) = self.signals.recv() => return Event::Signal(signal),
            }
        }
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: Signal) {
        // Its process id cannot be reused before it is reaped, and only this process reaps it.
        if self.ended.is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Reaps the rest of the tree while another task stops it.
    pub async fn until_all_gone(&mut self, mut stopping: JoinHandle<()>) {
        loop {
            self.reap();
            tokio::select! {
                _ = self.children.recv() => {}
                _ = &mut stopping => break,
            }
        }
        self.reap();
    }

    /// Reaps every child that has ended, including orphans. Returns the command's exit code once it has ended.
    fn reap(&mut self) -> Option<u8> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            if pid != self.pid {
                continue;
            }
            if status.stopped() {
                self.pause();
            } else {
                self.ended = Some(exit_code(status));
                self.take_terminal();
            }
        }
        self.ended
    }

    fn give_terminal(&self) {
        if self.terminal {
            at_terminal(self.pid);
            // It may have been stopped for reading from the terminal before it was in the foreground.
            let _ = kill_process_group(self.pid, Signal::CONT);
        }
    }

    fn take_terminal(&self) {
        if self.terminal {
            at_terminal(getpgrp());
        }
    }

    /// The command was stopped. By Ctrl-Z this process stops too, so that the shell sees it, and the shell's `fg` or `bg` continues
    /// both. In the background, where a command that uses the terminal is stopped, this process goes on: it looks after the identity.
    fn pause(&mut self) {
        if self.terminal {
            self.take_terminal();
            let _ = kill_process(getpid(), Signal::STOP);
            self.resume();
        } else {
            self.waits = isatty(stdin());
        }
    }

    /// We were continued: by `fg`, which has brought us to the foreground of the terminal, or by `bg`.
    fn resume(&mut self) {
        self.waits = false;
        self.terminal = in_foreground() || (self.terminal && tcgetpgrp(stdin()).is_ok_and(|group| group == self.pid));
        self.give_terminal();
        if !self.terminal && isatty(stdin()) {
            let _ = kill_process_group(self.pid, Signal::CONT);
        }
    }
}

/// Whether our process group is in the foreground of the terminal that we read from.
fn in_foreground() -> bool {
    isatty(stdin()) && tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp())
}

/// Starts the command and returns its process and its control group.
fn started(command: &mut Command, group: Result<Group, String>) -> Result<(io::Result<Child>, Option<Arc<Group>>), NotRun> {
    let tried = group.and_then(|group| match group.inside(|| command.spawn()) {
        Ok(done) => Ok((done, group)),
        Err(e) => Err(e.to_string()),
    });
    match tried {
        Ok(((child, Ok(())), group)) => Ok((child, Some(Arc::new(group)))),
        Ok(((child, Err(e)), group)) => {
            let tree = Tree::here().within(Some(Arc::new(group)));
            for _ in 0..LOOKS {
                if tree.signal(Signal::KILL) == 0 {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            let _ = child.and_then(|mut child| child.wait());
            Err(format!("cannot leave the command's control group: {e}").into())
        }
        Err(why) => {
            tracing::debug!(%why, "no control group");
            Ok((command.spawn(), None))
        }
    }
}

/// Brings a process group to the foreground. A process in the background is stopped for this, unless the signal is blocked.
fn at_terminal(group: Pid) {
    let mut blocked = SigSet::empty();
    blocked.add(NixSignal::SIGTTOU);
    let was = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let _ = tcsetpgrp(stdin(), group);
    if let Ok(was) = was {
        let _ = was.thread_set_mask();
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(1)
}

fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (told, signals) = mpsc::channel(16);
    // T318: what was ignored when we started, as by `nohup`, stays ignored, by the command too.
    let ignored = ignored();
    for passed in PASSED.into_iter().filter(|signal| ignored & (1 << (signal.as_raw() - 1)) == 0) {
        let mut stream = signal(SignalKind::from_raw(passed.as_raw()))?;
        let told = told.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if told.send(passed).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(signals)
}

/// The signals that this process ignores, as a set of bits; none if the system does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}
