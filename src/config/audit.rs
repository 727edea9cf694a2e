//! `[audit]`: the collector that receives the entries of the history.

use std::path::PathBuf;

use super::reader::Reader;
use crate::history::audit::{Settings, Sink};

/// Reads the section. `None` if no collector is configured, or if the section has a fault.
pub(super) fn read_audit(a: &mut Reader) -> Option<Settings> {
    let file = a.optional("file", |s| {
        let path = PathBuf::from(s);
        if path.is_absolute() { Ok(path) } else { Err("write an absolute path".into()) }
    });
    let (syslog, stdout) = (a.boolean("syslog", false), a.boolean("stdout", false));
    let refuse = a.parsed("on_failure", Some("count"), |s| match s {
        "count" => Ok(false),
        "refuse" => Ok(true),
        _ => Err("write `count` or `refuse`".into()),
    });
    let mut sinks = [file.map(Sink::File), syslog.then(|| Sink::Syslog("/dev/log".into())), stdout.then_some(Sink::Stdout)];
    let mut sinks = sinks.iter_mut().filter_map(Option::take);
    let (sink, more) = (sinks.next(), sinks.next());
    if more.is_some() {
        a.fault("file", "give one of `file`, `syslog` and `stdout`");
    }
    if sink.is_none() && refuse == Some(true) {
        a.fault("on_failure", "give one of `file`, `syslog` and `stdout` that nothing is issued without");
    }
    Some(Settings { sink: sink?, refuse: refuse? })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::Config;

    fn read(section: &str) -> Result<Option<Settings>, String> {
        let text = format!("trust_domain = \"a.example\"\n[audit]\n{section}");
        Config::parse(&text, "f").map(|config| config.audit).map_err(|faults| faults.to_string())
    }

    #[test]
    fn t166_one_collector_is_named_and_nothing_is_refused_for_want_of_one_that_is_not() {
        assert_eq!(read("").unwrap(), None);
        let file = read("file = \"/var/log/a\"").unwrap().unwrap();
        assert_eq!(file, Settings { sink: Sink::File("/var/log/a".into()), refuse: false });
        let refusing = read("stdout = true\non_failure = \"refuse\"").unwrap().unwrap();
        assert_eq!(refusing, Settings { sink: Sink::Stdout, refuse: true });
        for (section, told) in [
            ("file = \"a\"", "audit.file: `a`: write an absolute path"),
            ("file = \"/a\"\nsyslog = true", "audit.file: give one of"),
            ("on_failure = \"refuse\"", "audit.on_failure: give one of"),
            ("stdout = true\non_failure = \"stop\"", "write `count` or `refuse`"),
            ("sylsog = true", "syslog"),
        ] {
            let faults = read(section).unwrap_err();
            assert!(faults.contains(told), "{section}: {faults}");
        }
    }
}
