//! `mayfly watch`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use serde_json::json;
use uuid::Uuid;

use super::connect::{self, Acting};
use super::exit::{Failure, UNREACHABLE};
use super::global::Global;
use super::output::{self, Format};

/// Print every revocation as it happens, and a heartbeat every second (operator, or --as an identity)
///
/// Verifiers follow the same feed, which names what was revoked only by a digest.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let mut client = RevocationsClient::new(connect::as_identity_or_operator(global, &args.acting).await?);
    // This command confirms what it has received, so that `mayfly revoke --wait` does not wait for it in vain.
    let mut subscription = vec![0; 16];
    aws_lc_rs::rand::fill(&mut subscription).map_err(|_| "the system gave no randomness".to_owned())?;
    let request = v1::WatchCutsRequest { subscription: subscription.clone(), ..Default::default() };
    let mut stream = client.watch_cuts(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if !print(global.output, &message)? {
            // Nobody reads any more.
            return Ok(());
        }
        if let Some(heartbeat) = message.heartbeat.filter(|_| message.confirm) {
            let said = v1::ConfirmCutsRequest { subscription: subscription.clone(), head: heartbeat.head };
            client.confirm_cuts(said).await?;
        }
    }
    Err(Failure::new(UNREACHABLE, "the issuer ended the feed"))
}

/// Prints a message. Returns `false` if the output is closed.
fn print(format: Format, message: &v1::WatchCutsResponse) -> Result<bool, Failure> {
    if message.snapshot {
        let object = json!({ "event": "snapshot" });
        if !output::print_unless_closed(format, &object, || "everything that is revoked follows".to_owned())? {
            return Ok(false);
        }
    }
    for cut in &message.cuts {
        if !print_cut(format, cut)? {
            return Ok(false);
        }
    }
    message.heartbeat.as_ref().map_or(Ok(true), |heartbeat| print_heartbeat(format, heartbeat))
}

fn print_cut(format: Format, cut: &v1::Cut) -> Result<bool, Failure> {
    let subject = hex::encode(&cut.subject);
    // The highest revision stands for everything, whenever it was issued.
    let before = Some(cut.before).filter(|before| *before < u64::MAX);
    // A cut that is kept for good carries a time that is no date.
    let kept_until = Some(output::time(cut.keep_until)).filter(|time| !time.is_empty());
    let object = json!({
        "event": "cut",
        "subject": subject,
        "before": before,
        "kept_until": kept_until,
        "revision": cut.revision,
    });
    output::print_unless_closed(format, &object, || {
        let relied = before.map_or("ever".to_owned(), |before| format!("before {before}"));
        let kept = kept_until.map_or("for good".to_owned(), |time| format!("until {time}"));
        format!("cut        {subject}  relied on {relied}, kept {kept}")
    })
}

fn print_heartbeat(format: Format, heartbeat: &v1::Heartbeat) -> Result<bool, Failure> {
    let incarnation = Uuid::from_slice(&heartbeat.incarnation).map(|id| id.to_string()).unwrap_or_default();
    let as_of = output::time(heartbeat.as_of / 1_000_000);
    let object = json!({
        "event": "heartbeat",
        "incarnation": incarnation,
        "head": heartbeat.head,
        "as_of": as_of,
        "count": heartbeat.count,
    });
    output::print_unless_closed(format, &object, || {
        format!("heartbeat  revision {}, {} cuts, as of {as_of}", heartbeat.head, heartbeat.count)
    })
}
