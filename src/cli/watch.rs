//! `mayfly watch`: what is cut, as it happens.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use serde_json::{Value, json};

use super::act::operator;
use super::{Common, Failure, Output, show};

pub(super) async fn run(common: &Common) -> Result<(), Failure> {
    let mut client = RevocationsClient::new(operator(common).await?);
    let mut stream = client.watch_cuts(v1::WatchCutsRequest::default()).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if message.snapshot {
            print(common, &json!({ "event": "snapshot" }), || "everything that is cut follows".to_owned())?;
        }
        for cut in &message.cuts {
            let object = cut_object(cut);
            print(common, &object, || {
                let before = if cut.before == u64::MAX { "ever".to_owned() } else { format!("before {}", cut.before) };
                let until = kept_until(cut).map_or("for good".to_owned(), |at| format!("until {at}"));
                format!("cut        {}  relied on {before}, kept {until}", hex::encode(&cut.subject))
            })?;
        }
        if let Some(beat) = &message.heartbeat {
            let as_of = show::time(beat.as_of / 1_000_000);
            let object = json!({
                "event": "heartbeat",
                "incarnation": uuid::Uuid::from_slice(&beat.incarnation).map(|u| u.to_string()).unwrap_or_default(),
                "head": beat.head,
                "as_of": as_of,
                "count": beat.count,
            });
            print(common, &object, || format!("heartbeat  revision {}, {} cuts, as of {as_of}", beat.head, beat.count))?;
        }
    }
    Err(Failure::new(5, "the issuer ended the feed"))
}

fn cut_object(cut: &v1::Cut) -> Value {
    json!({
        "event": "cut",
        "subject": hex::encode(&cut.subject),
        "before": (cut.before < u64::MAX).then_some(cut.before),
        "kept_until": kept_until(cut),
        "revision": cut.revision,
    })
}

/// Of what is cut for good there is no such time.
fn kept_until(cut: &v1::Cut) -> Option<String> {
    Some(show::time(cut.keep_until)).filter(|time| !time.is_empty())
}

/// One line for each, also as JSON.
fn print(common: &Common, object: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match common.output {
        Output::Json => show::line(&object.to_string()),
        Output::Text => show::line(&text()),
    }
}
