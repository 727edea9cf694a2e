//! Files for deployments: those of an issuer, which `tests/oracles/deploy` checks, and those of proxies that ask a guard, which
//! `tests/oracles/guard` uses.

use std::path::Path;

/// The values in the files as they are stored, which are replaced by the caller's: audience, scopes, the guard's socket, and the
/// two addresses.
const AUDIENCE: &str = "https://search.example";
const SCOPES: &str = "search:read";
const SOCKET: &str = "/run/mayfly/guard.sock";

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Proxy {
    /// A whole configuration, with a listener and the service behind it
    Envoy,
    /// A server, for the block `http`
    Nginx,
    /// A Caddyfile with one site
    Caddy,
}

/// A file for an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Deployed {
    /// A unit for systemd, with sandboxing and a watchdog
    Systemd,
    /// A Dockerfile: an image without a shell, not root, for a read-only file system
    Docker,
    /// A compose file with an issuer and Keycloak
    Compose,
    /// Manifests for Kubernetes
    Kubernetes,
    /// A dashboard for Grafana
    Grafana,
    /// Rules of alerts for Prometheus
    Prometheus,
}

impl Deployed {
    /// The text of the file.
    pub fn text(self) -> &'static str {
        match self {
            Deployed::Systemd => include_str!("deploy/mayfly.service"),
            Deployed::Docker => include_str!("deploy/Dockerfile"),
            Deployed::Compose => include_str!("deploy/compose.yaml"),
            Deployed::Kubernetes => include_str!("deploy/kubernetes.yaml"),
            Deployed::Grafana => include_str!("deploy/dashboard.json"),
            Deployed::Prometheus => include_str!("deploy/alerts.yaml"),
        }
    }
}

/// The configuration of a proxy that lets a request pass if its agent has these scopes and its token is for this audience. The
/// guard listens on `socket`. Fails if one of them has a character that is special in the configuration.
pub fn configuration(proxy: Proxy, audience: &str, scopes: &[String], socket: &Path) -> Result<String, String> {
    let text = match proxy {
        Proxy::Envoy => include_str!("deploy/envoy.yaml"),
        Proxy::Nginx => include_str!("deploy/nginx.conf"),
        Proxy::Caddy => include_str!("deploy/Caddyfile"),
    };
    let socket = socket.to_str().ok_or("the path of the socket is not UTF-8")?;
    for value in [audience, socket].into_iter().chain(scopes.iter().map(String::as_str)) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/@".contains(&b);
        if value.is_empty() || !value.bytes().all(plain) {
            return Err(format!("`{value}` has characters that must be quoted: write them into the configuration by hand"));
        }
    }
    // A space between scopes; in the query of a URL that is `+`.
    let scopes = scopes.join(if proxy == Proxy::Envoy { " " } else { "+" });
    Ok(text.replace(AUDIENCE, audience).replace(SCOPES, &scopes).replace(SOCKET, socket))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t114_what_is_asked_for_stands_in_the_configuration_and_nothing_can_break_out_of_it() {
        let scopes = ["mail:send".to_owned(), "files:read".to_owned()];
        let made = |proxy| configuration(proxy, "https://mail.example", &scopes, Path::new("/tmp/g.sock")).unwrap();
        assert!(made(Proxy::Nginx).contains("/auth?audience=https://mail.example&scopes=mail:send+files:read;"));
        assert!(made(Proxy::Nginx).contains("server unix:/tmp/g.sock;"));
        assert!(made(Proxy::Caddy).contains("uri /auth?audience=https://mail.example&scopes=mail:send+files:read\n"));
        assert!(made(Proxy::Caddy).contains("forward_auth unix//tmp/g.sock {"));
        assert!(made(Proxy::Envoy).contains("{ audience: \"https://mail.example\", scopes: \"mail:send files:read\" }"));
        assert!(made(Proxy::Envoy).contains("path: /tmp/g.sock }"));
        for bad in ["a\"b", "a;b", "a b", "a&scopes=b", "a\nb", "a}b", "a$b", "", "ä"] {
            assert!(configuration(Proxy::Nginx, bad, &scopes, Path::new("/g")).is_err(), "{bad}");
            assert!(configuration(Proxy::Envoy, "x", &[bad.to_owned()], Path::new("/g")).is_err(), "{bad}");
            assert!(configuration(Proxy::Envoy, "x", &scopes, Path::new(bad)).is_err(), "{bad}");
        }
    }
}
