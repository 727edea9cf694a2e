//! The sockets that an issuer opens: addresses, and the local socket of operators.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

/// Binds an address; where it leaves the port open, the one from before if it is still free.
pub(super) async fn bind(address: SocketAddr, before: Option<&str>) -> Result<TcpListener, String> {
    if address.port() == 0
        && let Some(port) = before.and_then(|b| b.rsplit_once(':')).and_then(|(_, port)| port.parse().ok())
        && let Ok(listener) = TcpListener::bind(SocketAddr::new(address.ip(), port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))
}

/// The socket of operators. Who may use it is decided by uid.
pub(super) fn operators(path: &Path) -> Result<UnixListener, String> {
    let text = |e: std::io::Error| format!("operator socket `{}`: {e}", path.display());
    // The home's lock is ours: a socket that lies here is of a process that has gone.
    match std::fs::symlink_metadata(path) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => std::fs::remove_file(path).map_err(text)?,
        Ok(_) => return Err(format!("operator socket `{}`: something else is there", path.display())),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(text)?;
    // Who may connect is decided by uid; others need not even reach it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(text)?;
    Ok(listener)
}
