//! State that threads share. In the tests of this crate, a model can switch threads before each access to it.
//! `publish/feed/sync.rs` of the issuer has the same for the publishing side.

#[cfg(not(test))]
pub(crate) use std::sync::atomic::AtomicU64;

#[cfg(not(test))]
pub(crate) use arc_swap::{ArcSwap, ArcSwapOption};
#[cfg(test)]
pub(crate) use stepped::{ArcSwap, ArcSwapOption, AtomicU64, model};

/// The same types, except that inside a model another thread may run before each access. Outside of a model nothing differs.
#[cfg(test)]
mod stepped {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{self, Ordering};

    use arc_swap::Guard;

    thread_local!(static MODEL: Cell<bool> = const { Cell::new(false) });

    /// Runs a model under this many random schedules. All of its threads take turns on the calling thread.
    pub(crate) fn model(schedules: usize, run: impl Fn() + Send + Sync + 'static) {
        let _over = Over;
        MODEL.set(true);
        shuttle::check_random(run, schedules);
    }

    /// Ends the model on drop, so also when the model panics, as some are expected to.
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

    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64(atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> AtomicU64 {
            AtomicU64(atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            step();
            self.0.load(order)
        }

        pub(crate) fn fetch_add(&self, by: u64, order: Ordering) -> u64 {
            step();
            self.0.fetch_add(by, order)
        }

        pub(crate) fn fetch_max(&self, with: u64, order: Ordering) -> u64 {
            step();
            self.0.fetch_max(with, order)
        }
    }

    #[derive(Debug)]
    pub(crate) struct ArcSwapOption<T>(arc_swap::ArcSwapOption<T>);

    impl<T> ArcSwapOption<T> {
        pub(crate) fn empty() -> ArcSwapOption<T> {
            ArcSwapOption(arc_swap::ArcSwapOption::empty())
        }

        pub(crate) fn store(&self, value: Option<Arc<T>>) {
            step();
            self.0.store(value);
        }

        pub(crate) fn load(&self) -> Guard<Option<Arc<T>>> {
            step();
            self.0.load()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>);

    impl<T> ArcSwap<T> {
        pub(crate) fn load(&self) -> Guard<Arc<T>> {
            step();
            self.0.load()
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            step();
            self.0.load_full()
        }

        /// Used by the models that are wrong on purpose.
        pub(crate) fn store(&self, value: Arc<T>) {
            step();
            self.0.store(value);
        }

        // A switch is also possible between the read and the exchange; then the exchange fails and the change is made again.
        pub(crate) fn rcu(&self, mut change: impl FnMut(&Arc<T>) -> T) {
            step();
            self.0.rcu(|now| {
                let next = change(now);
                step();
                next
            });
        }
    }
}
