//! The sockets that an issuer opens: addresses, and the local socket of operators.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// A host as it stands in an address: IPv6 in brackets.
pub(super) fn host(name: &str) -> String {
    if name.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{name}]") } else { name.to_owned() }
}

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;

/// Listens on an address. If its port is 0, the port of the last run is used if it is still free.
pub(super) async fn bind(address: SocketAddr, before: Option<&str>) -> Result<TcpListener, String> {
    listen(reserve(address, before)?)
}

/// Binds an address without listening there: a client that connects is refused at once, and tries again later.
pub(super) fn reserve(address: SocketAddr, before: Option<&str>) -> Result<TcpSocket, String> {
    if address.port() == 0
        && let Some(port) = before.and_then(|b| b.rsplit_once(':')).and_then(|(_, port)| port.parse().ok())
        && let Ok(socket) = take(SocketAddr::new(address.ip(), port))
    {
        return Ok(socket);
    }
    take(address).map_err(|e| format!("cannot listen on {address}: {e}"))
}

/// Listens from now on.
pub(super) fn listen(socket: TcpSocket) -> Result<TcpListener, String> {
    let at = socket.local_addr().map_err(|e| e.to_string())?;
    socket.listen(BACKLOG).map_err(|e| format!("cannot listen on {at}: {e}"))
}

fn take(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of the previous process may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The socket of operators. Who may use it is decided by uid.
pub(super) fn operators(path: &Path) -> Result<UnixListener, String> {
    let text = |e: std::io::Error| format!("operator socket `{}`: {e}", path.display());
    // This process holds the home's lock, so a socket that exists here belongs to a process that has ended.
    match std::fs::symlink_metadata(path) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => std::fs::remove_file(path).map_err(text)?,
        Ok(_) => return Err(format!("operator socket `{}`: something else is there", path.display())),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(text)?;
    // Access is decided by uid when a peer connects. Others may reach the socket, and are refused.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(text)?;
    Ok(listener)
}
