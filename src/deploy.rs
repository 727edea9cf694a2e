//! Files for deployments: those of an issuer, which `tests/oracles/deploy` checks, and those of systems that let agents in, which the
//! other oracles use.

/// What stands in the configurations as they are stored, which is replaced by what the caller wants.
const STORED: Wanted<'static> = Wanted {
    audience: "https://search.example",
    scopes: "search:read",
    socket: "/run/mayfly/guard.sock",
    guard: "127.0.0.1:9191",
    issuer: "https://mayfly.example.org",
    trust_domain: "prod.example.org",
    class: "researcher",
};

/// What a configuration says, where it does.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The service's own audience.
    pub audience: &'a str,
    /// The scopes that a request needs, with spaces between them.
    pub scopes: &'a str,
    /// The Unix socket of the guard.
    pub socket: &'a str,
    /// `host:port` of the guard, for a proxy that opens no Unix socket.
    pub guard: &'a str,
    /// The URL of the issuer in tokens.
    pub issuer: &'a str,
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The class of the agents.
    pub class: &'a str,
}

/// A system that lets agents in: a proxy that asks a guard, or one that verifies credentials itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// A whole configuration, with a listener and the service behind it
    Envoy,
    /// A server, for the block `http`
    Nginx,
    /// A Caddyfile with one site
    Caddy,
    /// Routers, middleware and service for the file provider
    Traefik,
    /// Lines for postgresql.conf, pg_hba.conf and pg_ident.conf
    Postgres,
    /// A script that sets up logins by token and by certificate
    Openbao,
    /// Lines for server.properties and client.properties
    Kafka,
    /// The authentication of Kubernetes' API server
    KubernetesAuthentication,
}

impl System {
    /// Every one of them.
    pub const ALL: [System; 8] = [
        System::Envoy,
        System::Nginx,
        System::Caddy,
        System::Traefik,
        System::Postgres,
        System::Openbao,
        System::Kafka,
        System::KubernetesAuthentication,
    ];
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

/// The configuration of a system for what is wanted. Fails if a value has a character that is special in one of these configurations.
pub fn configuration(system: System, wanted: &Wanted<'_>) -> Result<String, String> {
    let text = match system {
        System::Envoy => include_str!("deploy/envoy.yaml"),
        System::Nginx => include_str!("deploy/nginx.conf"),
        System::Caddy => include_str!("deploy/Caddyfile"),
        System::Traefik => include_str!("deploy/traefik.yaml"),
        System::Postgres => include_str!("deploy/postgresql.conf"),
        System::Openbao => include_str!("deploy/openbao.sh"),
        System::Kafka => include_str!("deploy/kafka.properties"),
        System::KubernetesAuthentication => include_str!("deploy/authentication.yaml"),
    };
    let Wanted { audience, scopes, socket, guard, issuer, trust_domain, class } = *wanted;
    for value in [audience, socket, guard, issuer, trust_domain, class].into_iter().chain(scopes.split(' ')) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/@".contains(&b);
        if value.is_empty() || !value.bytes().all(plain) {
            return Err(format!("`{value}` has characters that must be quoted: write them into the configuration by hand"));
        }
    }
    // In the query of a URL a space is `+`.
    let in_query = matches!(system, System::Nginx | System::Caddy | System::Traefik);
    let scopes = if in_query { scopes.replace(' ', "+") } else { scopes.to_owned() };
    let pairs = [
        (STORED.audience, audience),
        (STORED.scopes, &scopes),
        (STORED.socket, socket),
        (STORED.guard, guard),
        (STORED.issuer, issuer),
        (STORED.trust_domain, trust_domain),
        (STORED.class, class),
    ];
    Ok(replaced(text, &pairs))
}

/// Replaces each stored value by the one beside it, from the left, so that nothing is replaced in what was put in.
fn replaced(mut text: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len());
    while let Some((at, (stored, value))) =
        pairs.iter().filter_map(|pair| Some((text.find(pair.0)?, pair))).min_by_key(|(at, _)| *at)
    {
        let (before, rest) = text.split_at(at);
        out.push_str(before);
        out.push_str(value);
        text = rest.strip_prefix(stored).unwrap_or_default();
    }
    out + text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t114_what_is_asked_for_stands_in_the_configuration_and_nothing_can_break_out_of_it() {
        let mail = Wanted { audience: "https://mail.example", scopes: "mail:send files:read", socket: "/tmp/g.sock", ..STORED };
        let made = |system| configuration(system, &mail).unwrap();
        assert!(made(System::Nginx).contains("/auth?audience=https://mail.example&scopes=mail:send+files:read;"));
        assert!(made(System::Nginx).contains("server unix:/tmp/g.sock;"));
        assert!(made(System::Caddy).contains("uri /auth?audience=https://mail.example&scopes=mail:send+files:read\n"));
        assert!(made(System::Caddy).contains("forward_auth unix//tmp/g.sock {"));
        assert!(made(System::Traefik).contains("/auth?audience=https://mail.example&scopes=mail:send+files:read\"\n"));
        assert!(made(System::Envoy).contains("{ audience: \"https://mail.example\", scopes: \"mail:send files:read\" }"));
        assert!(made(System::Envoy).contains("path: /tmp/g.sock }"));
        for bad in ["a\"b", "a;b", "a&scopes=b", "a\nb", "a}b", "a$b", "a'b", "a`b", "", "ä"] {
            for system in System::ALL {
                for wanted in [
                    Wanted { audience: bad, ..STORED },
                    Wanted { scopes: bad, ..STORED },
                    Wanted { socket: bad, ..STORED },
                    Wanted { guard: bad, ..STORED },
                    Wanted { issuer: bad, ..STORED },
                    Wanted { trust_domain: bad, ..STORED },
                    Wanted { class: bad, ..STORED },
                ] {
                    assert!(configuration(system, &wanted).is_err(), "{system:?}: {bad}");
                }
            }
        }
    }

    #[test]
    fn what_is_put_in_is_not_replaced_again() {
        // Each value contains the stored text of another one.
        let wanted = Wanted {
            issuer: "https://search.example",
            audience: "https://researcher.example",
            class: "prod.example.org",
            ..STORED
        };
        let made = configuration(System::KubernetesAuthentication, &wanted).unwrap();
        assert!(
            made.contains("url: https://search.example\n") && made.contains("prod.example.org/agent/prod.example.org/"),
            "{made}"
        );
        for system in System::ALL {
            assert!(configuration(system, &STORED).unwrap().len() > 200, "{system:?}");
        }
    }
}
