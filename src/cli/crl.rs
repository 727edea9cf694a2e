//! `mayfly crl`.

use std::path::PathBuf;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;
use crate::authority::pem;
use crate::keys::keystore::write_private;

/// Print the certificate revocation lists, for servers that cannot read the feed
///
/// There is one list for each CA that a chain may contain, in one PEM text, as nginx, Envoy and PostgreSQL read it. A list is valid
/// for ten minutes: fetch it again every minute, and let the server reload it.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Write the lists into this file, which is replaced as a whole
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Longest answer: a list of two hundred thousand certificates for each of several CAs.
const LONGEST: usize = 256 << 20;

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let mut client = BundlesClient::new(channel).max_decoding_message_size(LONGEST);
    let got = client.get_crls(v1::GetCrlsRequest {}).await?.into_inner();
    let text: String = got.crls.iter().map(|crl| pem("X509 CRL", &crl.der)).collect();
    let Some(file) = args.out else {
        return output::line(text.trim_end());
    };
    write_private(&file, text.as_bytes()).map_err(|e| e.to_string())?;
    let object = json!({
        "file": file,
        "issuers": got.crls.iter().map(|crl| &crl.issuer).collect::<Vec<_>>(),
        "revision": got.revision,
        "expires_at": output::timestamp(got.expires_at.as_ref()),
    });
    output::print(global.output, &object, || {
        let (count, until) = (got.crls.len(), output::timestamp(got.expires_at.as_ref()));
        format!("{count} lists at revision {}, until {until}, in {}", got.revision, file.display())
    })
}
