//! Threads and tasks that run for as long as the process does. Without further measures a panic in one of them would leave a
//! process that looks alive but lacks a part, such as its feed or its listener. So a panic ends the process, and its next start has
//! everything again. Work whose input others choose is restarted instead.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Exit code after a panic: EX_SOFTWARE.
pub const PANICKED: i32 = 70;

/// Pause before work is restarted.
const PAUSE: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(5) };

/// Starts a thread. A panic in it ends the process. Fails if the system has no thread.
pub fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let name = name.to_owned();
    thread.spawn(move || catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| end(&name, panic.as_ref())))
}

/// Starts a task. A panic in it ends the process.
pub fn task(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { caught(work).await.unwrap_or_else(|panic| end(name, panic.as_ref())) })
}

/// Starts a task whose work is restarted some seconds after a panic. For work whose input others choose, because they must not be
/// able to end the process.
pub fn healing<W>(name: &'static str, work: impl Fn() -> W + Send + 'static) -> tokio::task::JoinHandle<()>
where
    W: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Err(panic) = caught(work()).await {
            tracing::error!(what = name, cause = said(panic.as_ref()), "a task panicked: it begins anew");
            drop(panic);
            tokio::time::sleep(PAUSE).await;
        }
    })
}

/// Counts every panic of this process from now on, also those that end one request alone.
pub fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        metrics::counter!("mayfly_panics_total").increment(1);
        before(panic);
    }));
}

/// The result of a future, or the payload of its panic.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        // It is not polled again.
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn end(what: &str, panic: &(dyn Any + Send)) -> ! {
    // The message goes to stderr, because the panic may come from the log.
    let cause = said(panic);
    let _ = catch_unwind(|| tracing::error!(what, cause, "a part of the process panicked: stopping"));
    std::process::exit(PANICKED)
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Starts another process that panics in this way. Returns its exit code.
    fn process(mode: &str) -> Option<i32> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["process::vital::tests::inside", "--exact", "--ignored", "--quiet"]).env("MODE", mode);
        command.output().unwrap().status.code()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a part of another test"]
    async fn inside() {
        let mode = std::env::var("MODE").unwrap_or_default();
        let fails = move || assert!(!mode.contains("panic"), "one part has failed");
        match std::env::var("MODE").unwrap_or_default().split(' ').next() {
            Some("thread") => thread("part", fails).unwrap().join().unwrap(),
            Some("task") => task("part", async move {
                tokio::task::yield_now().await;
                fails();
            })
            .await
            .unwrap(),
            _ => drop(std::thread::spawn(fails).join()),
        }
    }

    #[test]
    fn t92_a_panic_of_a_vital_part_ends_the_process() {
        assert_eq!(process("thread panic"), Some(PANICKED));
        assert_eq!(process("task panic"), Some(PANICKED));
        // Without a panic the process ends normally, and a panic in any other thread does not end it.
        assert_eq!([process("thread"), process("task"), process("other panic")], [Some(0); 3]);
    }

    #[tokio::test]
    async fn t92_work_on_what_others_choose_begins_anew_after_a_panic() {
        let tries = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&tries);
        let work = move || {
            let counted = Arc::clone(&counted);
            async move {
                tokio::task::yield_now().await;
                if counted.fetch_add(1, Ordering::SeqCst) < 2 {
                    panic!("bad input");
                }
            }
        };
        healing("part", work).await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }
}
