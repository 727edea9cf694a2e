//! The report: a table for people, JSON for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Options;
use crate::client::Counts;
use crate::issuer::Issuer;
use crate::row::Row;

/// The report of a run.
pub(crate) struct Report {
    /// What was asked for.
    pub(crate) scenario: String,
    /// Calls in flight.
    pub(crate) concurrency: usize,
    /// Whether issuer and generator had a core each.
    pub(crate) pinned: bool,
    /// One for each measurement.
    pub(crate) rows: Vec<Row>,
    // By method and outcome: the calls that we counted, and those that the issuer's metrics counted meanwhile.
    calls: BTreeMap<(String, String), (u64, Option<u64>)>,
}

impl Report {
    pub(crate) fn new(scenario: String, options: &Options) -> Report {
        let (concurrency, pinned) = (options.concurrency, options.pin);
        Report { scenario, concurrency, pinned, rows: Vec::new(), calls: BTreeMap::new() }
    }

    /// Adds the calls that both sides have counted since `before`.
    pub(crate) async fn count(&mut self, issuer: &Issuer, before: Option<BTreeMap<String, f64>>) {
        let after = issuer.metrics().await;
        for ((method, outcome), ours) in issuer.counts.all() {
            let name = format!("mayfly_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}}");
            let value = |metrics: &Option<BTreeMap<String, f64>>| {
                metrics.as_ref().map(|metrics| metrics.get(&name).copied().unwrap_or_default())
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let theirs = value(&after).zip(value(&before)).map(|(after, before)| (after - before) as u64);
            self.add(method, outcome, ours, theirs);
        }
    }

    /// Adds the calls that this program has counted.
    pub(crate) fn count_here(&mut self, counts: &Counts) {
        counts.all().into_iter().for_each(|((method, outcome), ours)| self.add(method, outcome, ours, None));
    }

    fn add(&mut self, method: &str, outcome: &str, ours: u64, theirs: Option<u64>) {
        let calls = self.calls.entry((method.to_owned(), outcome.to_owned())).or_insert((0, Some(0)));
        calls.0 += ours;
        calls.1 = calls.1.zip(theirs).map(|(sum, more)| sum + more);
    }

    #[expect(clippy::print_stdout, reason = "the report")]
    pub(crate) fn print(&self) -> Result<(), String> {
        println!("{}", self.table());
        let lost: Vec<_> = self.calls.iter().filter(|(_, (ours, theirs))| theirs.is_some_and(|n| n != *ours)).collect();
        for ((method, outcome), (ours, theirs)) in &lost {
            println!("{method} {outcome}: {ours} calls here, {} in the issuer's metrics", theirs.unwrap_or_default());
        }
        let failed = self.rows.iter().filter_map(|row| Some((row, row.first_error.as_ref()?)));
        failed.for_each(|(row, error)| println!("{}: {} errors, the first: {error}", row.scenario, row.errors));
        match self.rows.iter().any(|row| row.done > 0) {
            true => Ok(()),
            false => Err("nothing was measured".into()),
        }
    }

    /// One line for each measurement.
    pub(crate) fn table(&self) -> String {
        let mut lines = Vec::new();
        if let Some(floor) = self.rows.iter().map(|row| row.floor).find(|floor| floor.rpc.is_some()) {
            lines.push(format!(
                "one core: verify {:.1} us, sign {:.1} us, empty RPC {:.1} us; {} calls in flight; CPU and ratio are medians",
                floor.csr_verify,
                floor.x509_sign,
                floor.rpc.unwrap_or_default(),
                self.concurrency
            ));
        }
        let (name, ms) = ("scenario", "ms p50/p90/p99/p99.9/max");
        lines
            .push(format!("{name:<24} {:>9} {ms:>36} {:>8} {:>8} {:>6} {:>6}", "per s", "CPU us", "floor us", "ratio", "errors"));
        for row in &self.rows {
            let of = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
            let times: Vec<String> = [50.0, 90.0, 99.0, 99.9, 100.0].map(|q| format!("{:.2}", row.ms(q))).into();
            lines.push(format!(
                "{:<24} {:>9.1} {:>36} {:>8} {:>8} {:>6} {:>6}",
                row.scenario,
                row.achieved,
                times.join("/"),
                of(row.cpu_us, 1),
                of(row.floor_us, 1),
                of(row.ratio(), 2),
                row.errors
            ));
            if !row.facts.is_empty() {
                let facts: Vec<String> = row.facts.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
                lines.push(format!("    {}", facts.join(", ")));
            }
        }
        lines.join("\n")
    }

    /// The figures of the first row, and those of all rows under `rows`.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        let mut all = rows.first().cloned().unwrap_or_else(|| json!({}));
        let calls: Vec<Value> = self
            .calls
            .iter()
            .map(|((method, outcome), (ours, theirs))| json!({ "method": method, "outcome": outcome, "here": ours, "metrics": theirs }))
            .collect();
        if let Some(all) = all.as_object_mut() {
            all.insert("scenario".into(), self.scenario.clone().into());
            all.insert("concurrency".into(), self.concurrency.into());
            all.insert("pinned".into(), self.pinned.into());
            all.insert("calls".into(), calls.into());
            all.insert("rows".into(), rows.into());
        }
        format!("{all:#}\n")
    }
}

fn row(row: &Row) -> Value {
    let facts: serde_json::Map<String, Value> =
        row.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "scenario": row.scenario,
        "achieved_per_second": row.achieved,
        "done": row.done,
        "errors": row.errors,
        "first_error": row.first_error,
        "latency_ms": {
            "p50": row.ms(50.0), "p90": row.ms(90.0), "p99": row.ms(99.0), "p999": row.ms(99.9), "max": row.ms(100.0),
        },
        "server_cpu_us_per_op": row.cpu_us,
        "floor_us": {
            "csr_verify": row.floor.csr_verify, "x509_sign": row.floor.x509_sign, "jwt_sign": row.floor.jwt_sign,
            "rpc": row.floor.rpc,
        },
        "floor_of_op_us": row.floor_us,
        "floor_ratio": row.ratio(),
        "server_rss_bytes": row.rss,
        "live_agents": row.live,
        "revision": row.revision,
        "facts": facts,
    })
}
