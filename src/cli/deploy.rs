//! `mayfly deploy`.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::exit::Failure;
use super::output;
use crate::deploy::{Deployed, System, Wanted, configuration};

/// Print a file for a deployment: the issuer's systemd unit, image, manifests, dashboard or alerts, or the configuration of a system
/// that lets agents in
#[derive(clap::Args)]
pub(super) struct Args {
    what: What,
    /// For a system: the service's own audience; by default the usual one
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// For a system: a scope that a request needs; repeatable
    #[arg(long = "scope", value_name = "SCOPE", default_value = "search:read")]
    scopes: Vec<String>,
    /// For a proxy: the Unix socket of the guard (`mayfly guard --listen unix:PATH`)
    #[arg(long, value_name = "PATH", default_value = "/run/mayfly/guard.sock")]
    socket: String,
    /// For Traefik: the address of the guard (`mayfly guard --listen ADDRESS`)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9191")]
    guard: String,
    /// For a system that verifies tokens: the issuer's URL, as `mayfly status` shows it
    #[arg(long, value_name = "URL", default_value = "https://mayfly.example.org")]
    issuer: String,
    /// For a system that verifies tokens or certificates: the trust domain
    #[arg(long, value_name = "NAME", default_value = "prod.example.org")]
    trust_domain: String,
    /// For a system that verifies tokens or certificates: the class of the agents
    #[arg(long, value_name = "CLASS", default_value = "researcher")]
    class: String,
}

#[derive(Clone, Copy)]
enum What {
    Issuer(Deployed),
    System(System),
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        use What::{Issuer, System as Of};
        &[
            Issuer(Deployed::Systemd),
            Issuer(Deployed::Docker),
            Issuer(Deployed::Compose),
            Issuer(Deployed::Kubernetes),
            Issuer(Deployed::Grafana),
            Issuer(Deployed::Prometheus),
            Of(System::Envoy),
            Of(System::Nginx),
            Of(System::Caddy),
            Of(System::Traefik),
            Of(System::Postgres),
            Of(System::Openbao),
            Of(System::Kafka),
            Of(System::KubernetesAuthentication),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            What::Issuer(deployed) => deployed.to_possible_value(),
            What::System(system) => system.to_possible_value(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let system = match args.what {
        What::Issuer(deployed) => return output::line(deployed.text().trim_end()),
        What::System(system) => system,
    };
    let usual = match system {
        System::KubernetesAuthentication => "https://kubernetes.default.svc",
        System::Openbao => "vault.workload.identity",
        _ => "https://search.example",
    };
    let wanted = Wanted {
        audience: args.audience.as_deref().unwrap_or(usual),
        scopes: &args.scopes.join(" "),
        socket: &args.socket,
        guard: &args.guard,
        issuer: &args.issuer,
        trust_domain: &args.trust_domain,
        class: &args.class,
    };
    output::line(configuration(system, &wanted).map_err(Failure::usage)?.trim_end())
}
