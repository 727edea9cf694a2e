//! Reads a TOML table key by key. The reader collects faults and continues, instead of stopping at the first.
//!
//! Each method removes its key from the table, so that a key that is left at the end is unknown.

use std::time::Duration;

use toml::{Table, Value};

use crate::denial::near::near;

/// A table, and the faults found in it so far.
pub(super) struct Reader {
    // The keys that have not been read yet.
    table: Table,
    // Path of the table in the file, such as `classes[0]`; empty for the file itself.
    path: String,
    // Every key that has been read, present or not.
    asked: Vec<String>,
    /// One sentence for each fault, after the path of its key.
    pub(super) faults: Vec<String>,
}

impl Reader {
    /// Makes a reader of `table`, which is at `path` in the file.
    pub(super) fn new(table: Table, path: String) -> Reader {
        Reader { table, path, asked: Vec::new(), faults: Vec::new() }
    }

    /// Adds a fault of `key`.
    pub(super) fn fault(&mut self, key: &str, what: &str) {
        let at = self.at(key);
        self.faults.push(format!("{at}: {what}"));
    }

    /// Whether `key` is present and has not been read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A string that parses. Returns `None` if it is faulty. A key without a default is required.
    pub(super) fn parsed<T>(&mut self, key: &str, default: Option<&str>, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = match (self.take(key), default) {
            (Some(Value::String(text)), _) => text,
            (Some(_), _) => return self.wrong(key, "a string"),
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                self.fault(key, "is missing");
                return None;
            }
        };
        parse(&text).map_err(|e| self.fault(key, &format!("`{text}`: {e}"))).ok()
    }

    /// A string that parses. Returns `None` if the key is absent or faulty.
    pub(super) fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if self.has(key) {
            self.parsed(key, None, parse)
        } else {
            self.asked.push(key.to_owned());
            None
        }
    }

    /// A list of strings that parse. Strings that do not parse are left out, and each is a fault. A key without a default is
    /// required.
    pub(super) fn list<T>(&mut self, key: &str, default: Option<&[&str]>, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let texts: Vec<String> = match (self.take(key), default) {
            (Some(Value::Array(values)), _) => {
                let texts: Option<Vec<String>> = values.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                match texts {
                    Some(texts) => texts,
                    None => return self.wrong(key, "a list of strings").unwrap_or_default(),
                }
            }
            (Some(_), _) => return self.wrong(key, "a list of strings").unwrap_or_default(),
            (None, Some(default)) => default.iter().map(|s| (*s).to_owned()).collect(),
            (None, None) => {
                self.fault(key, "is missing");
                vec![]
            }
        };
        let mut parsed = Vec::new();
        for text in texts {
            match parse(&text) {
                Ok(value) => parsed.push(value),
                Err(e) => self.fault(key, &format!("`{text}`: {e}")),
            }
        }
        parsed
    }

    /// An integer from `least` to `most`. Returns `default` if the key is absent or faulty.
    pub(super) fn integer(&mut self, key: &str, default: u64, least: u64, most: u64) -> u64 {
        match self.take(key) {
            None => default,
            Some(Value::Integer(n)) => match u64::try_from(n) {
                Ok(n) if (least..=most).contains(&n) => n,
                _ => {
                    self.fault(key, &format!("`{n}` is not from {least} to {most}"));
                    default
                }
            },
            Some(_) => self.wrong(key, "an integer").unwrap_or(default),
        }
    }

    /// As [`Reader::integer`], for a number of things in memory.
    pub(super) fn size(&mut self, key: &str, default: u32, least: u32, most: u32) -> usize {
        usize::try_from(self.small(key, default, least, most)).unwrap_or(usize::MAX)
    }

    /// As [`Reader::integer`], for 32 bits.
    pub(super) fn small(&mut self, key: &str, default: u32, least: u32, most: u32) -> u32 {
        let value = self.integer(key, default.into(), least.into(), most.into());
        u32::try_from(value).unwrap_or(default)
    }

    /// A list of integers of 32 bits. Returns `None` if the key is absent or faulty.
    pub(super) fn integers(&mut self, key: &str) -> Option<Vec<u32>> {
        match self.take(key)? {
            Value::Array(values) => {
                let all: Option<Vec<u32>> = values.iter().map(|v| v.as_integer().and_then(|n| u32::try_from(n).ok())).collect();
                all.or_else(|| self.wrong(key, "a list of integers"))
            }
            _ => self.wrong(key, "a list of integers"),
        }
    }

    /// `true` or `false`. Returns `default` if the key is absent or faulty.
    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(b)) => b,
            Some(_) => self.wrong(key, "`true` or `false`").unwrap_or(default),
        }
    }

    /// A duration such as `90s`, `15m`, `8h` or `2d`, from `least` to `most` seconds. No value means infinite. Returns zero if
    /// the key is faulty.
    pub(super) fn duration(&mut self, key: &str, default: &str, least: u64, most: u64) -> Duration {
        let read = |text: &str| {
            let (number, unit) = text.split_at(text.len().saturating_sub(1));
            let factor = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return Err("write a duration such as `90s`, `15m`, `8h` or `2d`".to_owned()),
            };
            let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
            match seconds.filter(|s| (least..=most).contains(s)) {
                Some(seconds) => Ok(Duration::from_secs(seconds)),
                None => Err(format!("not from {least} to {most} seconds")),
            }
        };
        self.parsed(key, Some(default), read).unwrap_or_default()
    }

    /// The table under `key`, which is empty if the key is absent or faulty. It must be passed to [`Reader::close`].
    pub(super) fn section(&mut self, key: &str) -> Reader {
        let path = self.at(key);
        match self.take(key) {
            None => Reader::new(Table::new(), path),
            Some(Value::Table(table)) => Reader::new(table, path),
            Some(_) => {
                let _: Option<()> = self.wrong(key, "a section");
                Reader::new(Table::new(), path)
            }
        }
    }

    /// The table under `key` as it is, which is empty if the key is absent or faulty.
    pub(super) fn table(&mut self, key: &str) -> Table {
        match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => self.wrong(key, "a section").unwrap_or_default(),
        }
    }

    /// The list of tables under `key`, which is empty if the key is absent or faulty. Each must be passed to [`Reader::close`].
    pub(super) fn sections(&mut self, key: &str) -> Vec<Reader> {
        let path = self.at(key);
        match self.take(key) {
            None => vec![],
            Some(Value::Array(values)) => {
                let mut readers = Vec::new();
                for (n, value) in values.into_iter().enumerate() {
                    match value {
                        Value::Table(table) => readers.push(Reader::new(table, format!("{path}[{n}]"))),
                        _ => self.fault(key, "write a list of sections"),
                    }
                }
                readers
            }
            Some(_) => self.wrong(key, "a list of sections").unwrap_or_default(),
        }
    }

    /// Like [`Reader::sections`], but an entry of the list may also be a text, which `of_text` turns into a section.
    pub(super) fn named_sections(&mut self, key: &str, of_text: impl Fn(&str) -> Table) -> Vec<Reader> {
        let mut readers = Vec::new();
        let path = self.at(key);
        match self.take(key) {
            None => {}
            Some(Value::Array(values)) => {
                for (n, value) in values.into_iter().enumerate() {
                    match value {
                        Value::Table(table) => readers.push(Reader::new(table, format!("{path}[{n}]"))),
                        Value::String(text) => readers.push(Reader::new(of_text(&text), format!("{path}[{n}]"))),
                        _ => self.fault(key, "write a list of names and sections"),
                    }
                }
            }
            Some(_) => self.fault(key, "write a list of names and sections"),
        }
        readers
    }

    /// Takes over the faults of a section, and adds its unknown keys to them.
    pub(super) fn close(&mut self, mut section: Reader) {
        section.finish();
        self.faults.append(&mut section.faults);
    }

    /// Adds a fault for every key that was not read, with the most similar known key if there is one.
    pub(super) fn finish(&mut self) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            let hint = near(&key, self.asked.iter().map(String::as_str));
            self.fault(&key, &format!("is not a key{hint}"));
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.asked.push(key.to_owned());
        self.table.remove(key)
    }

    fn wrong<T>(&mut self, key: &str, wanted: &str) -> Option<T> {
        self.fault(key, &format!("write {wanted}"));
        None
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// Merges one file into another. Sections are merged. Lists of sections are joined, where a section replaces an earlier one with
/// the same `name`. Any other value replaces the earlier one.
pub(super) fn lay_over(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => lay_over(old, new),
            (Some(Value::Array(old)), Value::Array(new)) if old.iter().chain(&new).all(Value::is_table) => {
                for item in new {
                    old.retain(|o| o.get("name").is_none() || o.get("name") != item.get("name"));
                    old.push(item);
                }
            }
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
