//! Protects the memory of this process (Linux): other processes cannot read it, it is not in core dumps, and it is not swapped if
//! the system allows that.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Prevents other processes of this user from tracing and reading this one, and the system from writing a core dump of it. Its
/// files in `/proc` belong to root from now on.
pub fn hide() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("the memory cannot be hidden: {e}"))
}

/// Sets the limit for cores to 0, also for the programs that this process starts.
pub fn leave_no_core() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| format!("cores cannot be turned off: {e}"))
}

/// Locks all memory of this process, now and later, as it comes into use.
///
/// Copies of keys are in many places, also inside the cryptographic library, so locking single pages would not be enough. This is
/// done only if the process may lock memory without a limit, because at a limit later allocations would fail. Locked memory is not
/// given back to the system.
pub fn lock() -> Result<(), String> {
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if !unlimited && !privileged {
        return Err("there is a limit for locked memory (LimitMEMLOCK=infinity of systemd, or CAP_IPC_LOCK)".into());
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(|e| e.to_string())
}
