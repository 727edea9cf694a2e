//! A TLS connection whose peer was verified, until the guard closes it.

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

/// A connection whose peer was verified. When the peer is revoked or expires, reading and writing fail. A server always reads,
/// in order to notice a closed connection, and so notices this too.
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

    /// The peer, for the extensions of each request.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Fails, or wakes the reader later, when the guard closes the connection. The guard sends nothing: it drops its sender.
    fn readable(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.ended = self.ended || Pin::new(&mut self.over).poll(cx).is_ready();
        if self.ended { Err(aborted()) } else { Ok(()) }
    }

    /// Does not register a waker: the writer's would replace the reader's.
    fn writable(&mut self) -> io::Result<()> {
        self.ended = self.ended || !matches!(self.over.try_recv(), Err(TryRecvError::Empty));
        if self.ended { Err(aborted()) } else { Ok(()) }
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the peer's credential was revoked or has expired")
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
