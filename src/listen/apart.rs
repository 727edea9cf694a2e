//! A separate runtime for strangers, with one thread of low priority. However many strangers there are, callers with an identity
//! are served by the other threads, which the system schedules first.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::process;

/// Blocking tasks of strangers at once, such as the verification of a user's token.
const BLOCKING: usize = 8;
/// The `nice` value of the thread, on systems where single threads have one.
const NICE: i32 = 5;

/// The runtime for strangers. It ends, with its tasks, when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Apart(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    handle: Handle,
    // Dropping it stops the thread.
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
            // Blocking tasks are not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Apart(Arc::new(Inside { handle, _stop: stop })))
    }

    /// Runs `work` there, and waits for its end.
    pub(super) async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        // A panic ends this connection only, as on the other runtime.
        let _ = self.0.handle.spawn(work).await;
    }
}

/// Lowers the priority of this thread. On other systems than Linux this would affect the whole process.
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
        // A panic there ends that task only.
        apart.run(async { panic!("a stranger") }).await;
        apart.run(async {}).await;
    }
}
