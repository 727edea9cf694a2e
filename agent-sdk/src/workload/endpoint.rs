//! The address of a Workload API, and a channel to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint as At, Uri};
use tower::service_fn;

use super::WorkloadError;

/// Environment variable with the address of the Workload API (CL-1).
pub const ENDPOINT: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Time limit for a local socket to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The address of a Workload API, on this machine or on a network that identifies the workload by other means (WE-2): the API
/// itself does not authenticate its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An absolute path.
    Unix(PathBuf),
    /// An IP address, never a name.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// Reads `SPIFFE_ENDPOINT_SOCKET`.
    pub fn from_env() -> Result<Endpoint, WorkloadError> {
        let text = std::env::var_os(ENDPOINT).filter(|text| !text.is_empty()).ok_or(WorkloadError::NoEndpoint)?;
        Endpoint::parse(&text.to_string_lossy())
    }

    /// Parses `unix:///path` or `tcp://IP:port` (WE-10).
    pub fn parse(text: &str) -> Result<Endpoint, WorkloadError> {
        let read = || {
            if let Some(address) = text.strip_prefix("tcp://") {
                return address.parse().ok().filter(|at: &SocketAddr| at.port() != 0).map(Endpoint::Tcp);
            }
            let path = text.strip_prefix("unix:")?;
            // Between the second and the third slash there would be an authority.
            let path = if path.starts_with("//") { path.strip_prefix("//")? } else { path };
            let whole = path.starts_with('/') && !path.starts_with("//") && !path.ends_with('/');
            // Characters that are special in a URI but that we would treat literally.
            (whole && !path.contains(['%', '?', '#', '\0'])).then(|| Endpoint::Unix(PathBuf::from(path)))
        };
        read().ok_or_else(|| WorkloadError::Endpoint(text.chars().take(256).collect()))
    }

    /// A channel that connects when it is used, and again whenever the connection is lost. It sends no keep-alive pings: gRPC
    /// servers in Go treat more than one in five minutes as an attack.
    pub(super) fn channel(&self) -> Channel {
        let at = At::from_static("http://localhost");
        match self.clone() {
            Endpoint::Unix(path) => at.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let path = path.clone();
                async move { in_time(UnixStream::connect(path)).await.map(TokioIo::new) }
            })),
            Endpoint::Tcp(address) => at.connect_with_connector_lazy(service_fn(move |_: Uri| async move {
                in_time(TcpStream::connect(address)).await.map(TokioIo::new)
            })),
        }
    }
}

async fn in_time<T>(connect: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(PATIENCE, connect).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl1_we10_an_endpoint_is_a_path_or_an_ip_address() {
        for (text, path) in [("unix:///run/a.sock", "/run/a.sock"), ("unix:/run/a.sock", "/run/a.sock")] {
            assert_eq!(Endpoint::parse(text), Ok(Endpoint::Unix(path.into())));
        }
        for (text, at) in [("tcp://127.0.0.1:80", ([127, 0, 0, 1], 80)), ("tcp://10.0.0.1:8081", ([10, 0, 0, 1], 8081))] {
            assert_eq!(Endpoint::parse(text), Ok(Endpoint::Tcp(at.into())));
        }
        assert!(matches!(Endpoint::parse("tcp://[::1]:80"), Ok(Endpoint::Tcp(at)) if at.is_ipv6()));
        for bad in [
            "",
            "/run/a.sock",
            "unix:",
            "unix://",
            "unix:///",
            "unix:a.sock",
            "unix://host/a.sock",
            "unix:////a.sock",
            "unix:///a%20b",
            "unix:///a?b",
            "unix:///a#b",
            "unix:///a/",
            "tcp://localhost:80",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:80/x",
            "tcp://u@127.0.0.1:80",
            "tcp:127.0.0.1:80",
            "http://127.0.0.1:80",
            "UNIX:///a",
        ] {
            assert!(matches!(Endpoint::parse(bad), Err(WorkloadError::Endpoint(text)) if text == bad), "{bad}");
        }
    }
}
