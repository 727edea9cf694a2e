//! Accepts HTTP/2 clients that use the path of a socket as the authority.
//!
//! Clients on gRPC's C core (Python, C++, Ruby, PHP) and in Java send the socket's path as `:authority`, such as
//! `tmp%2Fmayfly%2Fworkload.sock`. RFC 3986 does not allow that, and our HTTP library refuses the request. On a Unix socket the
//! field has no meaning, so it is replaced by `localhost` here. Everything else passes unchanged.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags, stream.
const HEADER: usize = 9;
/// RFC 9113, 6.2: a frame of this type begins a request. Its flags follow.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Longest frame that a client may send us.
const MAX_FRAME: usize = 16_384;
/// RFC 7541, appendix A: the index of `:authority`. Some clients spell the name out instead.
const INDEX: usize = 1;
const NAME: &[u8] = b":authority";
const INSTEAD: &[u8] = b"localhost";

/// A stream whose requests have a valid authority.
pub struct Lenient<S> {
    inner: S,
    frames: Frames,
    read: Box<[u8; 4096]>,
    ended: bool,
}

impl<S> Lenient<S> {
    /// Over a stream of bytes, such as a connection of a Unix socket.
    pub fn new(inner: S) -> Lenient<S> {
        Lenient { inner, frames: Frames::default(), read: Box::new([0; 4096]), ended: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.frames.give(out) || this.ended {
                return Poll::Ready(Ok(()));
            }
            let mut chunk = ReadBuf::new(this.read.as_mut_slice());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            this.ended = chunk.filled().is_empty();
            this.frames.take(chunk.filled());
            if this.ended {
                this.frames.flush();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Takes and gives bytes. At most one frame of headers is held back.
#[derive(Default)]
struct Frames {
    begun: bool,
    /// Set if the stream is not HTTP/2 or cannot be parsed: everything then passes unchanged.
    plain: bool,
    /// Bytes of the current frame that still have to pass unchanged.
    passing: usize,
    waiting: Vec<u8>,
    out: Vec<u8>,
    given: usize,
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        while self.step() {}
    }

    /// One step. Returns false if more bytes are needed.
    fn step(&mut self) -> bool {
        if self.plain {
            self.flush();
            return false;
        }
        if !self.begun {
            let known = self.waiting.len().min(PREFACE.len());
            self.plain = self.waiting.get(..known) != PREFACE.get(..known);
            self.begun = known == PREFACE.len();
            return self.plain || self.begun && self.pass(PREFACE.len());
        }
        if self.passing > 0 {
            let now = self.passing.min(self.waiting.len());
            self.passing -= now;
            return now > 0 && self.pass(now);
        }
        let Some([a, b, c, kind, flags, ..]) = self.waiting.get(..HEADER) else { return false };
        let (kind, flags, length) = (*kind, *flags, usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c));
        // Headers that continue in another frame are longer than any of this API's, and pass unchanged.
        if kind != HEADERS || flags & END_HEADERS == 0 || length > MAX_FRAME {
            self.passing = length;
            return self.pass(HEADER);
        }
        let Some(payload) = self.waiting.get(HEADER..HEADER + length) else { return false };
        match rewritten(payload, flags) {
            Some(payload) => {
                let shorter = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
                self.out.extend_from_slice(shorter.get(1..).unwrap_or_default());
                self.out.extend_from_slice(self.waiting.get(3..HEADER).unwrap_or_default());
                self.out.extend_from_slice(&payload);
                self.waiting.drain(..HEADER + length);
                true
            }
            None => self.pass(HEADER + length),
        }
    }

    fn pass(&mut self, count: usize) -> bool {
        self.out.extend(self.waiting.drain(..count));
        true
    }

    fn flush(&mut self) {
        self.out.append(&mut self.waiting);
    }

    /// Gives as many bytes as fit, and returns whether there were any.
    fn give(&mut self, to: &mut ReadBuf<'_>) -> bool {
        let left = self.out.get(self.given..).unwrap_or_default();
        let now = left.get(..left.len().min(to.remaining())).unwrap_or_default();
        to.put_slice(now);
        self.given += now.len();
        let some = !now.is_empty();
        if self.given == self.out.len() {
            self.out.clear();
            self.given = 0;
        }
        some
    }
}

/// The payload of a HEADERS frame, with the authority replaced. `None` if there is nothing to change, or it cannot be read.
fn rewritten(payload: &[u8], flags: u8) -> Option<Vec<u8>> {
    let padded = flags & PADDED != 0;
    let before = usize::from(padded) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let after = if padded { usize::from(*payload.first()?) } else { 0 };
    let end = payload.len().checked_sub(after)?;
    let block = other_authority(payload.get(before..end)?)?;
    Some([payload.get(..before)?, &block, payload.get(end..)?].concat())
}

/// A header block (RFC 7541, 6), with the authority replaced.
///
/// The new value is never longer than the old one. So every entry that is still in the client's table is also in ours, and the
/// indices stay right, because they count from the newest entry.
fn other_authority(block: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut changed) = (Vec::with_capacity(block.len()), block, false);
    while let Some(first) = rest.first() {
        let begin = rest;
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = number(&mut rest, prefix)?;
        // An entry of the tables, or a change of their size: no literal value.
        if prefix == 7 || prefix == 5 {
            out.extend_from_slice(begin.get(..begin.len() - rest.len())?);
            continue;
        }
        let named = index == INDEX || index == 0 && text(&mut rest)? == (false, NAME);
        let name = begin.get(..begin.len() - rest.len())?;
        let at = rest;
        let (huffman, value) = text(&mut rest)?;
        out.extend_from_slice(name);
        if named && (huffman || http::uri::Authority::try_from(value).is_err()) && !value.is_empty() {
            // In the Huffman code, a character of a path takes at most 15 bits.
            let length = if huffman { value.len().div_ceil(2) } else { value.len() };
            let instead = INSTEAD.get(..INSTEAD.len().min(length))?;
            out.push(u8::try_from(instead.len()).ok()?);
            out.extend_from_slice(instead);
            changed = true;
        } else {
            out.extend_from_slice(at.get(..at.len() - rest.len())?);
        }
    }
    changed.then_some(out)
}

/// Reads an integer (RFC 7541, 5.1). `None` if it is larger than a frame can be.
fn number(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let mask = (1usize << prefix) - 1;
    let (first, mut left) = rest.split_first()?;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        for shift in [0u32, 7, 14] {
            let (next, more) = left.split_first()?;
            left = more;
            value += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                *rest = left;
                return Some(value);
            }
        }
        return None;
    }
    *rest = left;
    Some(value)
}

/// Reads a string (RFC 7541, 5.2): whether it is compressed, and its bytes.
fn text<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = number(rest, 7)?;
    let (bytes, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some((huffman, bytes))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    const PATH: &[u8] = b"tmp%2Fmayfly-9bb19c0e%2Fworkload.sock";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(first: &[u8], value: &[u8]) -> Vec<u8> {
        [first, &[value.len() as u8], value].concat()
    }

    /// The output for an input that arrives in pieces of this size.
    fn through(bytes: &[u8], cut: usize) -> Vec<u8> {
        let (mut frames, mut all) = (Frames::default(), Vec::new());
        let mut give = |frames: &mut Frames| {
            let mut room = vec![0; 7];
            loop {
                let mut out = ReadBuf::new(&mut room);
                if !frames.give(&mut out) {
                    return;
                }
                all.extend_from_slice(out.filled());
            }
        };
        for chunk in bytes.chunks(cut) {
            frames.take(chunk);
            give(&mut frames);
        }
        frames.flush();
        give(&mut frames);
        all
    }

    #[test]
    fn a_path_becomes_localhost_in_every_spelling() {
        let spelled = [&[0x40, 10][..], NAME].concat();
        for first in [&[0x41][..], &[0x01], &[0x11], &spelled] {
            let (before, after) = (literal(&[0x04], b"/x"), [0x83, 0xbe, 0x3f, 0xe1, 0x1f]);
            let block = |value: &[u8]| [&before[..], &literal(first, value), &after[..]].concat();
            for (flags, head, tail) in [(4, vec![], vec![]), (0x24, vec![0; 5], vec![]), (0x0c, vec![3], vec![0; 3])] {
                let whole = |value: &[u8]| frame(1, flags, &[&head[..], &block(value), &tail[..]].concat());
                let data = frame(0, 1, b"data");
                let sent = [PREFACE, &whole(PATH), &data, &whole(b"localhost")].concat();
                let expected = [PREFACE, &whole(b"localhost"), &data, &whole(b"localhost")].concat();
                for cut in [1, 2, 9, 4096] {
                    assert_eq!(through(&sent, cut), expected, "{first:?} {flags} {cut}");
                }
            }
        }
    }

    #[test]
    fn nothing_grows_and_what_is_good_or_unreadable_passes() {
        assert_eq!(other_authority(&literal(&[0x41], b"/s")).unwrap(), literal(&[0x41], b"lo"));
        for same in [literal(&[0x41], b"example.org:443"), literal(&[0x04], PATH), vec![0x41, 9, b'x'], vec![0x41, 0]] {
            assert_eq!(other_authority(&same), None, "{same:?}");
        }
        let unended = frame(1, 0, &literal(&[0x41], PATH));
        let sent = [PREFACE, &unended].concat();
        assert_eq!(through(&sent, 5), sent);
        assert_eq!(through(b"GET / HTTP/1.1\r\n\r\n", 3), b"GET / HTTP/1.1\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_are_lost_or_made(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..40) {
            prop_assert_eq!(&through(&bytes, cut), &bytes);
            // Frames of every type except headers.
            let frames: Vec<u8> = bytes.chunks(20).flat_map(|chunk| frame(chunk[0] | 2, chunk[0], chunk)).collect();
            let sent = [PREFACE, &frames].concat();
            prop_assert_eq!(through(&sent, cut), sent);
            if let Some(other) = other_authority(&bytes) {
                prop_assert!(other.len() <= bytes.len());
            }
        }
    }
}
