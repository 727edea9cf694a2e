//! The `mayfly` binary.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use mayfly::cli;
use tokio::runtime::Builder;

// A request is allocated by one thread and freed by another, at each step from the connection to the signature and back. The
// system's allocator takes locks for that, and returns memory to the system only to ask for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the end of the process waits for threads that have something to finish.
const FINISH: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let json = cli.is_json();
    // A command that is soon done, or runs beside one of a thousand agents, needs only one thread: the allocator keeps memory for
    // each thread, and clearing that memory takes as long as a TLS handshake.
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
    // What runs for long finishes what its threads have begun, such as a backup, or the end of a command that it started. A thread that
    // reads a pipe which nobody writes never ends, and nobody waits for it.
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

/// Says something on standard error, which may be gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "mayfly: {text}");
}
