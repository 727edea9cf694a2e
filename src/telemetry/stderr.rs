//! Writes the log to standard error. Lines that cannot be written at once are dropped and counted, so that a slow reader blocks
//! nothing, and a closed standard error causes no panic.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use tracing_subscriber::fmt::MakeWriter;

use super::escape::is_dangerous;

/// Bytes that a ready pipe accepts without blocking: on Linux a page is free in it.
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Where lines go.
pub(super) struct Lines<W> {
    // Guards the output, so that lines do not mix. It is held for a write that does not wait.
    out: Mutex<Out<W>>,
    /// Whether the lines are JSON, in which dangerous characters are not escaped yet.
    json: bool,
}

struct Out<W> {
    to: W,
    /// Whether the last line is incomplete.
    torn: bool,
}

impl Lines<Stderr> {
    /// The standard error of this process.
    pub(super) fn stderr(json: bool) -> Lines<Stderr> {
        Lines::new(Stderr::here(), json)
    }
}

impl<W: Ready + Write> Lines<W> {
    fn new(to: W, json: bool) -> Lines<W> {
        Lines { out: Mutex::new(Out { to, torn: false }), json }
    }

    /// Writes a line. Bytes that cannot be written at once are dropped. A line after an incomplete one begins with a line feed.
    fn line(&self, line: &[u8]) {
        let escaped = if self.json { escaped(line) } else { None };
        let line = escaped.as_deref().unwrap_or(line);
        let mut out = self.out.lock();
        let after_torn = if out.torn { [b"\n", line].concat() } else { Vec::new() };
        let line = if out.torn { &after_torn } else { line };
        let mut rest = line;
        while !rest.is_empty() {
            let piece = rest.get(..PIECE).unwrap_or(rest);
            match if out.to.is_ready() { out.to.write(piece) } else { Ok(0) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
                Ok(_) | Err(_) => {
                    out.torn = out.torn || rest.len() < line.len();
                    drop(out);
                    metrics::counter!("mayfly_log_lines_dropped_total").increment(1);
                    return;
                }
            }
        }
        out.torn = false;
    }
}

/// JSON with every dangerous character as `\u009b`. These occur only in strings. `None` if there is none.
fn escaped(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let (body, end) = text.strip_suffix('\n').map_or((text, ""), |body| (body, "\n"));
    if !body.contains(is_dangerous) {
        return None;
    }
    let mut safe = String::with_capacity(line.len() + 64);
    for c in body.chars() {
        // All of them are below U+10000.
        if is_dangerous(c) { safe.push_str(&format!("\\u{:04x}", u32::from(c))) } else { safe.push(c) }
    }
    Some((safe + end).into_bytes())
}

/// An output that can say whether a write would block.
pub(super) trait Ready {
    fn is_ready(&self) -> bool;
}

/// The standard error.
pub(super) struct Stderr {
    // A ready terminal may still block a write that is longer than its room, so it is opened a second time in non-blocking mode.
    // This does not change the mode for other processes.
    terminal: Option<File>,
}

impl Stderr {
    fn here() -> Stderr {
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
        let open = || OpenOptions::new().write(true).custom_flags(flags).open("/dev/stderr").ok();
        Stderr { terminal: if io::stderr().is_terminal() { open() } else { None } }
    }
}

impl Ready for Stderr {
    fn is_ready(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stderr = rustix::stdio::stderr();
        let mut waits = [PollFd::new(&stderr, PollFlags::OUT)];
        let ready = poll(&mut waits, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok_and(|n| n > 0) && waits.iter().all(|one| one.revents().contains(PollFlags::OUT))
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.terminal {
            Some(terminal) => terminal.write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line, as the log writes it.
pub(super) struct Line<'a, W: Ready + Write>(&'a Lines<W>);

impl<W: Ready + Write> Write for Line<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes);
        // Dropped bytes are not reported as an error, because the log would try to log it.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, W: Ready + Write + 'static> MakeWriter<'a> for Lines<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// An output that has room for this many bytes, and fails after them.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>, bool);

    impl Ready for Pipe {
        fn is_ready(&self) -> bool {
            self.2 || self.1.load(Ordering::SeqCst) > 0
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1.load(Ordering::SeqCst);
            if room == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let n = bytes.len().min(room);
            self.1.fetch_sub(n, Ordering::SeqCst);
            self.0.lock().extend_from_slice(bytes.get(..n).unwrap());
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn t215_what_nobody_reads_is_dropped_and_nobody_waits_or_panics() {
        for broken in [false, true] {
            let pipe = Pipe(Arc::default(), Arc::new(AtomicUsize::new(12)), broken);
            let lines = Lines::new(pipe.clone(), false);
            for _ in 0..3 {
                lines.make_writer().write_all(b"a line\n").unwrap();
            }
            // Somebody reads again.
            pipe.1.store(1000, Ordering::SeqCst);
            lines.make_writer().write_all(b"the next\n").unwrap();
            lines.make_writer().write_all(b"and one more\n").unwrap();
            let text = String::from_utf8(pipe.0.lock().clone()).unwrap();
            assert_eq!(text, "a line\na lin\nthe next\nand one more\n");
        }
    }

    #[test]
    fn t215_json_has_no_control_character_of_others() {
        let sent = "x\u{9b}2J\u{202e}\u{2028}é\u{7f}";
        let line = serde_json::to_string(&serde_json::json!({ "message": sent })).unwrap() + "\n";
        let safe = String::from_utf8(escaped(line.as_bytes()).unwrap()).unwrap();
        assert!(safe.ends_with('\n') && safe.trim_end().chars().all(|c| !is_dangerous(c)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap().get("message").unwrap(), sent);
        assert_eq!(escaped(b"{\"message\":\"plain\"}\n"), None);
    }
}
