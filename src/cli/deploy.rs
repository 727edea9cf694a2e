//! `mayfly deploy`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::exit::Failure;
use super::output;
use crate::deploy::{Deployed, Proxy, configuration};

/// Print a file for a deployment: the issuer's systemd unit, image, manifests, dashboard or alerts, or the configuration of a proxy
/// that asks a guard
#[derive(clap::Args)]
pub(super) struct Args {
    what: What,
    /// For a proxy: the service's own audience
    #[arg(long, value_name = "AUDIENCE", default_value = "https://search.example")]
    audience: String,
    /// For a proxy: a scope that a request needs; repeatable
    #[arg(long = "scope", value_name = "SCOPE", default_value = "search:read")]
    scopes: Vec<String>,
    /// For a proxy: the Unix socket of the guard (`mayfly guard --listen unix:PATH`)
    #[arg(long, value_name = "PATH", default_value = "/run/mayfly/guard.sock")]
    socket: PathBuf,
}

#[derive(Clone, Copy)]
enum What {
    Issuer(Deployed),
    Proxy(Proxy),
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [Self] {
        use What::{Issuer, Proxy as Of};
        &[
            Issuer(Deployed::Systemd),
            Issuer(Deployed::Docker),
            Issuer(Deployed::Compose),
            Issuer(Deployed::Kubernetes),
            Issuer(Deployed::Grafana),
            Issuer(Deployed::Prometheus),
            Of(Proxy::Envoy),
            Of(Proxy::Nginx),
            Of(Proxy::Caddy),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            What::Issuer(deployed) => deployed.to_possible_value(),
            What::Proxy(proxy) => proxy.to_possible_value(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match args.what {
        What::Issuer(deployed) => output::line(deployed.text().trim_end()),
        What::Proxy(proxy) => {
            let text = configuration(proxy, &args.audience, &args.scopes, &args.socket).map_err(Failure::usage)?;
            output::line(text.trim_end())
        }
    }
}
