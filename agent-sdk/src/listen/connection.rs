//! A connection whose peer was verified: TLS, until the guard ends it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::peers::Peer;

/// A connection whose peer was verified. When its peer is nobody any more, reading and writing fail; whoever serves it reads
/// all the time, to notice a peer that goes away, and so notices this too.
#[derive(Debug)]
pub struct Connection {
    tls: TlsStream<TcpStream>,
    peer: Peer,
    over: oneshot::Receiver<()>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(
        tls: TlsStream<TcpStream>,
        peer: Peer,
        over: oneshot::Receiver<()>,
        place: OwnedSemaphorePermit,
    ) -> Connection {
        Connection { tls, peer, over, ended: false, _place: place }
    }

    /// Who is at the other end, for the extensions of each of its requests.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Wakes the reader when the guard ends it. The guard never sends: it drops its half.
    fn readable(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.ended = self.ended || Pin::new(&mut self.over).poll(cx).is_ready();
        if self.ended { Err(aborted()) } else { Ok(()) }
    }

    /// Only a reader waits: a writer of another task would take its place.
    fn writable(&mut self) -> io::Result<()> {
        self.ended = self.ended || !matches!(self.over.try_recv(), Err(TryRecvError::Empty));
        if self.ended { Err(aborted()) } else { Ok(()) }
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is nobody any more")
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.readable(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writable()?;
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.writable()?;
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
