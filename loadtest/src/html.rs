//! One page in one file: for each measurement the latencies, the throughput over time, and where the CPU went.

use std::fmt::Write as _;

use crate::load::{STEP, float};
use crate::report::Report;
use crate::row::Row;

/// Size of a drawing, and the room for its axes.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 48.0;
const BELOW: f64 = 24.0;
/// Bars of a distribution to each power of ten.
const BARS: f64 = 12.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1360px;margin:2em auto;padding:0 1em;color:#1d2733}
h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .3em}h3{font-size:.85em;font-weight:600;margin:.2em 0;color:#51606f}
pre{background:#f3f5f7;padding:1em;overflow-x:auto;font-size:12px;line-height:1.4}
.three{display:flex;flex-wrap:wrap;gap:1.5em}p{margin:.2em 0;color:#51606f}
figure{margin:0;width:420px}svg{display:block;background:#fbfcfd;border:1px solid #e1e6ea}svg text{font:11px system-ui,sans-serif;fill:#51606f}
.bar{fill:#3a7ca5}.line{fill:none;stroke:#3a7ca5;stroke-width:1.5}.mark{stroke:#c44536;stroke-dasharray:3 3}.axis{stroke:#c3ccd4}";

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let title = format!("Mayfly load test: {}", escape(&report.scenario));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><pre>{}</pre>",
        escape(&report.table())
    );
    for row in &report.rows {
        let _ = write!(page, "<h2>{}</h2><p>{}</p><div class=\"three\">", escape(&row.scenario), escape(&said(row)));
        for (heading, drawing) in [
            ("Latency: calls by milliseconds (logarithmic), with p50, p99 and p99.9", distribution(row)),
            ("Throughput: operations a second over the seconds that were measured", throughput(row)),
            ("Server CPU: seconds by thread", threads(row)),
        ] {
            if let Some(drawing) = drawing {
                let _ = write!(page, "<figure><h3>{heading}</h3>{drawing}</figure>");
            }
        }
        page.push_str("</div>");
    }
    page.push_str("</body></html>\n");
    page
}

fn said(row: &Row) -> String {
    let mut said = vec![format!("{} done, {} errors", row.done, row.errors)];
    said.extend(row.ratio().map(|ratio| format!("{ratio:.2} floors of server CPU")));
    said.extend(row.rss.map(|rss| format!("{:.0} MiB of server memory", float(rss) / 1048576.0)));
    said.extend(row.live.map(|live| format!("{live} agents known")));
    said.extend(row.revision.map(|revision| format!("revision {revision}")));
    said.join("; ")
}

/// Bars over a logarithmic axis. `None` if nothing was timed.
fn distribution(row: &Row) -> Option<String> {
    if row.latency.is_empty() {
        return None;
    }
    let place = |ns: u64| float(ns.max(1000)).log10() * BARS;
    let (from, to) =
        (place(row.latency.min()).floor(), place(row.latency.max()).ceil().max(place(row.latency.min()).floor() + 6.0));
    let x = |place: f64| LEFT + (place - from) / (to - from) * (WIDTH - LEFT - 8.0);
    let mut bars = std::collections::BTreeMap::<u64, u64>::new();
    for value in row.latency.iter_recorded() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bar")]
        let bar = place(value.value_iterated_to()).floor() as u64;
        *bars.entry(bar).or_default() += value.count_since_last_iteration();
    }
    let most = float(bars.values().copied().max()?);
    let y = |count: f64| 18.0 + (1.0 - count / most) * (HEIGHT - BELOW - 18.0);
    let mut svg = frame(most);
    for (bar, count) in bars {
        let (left, right, top) = (x(float(bar)), x(float(bar) + 1.0), y(float(count)));
        let (width, height) = ((right - left - 1.0).max(1.0), HEIGHT - BELOW - top);
        let _ = write!(svg, "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>");
    }
    // Whole powers of ten, in milliseconds.
    for power in 3..=11u32 {
        let at = f64::from(power) * BARS;
        if (from..=to).contains(&at) {
            tick(&mut svg, x(at), &format!("{} ms", 10f64.powi(i32::try_from(power).unwrap_or(0) - 6)));
        }
    }
    for (n, (quantile, name)) in (0u8..).zip([(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")]) {
        let value = row.latency.value_at_quantile(quantile);
        let (at, down) = (x(place(value).clamp(from, to)), 10.0 + 12.0 * f64::from(n));
        let (anchor, beside) = if at > WIDTH * 0.6 { ("end", -3.0) } else { ("start", 3.0) };
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{down}\" text-anchor=\"{anchor}\">{name} {:.2} ms</text>",
            HEIGHT - BELOW,
            at + beside,
            float(value) / 1e6
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// A line. `None` if the row has no timeline.
fn throughput(row: &Row) -> Option<String> {
    // Each point is the mean over half a second, because single steps are noisy.
    let rates: Vec<f64> = row
        .timeline
        .chunks(5)
        .map(|c| float(c.iter().sum()) / (STEP.as_secs_f64() * float(u64::try_from(c.len()).unwrap_or(1))))
        .collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    if rates.len() < 2 || most <= 0.0 {
        return None;
    }
    let seconds = STEP.as_secs_f64() * float(u64::try_from(row.timeline.len()).unwrap_or(1));
    let last = float(u64::try_from(rates.len() - 1).unwrap_or(1));
    let x = |n: f64| LEFT + n / last * (WIDTH - LEFT - 8.0);
    let y = |rate: f64| 18.0 + (1.0 - rate / most) * (HEIGHT - BELOW - 18.0);
    let points: Vec<String> = (0u32..).zip(&rates).map(|(n, rate)| format!("{:.1},{:.1}", x(f64::from(n)), y(*rate))).collect();
    let mut svg = frame(most);
    let _ = write!(svg, "<polyline class=\"line\" points=\"{}\"/>", points.join(" "));
    for part in [0.25, 0.5, 0.75, 1.0] {
        tick(&mut svg, x(last * part), &format!("{:.1} s", seconds * part));
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// A bar for each thread. `None` if the server's CPU cannot be read.
fn threads(row: &Row) -> Option<String> {
    let mut threads: Vec<(&String, f64)> =
        row.threads.iter().map(|(name, cpu)| (name, *cpu)).filter(|(_, cpu)| *cpu > 0.0).collect();
    threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    threads.truncate(8);
    let (most, all) = (threads.first()?.1, row.threads.values().sum::<f64>());
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">");
    for (n, (name, cpu)) in (0u8..).zip(threads) {
        let (top, width) = (8.0 + 22.0 * f64::from(n), cpu / most * 190.0);
        let _ = write!(
            svg,
            "<text x=\"130\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar\" x=\"138\" y=\"{top}\" width=\"{width:.1}\" height=\"16\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{cpu:.2} s, {:.0} %</text>",
            top + 12.0,
            escape(name),
            144.0 + width,
            top + 12.0,
            cpu / all * 100.0
        );
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn frame(most: f64) -> String {
    let (bottom, right) = (HEIGHT - BELOW, WIDTH - 8.0);
    format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
         <text x=\"{:.0}\" y=\"22\" text-anchor=\"end\">{most:.0}</text>\
         <text x=\"{:.0}\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
        LEFT - 4.0,
        LEFT - 4.0
    )
}

fn tick(svg: &mut String, x: f64, text: &str) {
    let (bottom, anchor) = (HEIGHT - BELOW, if x > WIDTH - 30.0 { "end" } else { "middle" });
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.0}\"/>\
         <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{text}</text>",
        bottom + 4.0,
        bottom + 16.0
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
