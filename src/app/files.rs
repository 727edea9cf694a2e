//! The limit on open files, which bounds the connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number that is assumed if there is no limit.
const UNLIMITED: usize = 1 << 20;

/// Raises the soft limit to the hard one. Returns how many files this process may open.
pub(super) fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit on open files cannot be raised");
        return files(limit.current);
    }
    files(limit.maximum)
}

/// How many files a process that is started here may open: the hard limit.
pub fn most() -> usize {
    files(getrlimit(Resource::Nofile).maximum)
}

fn files(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).map_or(UNLIMITED, |limit| limit.min(UNLIMITED))
}
