//! The `mayfly` binary.

use std::process::ExitCode;

use clap::Parser;
use mayfly::cli::{self, Cli};
use tokio::runtime::Builder;

// What one thread allocates another frees at every step from the wire to the desk and back: the system's allocator takes locks
// for that, and gives memory back to the system only to ask for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What is soon done, or stands beside one agent of a thousand, does with one thread: the allocator has memory of its own for
    // each, and to clear that takes as long as a handshake does.
    let mut runtime = if cli.needs_threads() { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("mayfly: the system gives no thread: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::main(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("mayfly: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
