//! The destination of entries: the end of a file, the syslog of the machine, or stdout.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde_json::Value;

/// Time limit for a write to the socket of syslog.
const SYSLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// Facility `authpriv`, severity `info` (RFC 3164 4.1.1).
const PRIORITY: u32 = 10 * 8 + 6;

/// Where entries go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Lines at the end of a file, which is made with mode 0600. It may be renamed away: then a new one is begun.
    File(PathBuf),
    /// The syslog of this machine, by its socket.
    Syslog(PathBuf),
    /// Lines on stdout.
    Stdout,
}

impl Sink {
    /// Whether it could be opened now, as far as that is known without making or writing anything.
    pub fn check(&self) -> Result<(), String> {
        let text = |path: &Path, e: &dyn std::fmt::Display| format!("`{}`: {e}", path.display());
        match self {
            Sink::File(path) => match std::fs::metadata(path) {
                Ok(of) if of.is_file() => Ok(()),
                Ok(_) => Err(text(path, &NOT_REGULAR)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
                    std::fs::read_dir(dir).map(drop).map_err(|e| text(dir, &e))
                }
                Err(e) => Err(text(path, &e)),
            },
            Sink::Syslog(path) => syslog(path).map(drop).map_err(|e| text(path, &e)),
            Sink::Stdout => Ok(()),
        }
    }
}

/// The error for a pipe, a folder or a device.
const NOT_REGULAR: &str = "is not a regular file: name one, or use `syslog` or `stdout`";

/// A sink that is opened when it has to be.
pub(super) struct Target {
    sink: Sink,
    open: Option<Open>,
}

enum Open {
    File(File, Inode),
    Syslog(UnixDatagram),
    Stdout,
}

/// The device and number of a file.
type Inode = (u64, u64);

impl Target {
    pub(super) fn new(sink: Sink) -> Target {
        Target { sink, open: None }
    }

    /// Opens it, unless it is open and still the same file.
    pub(super) fn open(&mut self) -> Result<(), String> {
        self.opened().map(drop).map_err(|e| self.said(&e))
    }

    /// Writes lines, each with a number that is not written. Returns how many were taken, and why the next one was not.
    pub(super) fn write(&mut self, lines: &[(u64, String)]) -> (usize, Result<(), String>) {
        let (taken, outcome) = match self.opened() {
            Ok(open) => open.write(lines),
            Err(e) => (0, Err(e)),
        };
        if outcome.is_err() {
            // A line may be half written, so the file is opened again.
            self.open = None;
        }
        (taken, outcome.map_err(|e| self.said(&e)))
    }

    fn said(&self, error: &io::Error) -> String {
        match &self.sink {
            Sink::File(path) | Sink::Syslog(path) => format!("`{}`: {error}", path.display()),
            Sink::Stdout => format!("stdout: {error}"),
        }
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        if let (Some(Open::File(_, inode)), Sink::File(path)) = (&self.open, &self.sink)
            && std::fs::metadata(path).map_or(true, |now| (now.dev(), now.ino()) != *inode)
        {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => match &self.sink {
                Sink::File(path) => file(path)?,
                Sink::Syslog(path) => syslog(path)?,
                Sink::Stdout => Open::Stdout,
            },
        };
        Ok(self.open.insert(open))
    }
}

impl Open {
    fn write(&mut self, lines: &[(u64, String)]) -> (usize, io::Result<()>) {
        let text = || lines.iter().fold(String::new(), |all, (_, line)| all + line + "\n");
        let whole = |outcome: io::Result<()>| (if outcome.is_ok() { lines.len() } else { 0 }, outcome);
        match self {
            Open::File(file, _) => whole(file.write_all(text().as_bytes()).and_then(|()| file.sync_data())),
            Open::Stdout => {
                let mut out = io::stdout().lock();
                whole(out.write_all(text().as_bytes()).and_then(|()| out.flush()))
            }
            Open::Syslog(socket) => {
                // Each line is a datagram, so those that were sent before a failure are not sent again.
                for (taken, (_, line)) in lines.iter().enumerate() {
                    if let Err(e) = send(socket, line) {
                        return (taken, Err(e));
                    }
                }
                (lines.len(), Ok(()))
            }
        }
    }
}

/// Sends one line. One that is longer than a datagram may be is sent without its lists.
fn send(socket: &UnixDatagram, line: &str) -> io::Result<()> {
    let header = format!("<{PRIORITY}>mayfly[{}]: ", std::process::id());
    match socket.send(format!("{header}{line}").as_bytes()) {
        Err(e) if e.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => {
            socket.send(format!("{header}{}", shortened(line)).as_bytes()).map(drop)
        }
        outcome => outcome.map(drop),
    }
}

/// Opens a file to append to it. A line that a stop cut off gets a line feed.
fn file(path: &Path) -> io::Result<Open> {
    // If the path is a pipe, opening it or writing to it could block forever.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let of = file.metadata()?;
    if !of.is_file() {
        return Err(io::Error::other(NOT_REGULAR));
    }
    if of.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(Open::File(file, (of.dev(), of.ino())))
}

fn syslog(path: &Path) -> io::Result<Open> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SYSLOG_TIMEOUT))?;
    socket.connect(path)?;
    Ok(Open::Syslog(socket))
}

/// A line without the fields that others can make long; `shortened` says so.
fn shortened(line: &str) -> String {
    let mut object: Value = serde_json::from_str(line).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        for long in ["chain", "asked", "scopes", "audiences", "reason", "request_id"] {
            fields.remove(long);
        }
        fields.insert("shortened".to_owned(), true.into());
    }
    object.to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn numbered(lines: &[&str]) -> Vec<(u64, String)> {
        (0..).zip(lines.iter().map(|line| (*line).to_owned())).collect()
    }

    #[test]
    fn t166_a_pipe_or_a_folder_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let told = Target::new(Sink::File(pipe)).open().unwrap_err();
        assert!(told.contains("not a regular file") && told.contains("syslog"), "{told}");
        Target::new(Sink::File(dir.path().to_owned())).open().unwrap_err();
    }

    #[test]
    fn t166_a_line_that_a_stop_cut_off_is_ended_and_only_its_owner_reads_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let write = |line: &str| Target::new(Sink::File(path.clone())).write(&numbered(&[line]));
        assert_eq!(write("{\"a\":1}"), (1, Ok(())));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"a\":").unwrap();
        assert_eq!(write("{\"a\":2}"), (1, Ok(())));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\":\n{\"a\":2}\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn t166_syslog_gets_each_entry_once_and_a_long_one_without_its_lists() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut target = Target::new(Sink::Syslog(path.clone()));
        let received = || {
            let mut buffer = vec![0; 1 << 20];
            let length = daemon.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned();
            let (header, line) = text.split_once(": ").unwrap();
            assert_eq!(header, format!("<86>mayfly[{}]", std::process::id()));
            serde_json::from_str::<Value>(line).unwrap()
        };
        let long = format!("{{\"index\":1,\"asked\":[\"{}\"]}}", "x".repeat(4 << 20));
        assert_eq!(target.write(&numbered(&["{\"index\":0}", &long])), (2, Ok(())));
        assert_eq!(received(), serde_json::json!({ "index": 0 }));
        assert_eq!(received(), serde_json::json!({ "index": 1, "shortened": true }));
        // Nobody reads the socket: datagrams that fit into its buffer count as sent, and the failure is reported in time.
        let many = vec!["{}"; 100_000];
        let (taken, outcome) = target.write(&numbered(&many));
        assert!(taken > 0 && taken < many.len() && outcome.is_err(), "{taken}");
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        let _again = UnixDatagram::bind(&path).unwrap();
        assert_eq!(target.write(&numbered(&["{}"])), (1, Ok(())), "a syslog that was started anew");
    }
}
