//! The process as a whole: who can read its memory, and what happens after a panic.
//!
//! An issuer and a relay have private keys in their memory. [`memory`] protects it from other processes of the same user, core
//! dumps and the swap. [`vital`] starts everything that runs for as long as the process does. A panic there ends the process or
//! restarts the work, so that the process never runs on without a part (T92).

pub mod manager;
#[cfg(target_os = "linux")]
pub mod memory;
pub mod sparing;
pub mod usage;
pub mod vital;

pub use vital::{healing, task, thread};

/// Protects this process before it has a key in memory, and counts its panics. For processes that serve others and start no
/// programs.
pub fn begin() -> Result<(), String> {
    vital::count_panics();
    #[cfg(target_os = "linux")]
    {
        memory::hide()?;
        memory::leave_no_core()?;
    }
    Ok(())
}

/// Keeps the memory of this process out of the swap, if the system allows it. A refusal is logged.
pub fn lock_memory() {
    #[cfg(target_os = "linux")]
    match memory::lock() {
        Ok(()) => tracing::debug!("the memory is locked: nothing of it is swapped"),
        Err(why) => tracing::info!("the memory is not locked, so keys may be swapped: {why}"),
    }
}

/// The uid of this process. `None` if the system cannot say.
pub fn uid() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return Some(rustix::process::geteuid().as_raw());
    #[cfg(not(target_os = "linux"))]
    None
}
