//! The settings of HTTP, for peers with an identity and for strangers.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

use super::Bounds;

/// Most concurrent streams of a stranger's connection.
const STRANGER_STREAMS: u32 = 16;

/// The flow-control window of a connection, and of one of its streams, in bytes. A stranger's is the initial window of HTTP/2.
const WINDOW: u32 = 256 * 1024;
const STRANGER_WINDOW: u32 = 65_535;

/// Most bytes of a stream's response that are buffered.
const SEND: usize = 256 * 1024;
const STRANGER_SEND: usize = 16 * 1024;

/// Bytes of the largest TLS record. Responses are buffered up to this size before they are written.
const RECORD: usize = 16 * 1024;
const STRANGER_RECORD: usize = 2 * 1024;

/// The settings of a connection.
pub(super) fn http(bounds: Bounds, stranger: bool) -> Builder<TokioExecutor> {
    let (streams, window, send) = if stranger {
        (bounds.streams.min(STRANGER_STREAMS), STRANGER_WINDOW, STRANGER_SEND)
    } else {
        (bounds.streams, WINDOW, SEND)
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(window)
        .initial_connection_window_size(if stranger { window } else { 4 * window })
        .max_send_buf_size(send)
        .max_header_list_size(bounds.headers)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder.http1().timer(TokioTimer::new()).max_buf_size(RECORD).header_read_timeout(Duration::from_secs(10));
    builder
}

/// Bytes of responses that are written together.
pub(super) fn written(stranger: bool) -> usize {
    if stranger { STRANGER_RECORD } else { RECORD }
}
