//! `mayfly reload`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::{Value, json};

use super::exit::Failure;
use super::global::Global;
use super::{changes, connect, output};

/// Let the running issuer read its configuration again; if it has a fault, nothing changes
///
/// SIGHUP does the same. Changes that need a restart are named and not applied. `mayfly config diff` shows beforehand what would
/// change.
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, global: &Global) -> Result<(), Failure> {
    let channel = connect::as_operator(global).await?;
    let got = OperationsClient::new(channel).reload(v1::ReloadRequest {}).await?.into_inner();
    let listed: Vec<Value> = got.changes.iter().map(changes::object).collect();
    let object = json!({ "revision": got.revision, "changes": listed });
    output::print(global.output, &object, || {
        let mut lines = changes::lines(&got.changes);
        lines.push(match got.changes.len() {
            0 => format!("nothing has changed; the record is at revision {}", got.revision),
            _ => format!("reloaded, recorded at revision {}", got.revision),
        });
        lines
    })
}
