//! Stores the keys of a provider in the home of the issuer. After a restart they are used while the provider is down, for no longer
//! than without the restart.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::jose::KeySet;
use crate::keys::keystore::write_private;

/// Longest file that is read, in bytes: the largest document, written as a JSON string.
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// The source of keys. Keys of one source are never used for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) issuer: String,
    pub(super) jwks_url: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
}

/// The file of one provider.
pub(super) struct Place {
    path: PathBuf,
    origin: Origin,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(flatten)]
    origin: Origin,
    // Unix seconds at which they were fetched.
    at: u64,
    document: String,
}

impl Place {
    /// The file in this folder.
    pub(super) fn new(dir: &Path, origin: Origin) -> Place {
        let name = hex::encode(mayfly_verify::sha256(origin.issuer.as_bytes()).get(..16).unwrap_or_default());
        Place { path: dir.join(format!("{name}.json")), origin }
    }

    /// The keys that were kept, and when they were fetched (Unix seconds). `None` if there are none that can be used.
    pub(super) fn load(&self) -> Option<(KeySet, u64)> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if there.is_file() && there.len() <= MAX_FILE => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            _ => return self.unusable("it is no plain file of a sensible size"),
        }
        let mut text = Vec::new();
        if let Err(e) = File::open(&self.path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)) {
            return self.unusable(&e.to_string());
        }
        let Ok(stored) = serde_json::from_slice::<Stored>(&text) else { return self.unusable("it is damaged") };
        if stored.origin != self.origin {
            return None;
        }
        match KeySet::parse(stored.document.as_bytes()) {
            Ok(set) if set.len() > 0 => Some((set, stored.at)),
            _ => self.unusable("it has no usable keys"),
        }
    }

    /// Stores the document of a provider, fetched at `at` (Unix seconds). Keys that cannot be stored are used all the same.
    pub(super) fn store(&self, document: &[u8], at: u64) {
        let Ok(document) = String::from_utf8(document.to_vec()) else { return };
        let stored = Stored { origin: self.origin.clone(), at, document };
        let written = serde_json::to_vec(&stored).map_err(|e| e.to_string());
        let written = written.and_then(|text| write_private(&self.path, &text).map_err(|e| e.to_string()));
        if let Err(cause) = written {
            tracing::warn!(issuer = self.origin.issuer, cause, "the provider's keys cannot be kept for the next start");
        }
    }

    fn unusable<T>(&self, why: &str) -> Option<T> {
        tracing::warn!(path = %self.path.display(), why, "the kept keys of a provider are not used: they are fetched again");
        None
    }
}
