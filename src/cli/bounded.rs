//! Reading files that may never end: a pipe in the place of a file, or a file system that has gone.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::exit::{FAILURE, Failure};

/// How long files may take to be read, as in an issuer that reloads them.
const READING: Duration = Duration::from_secs(5);

/// What comes of reading `path`, and the files that it names, within five seconds.
pub(super) fn within<T: Send + 'static>(path: &Path, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let (done, result) = channel();
    // It ends with the process if it does not end before.
    std::thread::spawn(move || drop(done.send(read())));
    result.recv_timeout(READING).map_err(|e| {
        let what = match e {
            RecvTimeoutError::Timeout => "was not read within 5 seconds, or a file that it names: is one of them a pipe?",
            RecvTimeoutError::Disconnected => "cannot be read: the reader panicked",
        };
        Failure::new(FAILURE, format!("`{}` {what}", path.display()))
    })
}
