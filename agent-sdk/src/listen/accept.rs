//! The accept loop: it limits the open connections, and survives the failure of one of them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pause after an error in accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket.
pub trait Listener: Send + Sync {
    /// An accepted connection.
    type Stream: Send + 'static;

    /// Waits for the next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = (TcpStream, SocketAddr);

    async fn next(&self) -> io::Result<Self::Stream> {
        self.accept().await
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// What the accept loop gives to its caller.
#[derive(Debug)]
pub enum Accepted<S> {
    /// A connection. It counts as open until the permit is dropped.
    Connection(S, OwnedSemaphorePermit),
    /// A connection was closed at once, because as many as allowed were open.
    Full,
    /// A connection could not be accepted. The loop continues after a short pause.
    Failed(io::Error),
}

/// Accepts connections until `stop` resolves, with at most `connections` open at once. `each` must not block: it starts a task
/// for a connection, and counts or logs the other cases.
pub async fn accept_each<L: Listener>(
    listener: &L,
    connections: usize,
    stop: impl Future<Output = ()>,
    mut each: impl FnMut(Accepted<L::Stream>),
) {
    let room = Arc::new(Semaphore::new(connections));
    let mut stop = pin!(stop);
    loop {
        let next = tokio::select! {
            next = listener.next() => next,
            () = stop.as_mut() => return,
        };
        match next {
            Ok(stream) => each(match Arc::clone(&room).try_acquire_owned() {
                Ok(place) => Accepted::Connection(stream, place),
                Err(_) => Accepted::Full,
            }),
            // T63: no error of one connection, nor too many open files, ends the loop.
            Err(error) => {
                each(Accepted::Failed(error));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
