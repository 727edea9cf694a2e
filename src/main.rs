//! The `mayfly` binary.

use std::process::ExitCode;

use clap::Parser;
use mayfly::cli::{self, Cli};

// What one thread allocates another frees at every step from the wire to the desk and back: the system's allocator takes locks
// for that, and gives memory back to the system only to ask for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::main(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("mayfly: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
