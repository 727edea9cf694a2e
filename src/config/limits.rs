//! `[[limits]]`: how many agents, and how fast.

use mayfly_verify::ClassName;

use super::places::read_owner;
use super::reader::Reader;
use crate::judge::limits::{Limit, Measure, Per, WINDOW};

/// Reads every `[[limits]]`, in the order of the file.
pub(super) fn read_limits(top: &mut Reader) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for mut l in top.sections("limits") {
        if let Some(limit) = read_limit(&mut l) {
            if limits.iter().any(|o| o.name == limit.name) {
                l.fault("name", &format!("`{}` is already the name of another limit", limit.name));
            }
            limits.push(limit);
        }
        top.close(l);
    }
    limits
}

/// Reads one limit, which has exactly one measure. Only workloads and parents have children, so only they have a `fan_out`.
fn read_limit(l: &mut Reader) -> Option<Limit> {
    let name = l.parsed("name", None, |s| s.parse::<ClassName>().map(|n| n.to_string()).map_err(|e| e.to_string()));
    read_owner(l);
    let per = l.parsed("per", None, |s| match s {
        "user" => Ok(Per::User),
        "root" => Ok(Per::Root),
        "workload" => Ok(Per::Workload),
        "parent" => Ok(Per::Parent),
        "class" => Ok(Per::Class),
        _ => Err("write `user`, `root`, `workload`, `parent` or `class`".to_owned()),
    });
    let measures: Vec<&str> = ["live", "fan_out", "rate", "total"].into_iter().filter(|k| l.has(k)).collect();
    let measure = match measures.as_slice() {
        ["live"] => Measure::Live(l.integer("live", 0, 1, u64::from(u32::MAX))),
        ["fan_out"] => {
            if !matches!(per, Some(Per::Parent | Per::Workload)) {
                l.fault("fan_out", "only a `parent` or a `workload` has children");
            }
            Measure::FanOut(l.integer("fan_out", 0, 1, u64::from(u32::MAX)))
        }
        ["rate"] => {
            let period = l.parsed("rate", None, read_period)?;
            let burst = l.integer("burst", 1, 1, 1_000_000);
            if period.saturating_mul(burst) > WINDOW {
                l.fault("burst", "the rate must allow `burst` spawns within an hour: the journal remembers no longer");
            }
            Measure::Rate { period, burst }
        }
        ["total"] => {
            let most = l.integer("total", 0, 1, u64::from(u32::MAX));
            let window = l.duration("window", "1h", 1, 3600).as_micros();
            Measure::Total { most, window: u64::try_from(window).unwrap_or(WINDOW) }
        }
        _ => {
            l.fault("live", "give exactly one of `live`, `fan_out`, `rate` and `total`");
            return None;
        }
    };
    Some(Limit { name: name?, per: per?, measure })
}

/// Reads a rate such as `50/s` as the microseconds between two spawns.
pub(super) fn read_period(rate: &str) -> Result<u64, String> {
    let (count, unit) = rate.split_once('/').ok_or("write it as `50/s`, `100/m` or `1000/h`")?;
    let count = count.parse::<u64>().ok().filter(|c| *c > 0).ok_or("begin with a number above 0")?;
    let unit = match unit {
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err("end with `/s`, `/m` or `/h`".to_owned()),
    };
    // A period is at least one microsecond.
    if count > unit { Err("the rate is above a million per second".to_owned()) } else { Ok(unit / count) }
}
