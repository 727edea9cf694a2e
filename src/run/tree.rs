//! The process tree below this process: which processes belong to it, and how it is stopped.
//!
//! This process is the subreaper of the tree: an orphan in it becomes our child, even a daemon with its own session. So a process
//! belongs to the tree exactly while we are its ancestor. If the tree has a control group ([`Group`]), the process must also be
//! in that group.
//!
//! A nested `mayfly run` has a tree of its own, and keeps it after it was killed and we have inherited its processes. To tell
//! trees apart, each run lowers its hard limit RLIMIT_RTTIME to one below what it inherited: its descendants inherit the limit,
//! and no unprivileged process can raise it. No process ever reaches it.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid, getrlimit, kill_process, pidfd_open,
    pidfd_send_signal, setrlimit, waitid,
};
use tokio::net::UnixStream;

use super::group::Group;

/// The mark of a run that is not nested, in microseconds: more than a hundred thousand years.
const FIRST: u64 = 1 << 62;
/// Most generations of parents that are followed.
const DEEPEST: usize = 256;
/// Number of attempts to read a chain of parents, which may change meanwhile.
const LOOKS: usize = 5;

/// Why a process gets no identity here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It has ended, or the system does not say which process it is.
    #[error("the connecting process cannot be identified: {0}")]
    Unknown(String),
    /// It is not in our control group, or its chain of parents does not lead to us.
    #[error("process {0} does not belong to this tree")]
    Outside(i32),
    /// It has the mark of a nested run.
    #[error("process {0} belongs to a `mayfly run` below this one")]
    Nested(i32),
}

/// The process tree below one process.
#[derive(Clone, Debug)]
pub struct Tree {
    root: i32,
    mark: Option<u64>,
    group: Option<Arc<Group>>,
}

impl Tree {
    /// The tree below this process.
    pub fn here() -> Tree {
        Tree { root: getpid().as_raw_nonzero().get(), mark: getrlimit(Resource::Rttime).maximum, group: None }
    }

    /// The same tree with its control group.
    pub fn within(self, group: Option<Arc<Group>>) -> Tree {
        Tree { group, ..self }
    }

    /// Begins a new tree: processes started from now on are distinguished from those of an outer tree.
    pub fn begin() -> Result<Tree, String> {
        let mark = match getrlimit(Resource::Rttime).maximum {
            None => FIRST,
            Some(above) => {
                above.checked_sub(1).ok_or("the limit on real-time timeouts (`ulimit -R`) leaves no room for a mark")?
            }
        };
        let limit = Rlimit { current: Some(mark), maximum: Some(mark) };
        setrlimit(Resource::Rttime, limit).map_err(|e| format!("cannot mark the tree: {e}"))?;
        Ok(Tree::here())
    }

    /// The process that connected, if it belongs to the tree.
    pub fn admit(&self, stream: &UnixStream) -> Result<i32, Stranger> {
        let unknown = |e: &dyn std::fmt::Display| Stranger::Unknown(e.to_string());
        let pid = stream.peer_cred().map_err(|e| unknown(&e))?.pid().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| unknown(&"it is in another process namespace"))?;
        // INVARIANT: while this lives, its process id is not reused.
        let pinned = pin(stream, pid).map_err(|e| unknown(&e))?;
        let verdict = self.place(pid).and_then(|()| self.marked(pid));
        if has_ended(&pinned) {
            return Err(unknown(&"it has ended"));
        }
        verdict.map(|()| pid)
    }

    fn marked(&self, pid: i32) -> Result<(), Stranger> {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).map_err(|e| Stranger::Unknown(e.to_string()))?;
        if mark(&limits) == Some(self.mark) { Ok(()) } else { Err(Stranger::Nested(pid)) }
    }

    fn place(&self, pid: i32) -> Result<(), Stranger> {
        // Both conditions are needed: a process with our uid may enter a group that is delegated to it, but cannot become our
        // descendant.
        if let Some(group) = &self.group
            && !group.holds(pid).map_err(|e| Stranger::Unknown(e.to_string()))?
        {
            return Err(Stranger::Outside(pid));
        }
        for _ in 0..LOOKS {
            match self.look(pid) {
                Some(verdict) => return verdict,
                None => std::thread::yield_now(),
            }
        }
        Err(Stranger::Unknown("its parents keep changing".into()))
    }

    /// Returns `None` if a parent changed meanwhile.
    fn look(&self, pid: i32) -> Option<Result<(), Stranger>> {
        let (mut line, mut at) = (Vec::new(), pid);
        let verdict = loop {
            let Some(process) = Process::read(at) else { break Err(Stranger::Outside(pid)) };
            let parent = process.parent;
            line.push((at, process));
            match parent {
                parent if parent == self.root => break Ok(()),
                parent if parent <= 1 || line.len() >= DEEPEST => break Err(Stranger::Outside(pid)),
                parent => at = parent,
            }
        };
        // If a parent ended meanwhile, its process id may belong to another process, and its child has another parent now. So a
        // chain that reads the same twice is right.
        let same = line.iter().all(|(pid, before)| Process::read(*pid).as_ref() == Some(before));
        (same || verdict.is_err()).then_some(verdict)
    }

    /// Sends a signal to every process of the tree, including nested runs. Returns the number of processes.
    pub fn signal(&self, signal: Signal) -> usize {
        let members = self.members();
        if signal == Signal::KILL
            && let Some(group) = &self.group
            // If somebody moved this process into the group, killing the group would kill this process too.
            && group.holds(self.root).is_ok_and(|held| !held)
        {
            group.kill();
        }
        for pid in &members {
            let Some(process) = Pid::from_raw(*pid) else { continue };
            // Pinned before it is checked, so that the process id still belongs to the tree.
            let pinned = pidfd_open(process, PidfdFlags::empty());
            if matches!(pinned, Err(Errno::SRCH)) || !self.has(*pid) {
                continue;
            }
            let sent = pinned.and_then(|pinned| pidfd_send_signal(&pinned, signal));
            // T317: where the system or a filter refuses pidfds, the process id has to do. Not to stop the process would be worse
            // than the moment in which its id might pass to another one.
            if let Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::MFILE | Errno::NFILE | Errno::NOMEM) =
                sent
            {
                let _ = kill_process(process, signal);
            }
        }
        members.len()
    }

    /// Whether no process is left.
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    fn has(&self, pid: i32) -> bool {
        if self.group.as_ref().is_some_and(|group| group.holds(pid).is_ok_and(|held| held)) {
            return true;
        }
        let mut at = pid;
        for _ in 0..DEEPEST {
            match Process::read(at).map(|p| p.parent) {
                Some(parent) if parent == self.root => return true,
                Some(parent) if parent > 1 => at = parent,
                _ => return false,
            }
        }
        false
    }

    /// All processes below us or in our group that have not ended.
    fn members(&self) -> Vec<i32> {
        let mut members = self.group.as_ref().map_or_else(Vec::new, |group| group.members());
        members.extend(self.below());
        members.sort_unstable();
        members.dedup();
        members.retain(|pid| *pid != self.root);
        members
    }

    fn below(&self) -> Vec<i32> {
        // INVARIANT: we are the subreaper, so every process below us is below a child of ours. On a machine with thousands of
        // processes, reading them all would be most of the cost of a short command.
        if self.root == getpid().as_raw_nonzero().get() && has_no_child() {
            return Vec::new();
        }
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let all: HashMap<i32, Process> = pids.filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
        let below = |pid: &i32| {
            let mut line = std::iter::successors(Some(*pid), |at| all.get(at).map(|p| p.parent)).skip(1).take(DEEPEST);
            line.any(|at| at == self.root)
        };
        let alive = all.iter().filter(|(_, process)| !matches!(process.state, 'Z' | 'X'));
        alive.map(|(pid, _)| *pid).filter(below).collect()
    }
}

fn pin(stream: &UnixStream, pid: i32) -> Result<OwnedFd, std::io::Error> {
    match getsockopt(stream, sockopt::PeerPidfd) {
        Ok(pinned) => Ok(pinned),
        // Before Linux 6.5. Since then any other error means that the process has ended, and its id may be reused.
        Err(nix::errno::Errno::ENOPROTOOPT) => {
            let pid = Pid::from_raw(pid).ok_or_else(|| std::io::Error::other("its process id is not valid"))?;
            Ok(pidfd_open(pid, PidfdFlags::empty())?)
        }
        Err(e) => Err(e.into()),
    }
}

/// True only if there is no child at all, not even a zombie.
fn has_no_child() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

fn has_ended(pinned: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pinned.as_fd(), PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// The parent and start time of a process. Two readings of one process are equal until its parent changes.
#[derive(Clone, Debug)]
struct Process {
    state: char,
    parent: i32,
    started: u64,
}

impl PartialEq for Process {
    fn eq(&self, other: &Process) -> bool {
        (self.parent, self.started) == (other.parent, other.started)
    }
}

impl Process {
    fn read(pid: i32) -> Option<Process> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Process::parse(&String::from_utf8_lossy(&text))
    }

    /// Parses `pid (name) state ppid …`. The name may contain anything, even brackets and spaces.
    fn parse(text: &str) -> Option<Process> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        Some(Process {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            // Start time, field 22 of the line.
            started: fields.nth(17)?.parse().ok()?,
        })
    }
}

/// The hard limit in `/proc/<pid>/limits`: `Max realtime timeout  soft  hard  us`. The inner `None` means that there is no limit.
fn mark(limits: &str) -> Option<Option<u64>> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    match line.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(None),
        hard => hard.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_hides_nothing() {
        let text = "7 (a) S 1 (b) R 42 7 7 0 -1 4194560 0 0 0 0 1 2 0 0 20 0 1 0 123456 0 0";
        let process = Process::parse(text).unwrap();
        assert_eq!((process.state, process.parent), ('R', 42));
        assert_eq!(process.started, 123_456);
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        assert_eq!(mark(&limits), Some(Tree::here().mark));
        assert_eq!(
            mark(&limits.replace("Max realtime timeout      unlimited            unlimited", "Max realtime timeout 1 7")),
            Some(Some(7))
        );
        assert_eq!(mark("Max cpu time  1  2  us"), None);
        for bad in ["", "7", "7 (a", "7 (a)", "7 (a) S", "7 (a) S x", "7 a S 1"] {
            assert!(Process::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn our_children_are_below_us_and_we_and_our_parent_are_not() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let (tree, pid) = (Tree::here(), i32::try_from(child.id()).unwrap());
        assert_eq!(tree.place(pid), Ok(()));
        assert!(tree.members().contains(&pid));
        let (own, parent) = (tree.root, Process::read(tree.root).unwrap().parent);
        for other in [own, parent, 1] {
            assert!(tree.place(other).is_err() && !tree.members().contains(&other), "{other}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(tree.place(pid).is_err());
    }
}
