//! `mayfly join`.

use std::path::{Path, PathBuf};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::json;
use zeroize::Zeroizing;

use super::certified::Certified;
use super::connect::{self, Acting};
use super::duration::Length;
use super::exit::Failure;
use super::global::Global;
use super::{file, output};
use crate::folder::Key;

/// Make a join token with which a workload fetches its first identity (operator), or join with a token of the platform
///
/// With --attest there is no join token: the OIDC token of the platform, such as that of a Kubernetes service account or of a CI
/// job, proves the workload by the rules of the configuration. Each token can be used once.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Name of a configured workload; with --attest only needed if the token proves several
    #[arg(required_unless_present = "attest")]
    workload: Option<String>,
    /// How long the token lasts, such as 90s; at most 10m
    #[arg(long, value_name = "DURATION", default_value = "0", hide_default_value = true, conflicts_with = "attest")]
    ttl: Length,
    /// File with the OIDC token of the platform; `-` reads stdin
    #[arg(long, value_name = "FILE", requires = "out")]
    attest: Option<PathBuf>,
    /// With --attest: folder for svid.pem, key.pem, bundle.pem, bundle.json
    #[arg(long, value_name = "DIR", requires = "attest")]
    out: Option<PathBuf>,
    /// With --attest: trust bundle (PEM) of the issuer; by default that of the issuer in --home
    #[arg(long, value_name = "FILE", requires = "attest")]
    bundle: Option<PathBuf>,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if let (Some(token), Some(out)) = (&args.attest, &args.out) {
        return attest(&args, token, out, global).await;
    }
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let request = v1::CreateJoinTokenRequest { workload: args.workload.unwrap_or_default(), ttl_seconds: args.ttl.seconds() };
    let made = OperationsClient::new(channel).create_join_token(request).await?.into_inner();
    let object = json!({
        "token": made.token,
        "workload_id": made.workload_id,
        "expires_at": output::timestamp(made.expires_at.as_ref()),
        "revision": made.revision,
    });
    output::print(global.output, &object, || made.token.clone())
}

async fn attest(args: &Args, token: &Path, out: &Path, global: &Global) -> Result<(), Failure> {
    let text = Zeroizing::new(file::read_text(token)?);
    let address = connect::address(global, args.acting.server.as_deref())?;
    let channel = connect::as_stranger(global, args.acting.server.as_deref(), args.bundle.as_deref()).await?;
    let key = Key::new()?;
    let workload = args.workload.clone().unwrap_or_default();
    let request = v1::AttestRequest { token: text.trim().to_owned(), csr: key.csr.clone(), workload };
    let got = IdentitiesClient::new(channel).attest(request).await?.into_inner();
    Certified::from(got).save(global.output, out, &key, &address)
}
