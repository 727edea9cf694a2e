//! A connection with time limits for being idle: before its first byte, between two bytes, and while the client does not read its
//! response (T115).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long each kind of silence may last.
#[derive(Clone, Copy)]
struct Limits {
    /// Before the first byte.
    first: Duration,
    /// Between two.
    idle: Duration,
    /// Limit while the other end reads nothing.
    stuck: Duration,
}

/// The second limit is longer than proxies keep an idle connection (an hour in Envoy). So the proxy closes it first, and never
/// sends a request on a connection that is being closed.
const LIMITS: Limits =
    Limits { first: Duration::from_secs(10), idle: Duration::from_secs(65 * 60), stuck: Duration::from_secs(30) };

pub(super) struct Patient<S> {
    inner: S,
    limits: Limits,
    idle: Pin<Box<Sleep>>,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S) -> Patient<S> {
        Patient::with(inner, LIMITS)
    }

    fn with(inner: S, limits: Limits) -> Patient<S> {
        Patient { inner, limits, idle: Box::pin(tokio::time::sleep(limits.first)), stuck: None }
    }

    /// The result of a write: progress, or an error if there was none for too long.
    fn written<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let limit = self.limits.stuck;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, out);
        if polled.is_ready() {
            let limit = self.limits.idle;
            self.idle.as_mut().reset(Instant::now() + limit);
            return polled;
        }
        self.idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.written(polled, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(polled, cx)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn t115_silence_and_a_full_pipe_end_a_connection_and_progress_does_not() {
        let part = Duration::from_millis;
        let limits = Limits { first: part(50), idle: part(1500), stuck: part(80) };
        // Silent from the beginning.
        let (_client, server) = duplex(8);
        assert_eq!(Patient::with(server, limits).read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // One byte, another one after a while, and then nothing.
        let (mut client, server) = duplex(8);
        client.write_u8(1).await.unwrap();
        let mut server = Patient::with(server, limits);
        assert_eq!(server.read_u8().await.unwrap(), 1);
        let later = async {
            tokio::time::sleep(3 * limits.first).await;
            client.write_u8(2).await.unwrap();
        };
        assert_eq!(tokio::join!(server.read_u8(), later).0.unwrap(), 2);
        let started = Instant::now();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= limits.idle / 2);
        // A reader that reads nothing.
        let started = Instant::now();
        assert_eq!(server.write_all(&[0; 100]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= limits.stuck);
    }
}
