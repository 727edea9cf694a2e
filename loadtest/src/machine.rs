//! CPU, memory and threads of a process, from proc(5).

use std::collections::BTreeMap;
use std::path::Path;

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The process that has the file open. `None` if it is none of those that we may inspect.
    pub(crate) fn holding(file: &Path) -> Option<Process> {
        let file = std::fs::canonicalize(file).ok()?;
        let pids = std::fs::read_dir("/proc").ok()?.flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let holds = |pid: &u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
            files.is_ok_and(|files| files.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == file)))
        };
        pids.find(holds).map(Process)
    }

    /// Seconds of CPU that it has used, in steps of 10 ms.
    pub(crate) fn cpu(self) -> Option<f64> {
        seconds(&std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?).map(|(_, cpu)| cpu)
    }

    /// Bytes of memory that it holds.
    pub(crate) fn resident(self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    /// Seconds of CPU by the name of the thread. Threads of one name are added up.
    pub(crate) fn threads(self) -> BTreeMap<String, f64> {
        let mut threads = BTreeMap::new();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        for stat in tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok()) {
            if let Some((name, cpu)) = seconds(&stat) {
                *threads.entry(name).or_default() += cpu;
            }
        }
        threads
    }
}

/// The name, and the seconds of utime and stime, which are counted in ticks of 10 ms.
fn seconds(stat: &str) -> Option<(String, f64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let ticks = after.split_whitespace().skip(11).take(2).map(|t| t.parse::<u32>()).sum::<Result<u32, _>>().ok()?;
    Some((name, f64::from(ticks) / 100.0))
}

/// Keeps this process on one core, with all threads that it starts from now on.
pub(crate) fn stay_on(core: usize) -> Result<(), String> {
    let (core, pid) = (core.to_string(), std::process::id().to_string());
    let done = std::process::Command::new("taskset").args(["-a", "-p", "-c", &core, &pid]).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("taskset: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(e) => Err(format!("`taskset`, which --pin needs: {e}")),
    }
}
