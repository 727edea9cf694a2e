//! `[policy]`: the folder of the policies in force, and that of a candidate set that is evaluated beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reader::Reader;
use crate::policies::Policies;

/// The section.
pub(super) struct Policy {
    pub(super) in_force: Option<Arc<Policies>>,
    pub(super) shadow: Option<Arc<Policies>>,
}

pub(super) fn read_policy(p: &mut Reader) -> Policy {
    Policy { in_force: read_set(p, "dir"), shadow: read_set(p, "shadow") }
}

/// The set in the folder that a key names. Each fault of the set is a fault of the configuration, so an issuer never starts with a
/// part of its policies.
fn read_set(p: &mut Reader, key: &str) -> Option<Arc<Policies>> {
    let dir: PathBuf = p.optional(key, |s| Ok(PathBuf::from(s)))?;
    match Policies::load(Path::new(&dir)) {
        Ok(set) => Some(Arc::new(set)),
        Err(faults) => {
            faults.iter().for_each(|fault| p.fault(key, fault));
            None
        }
    }
}
