//! Strangers are served on a runtime of their own, with one thread: however busy they are, whoever has an identity is served by the
//! other threads, and the system gives those their time first.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::process;

/// Work of strangers that may block at once, such as the verification of a user's token.
const BLOCKING: usize = 8;
/// How much the thread stands back (`nice`) where the system knows that of single threads.
const NICE: i32 = 5;

/// The runtime for strangers. It ends when the last clone is dropped; what runs there is dropped then.
#[derive(Clone, Debug)]
pub struct Apart(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    handle: Handle,
    // Its end tells the thread.
    _stop: oneshot::Sender<()>,
}

impl Apart {
    /// Starts the runtime and its thread. Fails if the system has no thread or no files for it.
    pub fn start() -> io::Result<Apart> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING).thread_name("mayfly-stranger").build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        process::thread("mayfly-strangers", move || {
            stand_back();
            let _ = runtime.block_on(stopped);
            // What blocks is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Apart(Arc::new(Inside { handle, _stop: stop })))
    }

    /// Runs something there, and waits for its end.
    pub(super) async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        // A panic ends the one connection, as it does on the other runtime.
        let _ = self.0.handle.spawn(work).await;
    }
}

/// Lets other threads of this process go first. Elsewhere than on Linux this would be the whole process.
fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "the thread for strangers has the same priority as others");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn what_runs_apart_has_a_thread_of_its_own_and_ends() {
        let apart = Apart::start().unwrap();
        let (told, name) = oneshot::channel();
        apart.run(async move { told.send(std::thread::current().name().map(str::to_owned)).unwrap() }).await;
        assert_eq!(name.await.unwrap().as_deref(), Some("mayfly-strangers"));
        // A panic there is the end of that work alone.
        apart.run(async { panic!("a stranger") }).await;
        apart.run(async {}).await;
    }
}
