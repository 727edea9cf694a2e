//! Reads files within a time limit, because a read may never end: the file may be a pipe, or its file system unreachable.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::exit::{FAILURE, Failure};

/// How long files may take to be read, as in an issuer that reloads them.
const READING: Duration = Duration::from_secs(5);

/// Runs `read`, which reads `path` and the files that it names. Fails after five seconds.
pub(super) fn within<T: Send + 'static>(path: &Path, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let (done, result) = channel();
    // A thread that is still reading ends with the process.
    std::thread::spawn(move || drop(done.send(read())));
    result.recv_timeout(READING).map_err(|e| {
        let what = match e {
            RecvTimeoutError::Timeout => "was not read within 5 seconds, or a file that it names: is one of them a pipe?",
            RecvTimeoutError::Disconnected => "cannot be read: the reader panicked",
        };
        Failure::new(FAILURE, format!("`{}` {what}", path.display()))
    })
}
