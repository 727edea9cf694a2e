//! File and line of the parts of the configuration, and their owners, for explanations. No verdict depends on them.

use std::collections::BTreeMap;

/// A kind of list in the configuration whose entries have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[[classes]]`.
    Classes,
    /// `[[workloads]]`.
    Workloads,
    /// `[[limits]]`.
    Limits,
    /// `[[issuers]]`.
    Issuers,
}

impl Section {
    /// Every section.
    pub const ALL: [Section; 4] = [Section::Classes, Section::Workloads, Section::Limits, Section::Issuers];

    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Section::Classes => "classes",
            Section::Workloads => "workloads",
            Section::Limits => "limits",
            Section::Issuers => "issuers",
        }
    }
}

/// One entry of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The name of its file.
    pub file: String,
    /// The line at which it begins, from 1.
    pub line: usize,
    /// The line of each key.
    pub keys: BTreeMap<String, usize>,
    /// Its `owner`. `None` if it names none.
    pub owner: Option<String>,
}

/// The origin of a check, a scope or a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its file and line, such as `mayfly.toml:41`; empty for what no file defines.
    pub at: String,
    /// The configuration key, such as `classes.researcher.scopes`, or the record, such as `delegation 6f…`.
    pub key: String,
    /// Who owns it.
    pub owner: String,
}

/// The places of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The name of the last file.
    pub file: String,
    /// The default owner. Empty if the configuration names none.
    pub owner: String,
    /// Every entry, by its section and name.
    pub entries: BTreeMap<(Section, String), Place>,
}

impl Places {
    /// Where an entry is defined, or one of its keys.
    pub fn of(&self, section: Section, name: &str, key: Option<&str>) -> Source {
        let path = match key {
            Some(key) => format!("{}.{name}.{key}", section.as_str()),
            None => format!("{}.{name}", section.as_str()),
        };
        match self.entries.get(&(section, name.to_owned())) {
            Some(place) => {
                let line = key.and_then(|key| place.keys.get(key)).unwrap_or(&place.line);
                let owner = place.owner.clone().unwrap_or_else(|| self.default_owner());
                Source { at: format!("{}:{line}", place.file), key: path, owner }
            }
            None => Source { at: self.file.clone(), key: path, owner: self.default_owner() },
        }
    }

    /// The source of a key outside of the lists, or of something that is in no file.
    pub fn elsewhere(&self, key: &str) -> Source {
        Source { at: self.file.clone(), key: key.to_owned(), owner: self.default_owner() }
    }

    /// The source of something that is in a record.
    pub fn record(&self, key: String, owner: Option<&str>) -> Source {
        let owner = owner.filter(|owner| !owner.is_empty()).map_or_else(|| self.default_owner(), str::to_owned);
        Source { at: String::new(), key, owner }
    }

    /// The owner that an entry names itself.
    pub fn named_owner(&self, section: Section, name: &str) -> Option<&str> {
        self.entries.get(&(section, name.to_owned()))?.owner.as_deref()
    }

    /// The owner of entries that name no owner.
    pub fn default_owner(&self) -> String {
        if self.owner.is_empty() { "the operators".to_owned() } else { self.owner.clone() }
    }
}
