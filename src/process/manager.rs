//! The service manager that started this process: systemd, by the protocol of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The service manager. Without one, the methods do nothing.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names in `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn of_environment() -> Manager {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(address) = variable("NOTIFY_SOCKET") else { return Manager::default() };
        let socket = match connected(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, address, "the service manager cannot be told anything");
                None
            }
        };
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let period = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|period| period.parse().ok());
        // Half of the time that the manager waits, as sd_watchdog_enabled(3) recommends.
        let watchdog = period.filter(|period: &u64| *period > 0).map(|period| Duration::from_micros(period / 2));
        Manager { socket, watchdog }
    }

    /// How often to send `WATCHDOG=1`. `None` if the manager does not expect it.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// Sends it an assignment, such as `READY=1`.
    pub fn tell(&self, assignment: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(assignment.as_bytes())
        {
            tracing::warn!(%error, assignment, "the service manager was not told");
        }
    }

    /// Notifies it that a reload begins, with the time (`Type=notify-reload`).
    pub fn reloading(&self) {
        #[cfg(target_os = "linux")]
        {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }
}

/// Connects to a path, or to an abstract name after `@`.
fn connected(address: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // Sending must never block this process.
    socket.set_nonblocking(true)?;
    match address.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        _ => socket.connect(address)?,
    }
    Ok(socket)
}
