//! The resources that this process uses.

/// The resources of a process. Fields are `None` if the system cannot say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Whole seconds of CPU, of all threads since the start.
    pub cpu_seconds: u64,
    /// Bytes of memory that are not swapped.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
}

/// Measures this process now.
pub fn now() -> Usage {
    #[cfg(target_os = "linux")]
    {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let status = std::fs::read_to_string("/proc/self/status").ok();
        let resident = status.and_then(|status| kibibytes(&status, "VmRSS:")).map(|kib| kib.saturating_mul(1024));
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count());
        Usage {
            cpu_seconds: u64::try_from(spent.tv_sec).unwrap_or(0),
            resident_bytes: resident,
            // Minus the file descriptor that reads the folder.
            open_files: open.and_then(|open| u64::try_from(open).ok()).map(|open| open.saturating_sub(1)),
        }
    }
    #[cfg(not(target_os = "linux"))]
    Usage::default()
}

#[cfg(target_os = "linux")]
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_files() {
        let usage = now();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
        assert!(usage.open_files.is_some_and(|open| open >= 3), "{usage:?}");
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12));
    }
}
