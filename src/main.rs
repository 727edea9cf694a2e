//! The `mayfly` binary.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use mayfly::cli;
use tokio::runtime::Builder;

// Memory of a request is allocated by one thread and freed by another, at each step from the connection to the signature and back.
// The system's allocator takes locks for that, and often returns memory to the system and allocates it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end of the process waits for threads that are still working.
const FINISH: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let json = cli.is_json();
    // A short command, or one that runs beside each of a thousand agents, uses one thread only: the allocator keeps memory for each
    // thread, and clearing that takes as long as a TLS handshake.
    let lasting = cli.needs_threads();
    let mut runtime = if lasting { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            say(&format!("the runtime cannot be started: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli::main(cli));
    // A long-running command waits for its threads, which may be writing a backup or stopping a program. The wait is limited,
    // because a thread that reads from an idle pipe never ends.
    if lasting {
        runtime.shutdown_timeout(FINISH);
    } else {
        runtime.shutdown_background();
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json);
            ExitCode::from(failure.code)
        }
    }
}

/// Writes to standard error, which may be closed.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "mayfly: {text}");
}
