//! Counts open things by the lifetime of a value, so that the count stays right after a panic (T92).

use metrics::Gauge;

/// Adds one to a gauge until it is dropped.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: Gauge) -> Counted {
        gauge.increment(1);
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn t92_what_panicked_is_not_counted_as_open() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let gauge = metrics::with_local_recorder(&recorder, || metrics::gauge!("open"));
        let open = Counted::new(gauge);
        assert!(recorder.handle().render().contains("open 1"));
        let panicked = std::thread::spawn(move || {
            let _open = open;
            assert!(std::env::args().count() == usize::MAX, "one connection fails");
        });
        assert!(panicked.join().is_err());
        assert!(recorder.handle().render().contains("open 0"));
    }
}
