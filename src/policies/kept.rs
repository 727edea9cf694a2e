//! Sets of policies that were in force, by their digest: each in a file of its own, so that decisions of the history can be decided again
//! under the policies of their time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::set::digest;
use super::{Policies, SCHEMA};

/// Longest file that is read, in bytes: the longest set, written as JSON.
const LONGEST: u64 = 8 << 20;

/// The sets in a folder.
pub struct Kept {
    dir: PathBuf,
    age: Duration,
}

/// A set in its file, with the schema that its digest covers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: String,
    texts: Vec<(String, String)>,
}

impl Kept {
    /// Uses this folder, which need not exist. Each set is kept for `age` after it was last in force.
    pub fn new(dir: PathBuf, age: Duration) -> Kept {
        Kept { dir, age }
    }

    /// Stores the sets that are in force now, and deletes those that are too old. Blocks.
    pub fn in_force<'a>(&self, sets: impl IntoIterator<Item = &'a Arc<Policies>>) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        // ORDER: before old files are deleted, so that sets in force count as new.
        sets.into_iter().try_for_each(|set| self.keep(set))?;
        self.forget()
    }

    /// Stores a set, or updates the time of its file to say that it is in force.
    fn keep(&self, set: &Policies) -> io::Result<()> {
        let path = self.path(&hex::encode(set.digest()));
        if let Ok(file) = File::options().append(true).open(&path) {
            return file.set_modified(SystemTime::now());
        }
        let written = Written { schema: SCHEMA.to_owned(), texts: set.texts().to_vec() };
        let text = serde_json::to_vec(&written).map_err(io::Error::other)?;
        // Renamed when complete, so that the file is never partial.
        let begun = path.with_extension("new");
        let mut file = File::create(&begun)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&begun, &path)
    }

    /// The set with a digest in hex. `None` if it is not stored, or does not match the digest.
    pub fn open(&self, named: &str) -> Option<Policies> {
        if named.len() != 64 || !named.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let path = self.path(named);
        if !path.metadata().is_ok_and(|about| about.is_file() && about.len() <= LONGEST) {
            return None;
        }
        let Written { schema, texts } = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        // T253: somebody who can write to the folder must not be able to change which policies seem to have been in force.
        if hex::encode(digest(&schema, &texts)) != named {
            return None;
        }
        Policies::of_texts(texts).ok()
    }

    fn forget(&self) -> io::Result<()> {
        let age = self.age;
        let old = |path: &Path| {
            let modified = path.metadata().and_then(|about| about.modified()).ok();
            modified.is_some_and(|at| at.elapsed().is_ok_and(|since| since > age))
        };
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "json" || ending == "new") && old(&path) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}.json"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TEXT: &str = "@id(\"a\") @owner(\"o\") @reason(\"r\") forbid(principal, action, resource);";

    #[test]
    fn t253_a_set_is_opened_as_it_was_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path().join("policies"), Duration::from_secs(60));
        let set = Arc::new(Policies::of_texts(vec![("a.cedar".into(), TEXT.into())]).unwrap());
        let name = hex::encode(set.digest());
        assert!(kept.open(&name).is_none());
        kept.in_force([&set]).unwrap();
        kept.in_force([&set]).unwrap();
        assert_eq!(kept.open(&name).unwrap().texts(), set.texts());
        assert!(kept.open("../../etc/passwd").is_none() && kept.open(&name.replace(|c: char| c.is_ascii_digit(), "0")).is_none());
        // A file that was changed or is incomplete is refused.
        let path = dir.path().join(format!("policies/{name}.json"));
        let text = fs::read_to_string(&path).unwrap();
        for other in [text.replace("forbid", "permit"), text.split_at(text.len() / 2).0.to_owned(), String::new()] {
            fs::write(&path, other).unwrap();
            assert!(kept.open(&name).is_none());
        }
        fs::write(&path, &text).unwrap();
        kept.in_force([]).unwrap();
        assert!(kept.open(&name).is_some());
        File::options().append(true).open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(90)).unwrap();
        kept.in_force([]).unwrap();
        assert!(kept.open(&name).is_none());
    }
}
