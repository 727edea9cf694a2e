//! `mayfly redeem`.

use std::path::PathBuf;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::channel::connect;
use mayfly_agent::ticket::Ticket;

use super::certified::Certified;
use super::connect::TIMEOUT;
use super::exit::Failure;
use super::file;
use super::global::Global;
use crate::folder::Key;

/// Redeem a ticket or join token for an identity in a folder
#[derive(clap::Args)]
pub(super) struct Args {
    /// File with the ticket; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    ticket_file: PathBuf,
    /// Folder for svid.pem, key.pem, bundle.pem, bundle.json
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the identity that is in the folder already
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    file::vacant(&args.out, Some(&args.ticket_file), args.force)?;
    let text = file::read_text(&args.ticket_file)?;
    let ticket = Ticket::parse(text.trim()).map_err(|e| e.to_string())?;
    let channel = connect(ticket.channel_settings(TIMEOUT)).await?;
    let key = Key::new()?;
    let request = v1::RedeemRequest { secret: ticket.secret().expose().to_vec(), csr: key.csr.clone() };
    let got = IdentitiesClient::new(channel).redeem(request).await?.into_inner();
    Certified::from(got).save(global.output, &args.out, &key, ticket.address())
}
