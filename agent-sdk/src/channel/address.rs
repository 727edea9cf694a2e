//! An address of the form `host:port`, checked once.

use std::net::Ipv6Addr;

use rustls_pki_types::ServerName;

use super::ConnectError;

/// Longest address, in bytes: its length must fit one byte of a ticket.
const MAX: usize = 255;

/// A checked `host:port`.
#[derive(Clone)]
pub(crate) struct Address {
    text: String,
    host: ServerName<'static>,
}

impl Address {
    /// Parses `name:port`, `1.2.3.4:port` or `[::1]:port`. The port is decimal and not zero, without sign or leading zero.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectError> {
        Self::read(text).ok_or_else(|| ConnectError::Address(text.chars().take(MAX).collect()))
    }

    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':').filter(|_| text.len() <= MAX)?;
        let number: u16 = port.parse().ok().filter(|port| *port != 0)?;
        // INVARIANT: a port has one spelling.
        if number.to_string() != port {
            return None;
        }
        let host = match host.strip_prefix('[') {
            Some(rest) => ServerName::IpAddress(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into()),
            // In a bare IPv6 address, the port could not be told from the address.
            None if host.contains(':') => return None,
            None => ServerName::try_from(host).ok()?.to_owned(),
        };
        Some(Self { text: text.to_owned(), host })
    }

    /// The address as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The host, for SNI.
    pub(crate) fn host(&self) -> ServerName<'static> {
        self.host.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for ok in ["localhost:1", "issuer_1.internal:8443", "127.0.0.1:65535", "[::1]:8443"] {
            assert!(Address::parse(ok).is_ok_and(|address| address.text() == ok), "refused {ok}");
        }
        for bad in [
            "",
            ":",
            "localhost",
            "localhost:",
            ":8443",
            "localhost:0",
            "localhost:08443",
            "localhost:+8443",
            "localhost:65536",
            "::1:8443",
            "[::1]",
            "[::1:8443",
            "[localhost]:8443",
            "https://localhost:8443",
            "user@localhost:8443",
            "local host:8443",
            "localhost:8443/",
            "a..b:8443",
            "localhost\0:8443",
        ] {
            assert!(Address::parse(bad).is_err(), "accepted {bad}");
        }
        assert!(Address::parse(&format!("{}:8443", "a.".repeat(126))).is_err());
    }
}
