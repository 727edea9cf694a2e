//! The process as a whole: what others can see of its memory, and what a panic does to it.
//!
//! Private keys lie in the memory of an issuer and of a relay. [`memory`] keeps other processes of the same user, cores and the swap
//! away from it. [`vital`] starts everything that runs for as long as the process does: a panic there ends the process, or is
//! healed, and nothing goes on by halves (T92).

pub mod manager;
#[cfg(target_os = "linux")]
pub mod memory;
pub mod sparing;
pub mod usage;
pub mod vital;

pub use vital::{healing, task, thread};

/// Protects this process before it holds a key, and counts its panics. For what serves others, and starts no programs.
pub fn begin() -> Result<(), String> {
    vital::count_panics();
    #[cfg(target_os = "linux")]
    {
        memory::hide()?;
        memory::leave_no_core()?;
    }
    Ok(())
}

/// Keeps the memory of this process out of the swap where it may. A refusal is logged.
pub fn lock_memory() {
    #[cfg(target_os = "linux")]
    match memory::lock() {
        Ok(()) => tracing::debug!("the memory is locked: nothing of it is swapped"),
        Err(why) => tracing::info!("the memory is not locked, so keys may be swapped: {why}"),
    }
}

/// The uid that this process runs as. `None` where the system does not tell.
pub fn uid() -> Option<u32> {
    #[cfg(target_os = "linux")]
    return Some(rustix::process::geteuid().as_raw());
    #[cfg(not(target_os = "linux"))]
    None
}
