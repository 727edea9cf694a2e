//! `mayfly bundle`.

use clap::ValueEnum;
use mayfly_verify::{Bundle, TrustDomain};

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;
use crate::authority::pem;

/// Print the trust bundle
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// SPIFFE bundle document, PEM roots, or a JWK Set for OIDC relying parties
    #[arg(long, value_enum, default_value = "spiffe")]
    format: BundleFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum BundleFormat {
    Spiffe,
    Pem,
    Jwks,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let bundle = connect::fetch_bundle(connect::as_identity_or_operator(global, &args.acting).await?).await?;
    match args.format {
        BundleFormat::Spiffe => output::line(&String::from_utf8_lossy(&bundle.spiffe_json)),
        BundleFormat::Pem => {
            let roots: String = bundle.x509_authorities.iter().map(|der| pem("CERTIFICATE", der)).collect();
            output::line(roots.trim_end())
        }
        BundleFormat::Jwks => {
            let trust_domain = TrustDomain::new(&bundle.trust_domain).map_err(|e| e.to_string())?;
            let bundle = Bundle::from_json(trust_domain, &bundle.spiffe_json).map_err(|e| e.to_string())?;
            output::line(&bundle.oidc_jwks().to_string())
        }
    }
}
