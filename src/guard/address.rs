//! The address where a guard listens: a Unix socket with a mode, or loopback.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

/// `unix:PATH`, or an address of loopback with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// Loopback.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = !path.is_empty() && path.len() < 100;
            return if fits { Ok(Address::Unix(path.into())) } else { Err("a path of a socket has 1 to 99 bytes".into()) };
        }
        let address: SocketAddr = text.parse().map_err(|_| "write `unix:PATH` or `127.0.0.1:PORT`")?;
        // T116: on a network, tokens would be sent in the clear, and an impostor of the guard could let anybody in.
        if !address.ip().is_loopback() {
            return Err(
                "a guard stands beside its service: let it listen on loopback, or on a Unix socket that both can open".into()
            );
        }
        Ok(Address::Tcp(address))
    }
}

/// A socket that is bound.
pub enum Socket {
    /// On loopback.
    Tcp(TcpListener),
    /// In the file system, where it is removed at the end.
    Unix(UnixListener, Place),
}

impl Address {
    /// Binds it. A Unix socket gets this mode, and replaces one on which nobody listens any more.
    pub async fn bind(&self, mode: u32) -> Result<Socket, String> {
        match self {
            Address::Tcp(address) => {
                Ok(Socket::Tcp(TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))?))
            }
            Address::Unix(path) => {
                let text = |e: std::io::Error| format!("cannot listen on `{}`: {e}", path.display());
                if let Ok(metadata) = fs::symlink_metadata(path) {
                    if !metadata.file_type().is_socket() {
                        return Err(format!("cannot listen on `{}`: there is something else", path.display()));
                    }
                    if tokio::net::UnixStream::connect(path).await.is_ok() {
                        return Err(format!("cannot listen on `{}`: somebody listens there", path.display()));
                    }
                }
                // It is bound under another name first, so that nobody connects before it has its mode.
                let fresh = path.with_extension(format!("{}", std::process::id()));
                let listener = UnixListener::bind(&fresh).map_err(text)?;
                let placed = fs::set_permissions(&fresh, Permissions::from_mode(mode)).and_then(|()| fs::rename(&fresh, path));
                placed.inspect_err(|_| drop(fs::remove_file(&fresh))).map_err(text)?;
                Ok(Socket::Unix(listener, Place::of(path)))
            }
        }
    }
}

impl Socket {
    /// As others write it.
    pub fn name(&self) -> String {
        match self {
            Socket::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            Socket::Unix(_, place) => format!("unix:{}", place.path.display()),
        }
    }
}

/// The file of a socket. Dropping this removes it, unless another one has taken its place.
pub struct Place {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl Place {
    fn of(path: &Path) -> Place {
        Place { path: path.to_owned(), inode: inode(path) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t116_a_guard_listens_for_its_own_machine_alone() {
        for good in ["127.0.0.1:9191", "[::1]:0", "127.9.9.9:1", "unix:/run/g.sock", "unix:g.sock"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        let long = format!("unix:/{}", "x".repeat(100));
        for bad in ["0.0.0.0:9191", "[::]:9191", "10.0.0.1:1", "192.168.1.1:80", "localhost:1", "9191", "unix:", &long, ""] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn t116_a_socket_has_its_mode_and_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.sock");
        let address = Address::Unix(path.clone());
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let first = address.bind(0o600).await.unwrap();
        assert_eq!(mode(), 0o600);
        assert!(address.bind(0o666).await.err().unwrap().contains("somebody listens there"));
        // A crash leaves the file behind.
        let Socket::Unix(listener, place) = first else { return };
        drop(listener);
        std::mem::forget(place);
        let second = address.bind(0o660).await.unwrap();
        assert_eq!(mode(), 0o660);
        drop(second);
        assert!(!path.exists());
        fs::write(&path, "mine").unwrap();
        assert!(address.bind(0o600).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
