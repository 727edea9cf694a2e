//! Where each class, workload, limit and issuer stands in the file, and who owns it: for explanations alone.

use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use crate::judge::{Place, Places, Section};

/// The places in texts that are merged; a later text replaces entries of an earlier one by name. A text that is not TOML has none;
/// the reader has reported it already.
pub(super) fn places(texts: &[(&str, &str)]) -> Places {
    let mut places = Places::default();
    for (text, file) in texts {
        (*file).clone_into(&mut places.file);
        let Ok(table) = DeTable::parse(text) else { continue };
        let table = table.get_ref();
        if let Some(owner) = string(table, "owner") {
            places.owner = owner;
        }
        for section in Section::ALL {
            let Some(DeValue::Array(entries)) = table.get(section.as_str()).map(|value| value.get_ref()) else { continue };
            for entry in entries.iter() {
                let DeValue::Table(keys) = entry.get_ref() else { continue };
                let Some(name) = string(keys, "name") else { continue };
                let lines = keys.iter().map(|(key, _)| (key.get_ref().to_string(), line(text, key.span().start)));
                let place = Place {
                    file: (*file).to_owned(),
                    line: line(text, entry.span().start),
                    keys: lines.collect(),
                    owner: string(keys, "owner"),
                };
                places.entries.insert((section, name), place);
            }
        }
    }
    places
}

/// Reads the `owner` of an entry, which only explanations use.
pub(super) fn read_owner(entry: &mut Reader) {
    let _ = entry.optional("owner", |s| match s.trim() {
        "" => Err("name who owns it, or leave it out".to_owned()),
        _ => Ok(()),
    });
}

fn string(table: &DeTable<'_>, key: &str) -> Option<String> {
    table.get(key)?.get_ref().as_str().map(str::to_owned)
}

/// The line of a byte, from 1.
fn line(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|b| *b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_its_line_and_its_owner() {
        let text = "owner = \"platform\"\n\n[[classes]]\nname = \"worker\"\nowner = \"ops\"\nscopes = [\n  \"a\",\n]\n\n[[limits]]\nname = \"live\"\n";
        let over = "[[limits]]\nname = \"live\"\nowner = \"finance\"\n";
        let places = places(&[(text, "base.toml"), (over, "extra.toml")]);
        let scopes = places.of(Section::Classes, "worker", Some("scopes"));
        assert_eq!(
            (scopes.at.as_str(), scopes.key.as_str(), scopes.owner.as_str()),
            ("base.toml:6", "classes.worker.scopes", "ops")
        );
        assert_eq!(places.of(Section::Classes, "worker", None).at, "base.toml:3");
        let limit = places.of(Section::Limits, "live", None);
        assert_eq!((limit.at.as_str(), limit.owner.as_str()), ("extra.toml:1", "finance"), "the later text counts");
        assert_eq!(places.of(Section::Workloads, "nobody", None).owner, "platform");
    }
}
