//! Counts the control frames of an HTTP/2 connection, and ends a connection that sends little else (T96).
//!
//! A PING or a SETTINGS frame costs its sender nothing, but the receiver has to answer it. An honest client sends some of them with
//! each request and for data that it receives, so both raise the limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// What an HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Control frames that may come at once.
const BURST: u64 = 2000;
/// Control frames that may come in each second.
const PER_SECOND: u64 = 200;
/// Control frames by which a request raises the limit.
const PER_REQUEST: u64 = 16;
/// Bytes of responses that raise the limit by one control frame. The answers to control frames themselves are far smaller.
const WRITTEN: u64 = 1024;

/// A DATA frame below this size carries no message that is worth its cost, so it counts as a control frame.
const SMALL: usize = 64;

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// A connection whose control frames are counted.
pub(super) struct Metered<S> {
    stream: S,
    activity: Arc<Activity>,
    at: At,
    credit: Credit,
    ended: bool,
}

/// The position of the reader in the stream of frames.
enum At {
    /// The reader is in the connection preface, of which this many bytes have arrived.
    Preface(usize),
    /// The reader is in a frame's head, of which this many bytes have arrived.
    Head([u8; 9], usize),
    /// The reader is in a frame's payload, of which this many bytes have not arrived yet.
    Payload(usize),
    /// The stream is not HTTP/2.
    Other,
}

struct Credit {
    left: u64,
    refilled: Instant,
    written: u64,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Metered<S> {
        let credit = Credit { left: BURST, refilled: Instant::now(), written: 0 };
        Metered { stream, activity, at: At::Preface(0), credit, ended: false }
    }

    /// Returns `false` if the connection must be closed.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(first) = bytes.first() {
            match &mut self.at {
                At::Preface(come) => {
                    if PREFACE.get(*come) != Some(first) {
                        self.at = At::Other;
                        continue;
                    }
                    *come += 1;
                    bytes = bytes.get(1..).unwrap_or_default();
                    if *come == PREFACE.len() {
                        self.at = At::Head([0; 9], 0);
                    }
                }
                At::Head(head, come) => {
                    if let Some(byte) = head.get_mut(*come) {
                        *byte = *first;
                    }
                    *come += 1;
                    bytes = bytes.get(1..).unwrap_or_default();
                    if *come == head.len() {
                        let [a, b, c, kind, ..] = *head;
                        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
                        self.at = if length == 0 { At::Head([0; 9], 0) } else { At::Payload(length) };
                        if !self.credit.frame(kind, length) {
                            return false;
                        }
                    }
                }
                At::Payload(left) => {
                    let here = (*left).min(bytes.len());
                    *left -= here;
                    bytes = bytes.get(here..).unwrap_or_default();
                    if *left == 0 {
                        self.at = At::Head([0; 9], 0);
                    }
                }
                At::Other => return true,
            }
        }
        true
    }
}

impl Credit {
    fn frame(&mut self, kind: u8, length: usize) -> bool {
        match kind {
            DATA if length >= SMALL => return true,
            HEADERS => {
                self.left = (self.left + PER_REQUEST).min(BURST);
                return true;
            }
            _ => {}
        }
        if self.left == 0 {
            self.refill();
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn refill(&mut self) {
        let elapsed = u64::try_from(self.refilled.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.left = (elapsed.saturating_mul(PER_SECOND) / 1000 + self.written / WRITTEN).min(BURST);
        if self.left > 0 {
            self.refilled = Instant::now();
            self.written %= WRITTEN;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if !self.ended {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            let come = buf.filled().get(before..).unwrap_or_default();
            if come.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.activity.hear();
            if self.read(come) {
                return Poll::Ready(Ok(()));
            }
            self.ended = true;
            metrics::counter!("mayfly_connections_ended_total", "reason" => "flood").increment(1);
        }
        Poll::Ready(Err(io::Error::other("too many control frames")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.credit.written = self.credit.written.saturating_add(u64::try_from(written).unwrap_or(0));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
