//! The locks and queues that the feed's threads share. In the tests of this crate a model scheduler runs before each
//! access.

#[cfg(not(test))]
pub(super) use std::sync::mpsc::{Receiver, SyncSender, sync_channel as channel};

#[cfg(not(test))]
pub(super) use parking_lot::Mutex;
#[cfg(test)]
pub(super) use stepped::{Mutex, Receiver, SyncSender, channel, model};

/// The same types for tests. Inside a model, each use of one first lets another thread run; outside, they behave as usual.
#[cfg(test)]
mod stepped {
    use std::cell::Cell;
    use std::sync::mpsc::{self, RecvTimeoutError, SendError, TrySendError};
    use std::time::Duration;

    use parking_lot::MutexGuard;

    thread_local!(static MODEL: Cell<bool> = const { Cell::new(false) });

    /// Runs `run` under `schedules` random schedules. All its threads take turns on the calling thread.
    pub(in crate::publish::feed) fn model(schedules: usize, run: impl Fn() + Send + Sync + 'static) {
        let _over = Over;
        MODEL.set(true);
        let mut config = shuttle::Config::new();
        // Its default of 32 KiB is less than verifying a signature takes without optimization.
        config.stack_size = 1 << 18;
        shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(schedules), config).run(run);
    }

    /// Ends the model when it is dropped, also after a panic, which some models expect.
    struct Over;

    impl Drop for Over {
        fn drop(&mut self) {
            MODEL.set(false);
        }
    }

    fn step() {
        if MODEL.get() {
            shuttle::thread::yield_now();
        }
    }

    pub(in crate::publish::feed) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::publish::feed) fn new(value: T) -> Mutex<T> {
            Mutex(parking_lot::Mutex::new(value))
        }

        // In a model a thread that waits lets others run, because one of them holds the lock.
        pub(in crate::publish::feed) fn lock(&self) -> MutexGuard<'_, T> {
            while MODEL.get() {
                step();
                if let Some(guard) = self.0.try_lock() {
                    return guard;
                }
            }
            self.0.lock()
        }
    }

    pub(in crate::publish::feed) struct SyncSender<T>(mpsc::SyncSender<T>);

    impl<T> SyncSender<T> {
        pub(in crate::publish::feed) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            step();
            self.0.try_send(value)
        }

        pub(in crate::publish::feed) fn send(&self, value: T) -> Result<(), SendError<T>> {
            step();
            self.0.send(value)
        }
    }

    pub(in crate::publish::feed) struct Receiver<T>(mpsc::Receiver<T>);

    impl<T> Receiver<T> {
        pub(in crate::publish::feed) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
            self.0.recv_timeout(timeout)
        }

        pub(in crate::publish::feed) fn try_iter(&self) -> impl Iterator<Item = T> {
            std::iter::from_fn(|| {
                step();
                self.0.try_recv().ok()
            })
        }
    }

    pub(in crate::publish::feed) fn channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::sync_channel(bound);
        (SyncSender(sender), Receiver(receiver))
    }
}
