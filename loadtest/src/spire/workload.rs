//! A workload of a SPIRE agent: this process, which asks until it holds an SVID and listens until it has none.

use std::path::Path;
use std::time::Duration;

use mayfly_agent::api::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use mayfly_agent::api::workload::{X509svidRequest, X509svidResponse};
use mayfly_agent::channel::connect_unix;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::api::spire::api::types::Spiffeid;

/// Pause between two requests of a workload that has no identity yet. It is the resolution of the measured times.
const POLL: Duration = Duration::from_millis(20);
/// How long a change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to an agent's Workload API.
pub(crate) struct Workload {
    client: SpiffeWorkloadApiClient<Channel>,
    agent: Spiffeid,
}

/// The stream of answers, whose first answer held the SVID.
pub(crate) struct Held {
    answers: Streaming<X509svidResponse>,
    id: String,
}

impl Workload {
    /// Connects to the Workload API of the agent with this SPIFFE ID.
    pub(crate) async fn at(socket: &Path, agent: Spiffeid) -> Result<Workload, String> {
        let channel = connect_unix(socket).await.map_err(|e| {
            format!(
                "no SPIRE agent is there: {e}. `spire-agent run -config FILE` starts one; --spire-agent-socket names its Workload \
                 API, which is `socket_path` in that file"
            )
        })?;
        Ok(Workload { client: SpiffeWorkloadApiClient::new(channel), agent })
    }

    /// The SPIRE agent below which an entry for this workload must be.
    pub(crate) fn agent(&self) -> &Spiffeid {
        &self.agent
    }

    /// Asks until it is given the SVID of a SPIFFE ID.
    pub(crate) async fn holds(&self, id: &str) -> Result<Held, String> {
        let asking = async {
            loop {
                match self.ask(id).await {
                    Ok(Some(answers)) => return Ok(Held { answers, id: id.to_owned() }),
                    Ok(None) => {}
                    Err(status) if status.code() == Code::PermissionDenied => {}
                    Err(status) => return Err(format!("the SPIRE agent: {:?}: {}", status.code(), status.message())),
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.map_err(|_| late("no SVID came"))?
    }

    /// Waits for an answer that has the SVID. `None` if the agent ended the stream before that.
    async fn ask(&self, id: &str) -> Result<Option<Streaming<X509svidResponse>>, Status> {
        let mut request = Request::new(X509svidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let mut answers = self.client.clone().fetch_x509svid(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if has(&answer, id) {
                return Ok(Some(answers));
            }
        }
        Ok(None)
    }
}

impl Held {
    /// Listens until the SVID is no longer among the workload's.
    pub(crate) async fn lost(mut self) -> Result<(), String> {
        let listening = async {
            loop {
                match self.answers.message().await {
                    Ok(Some(answer)) if has(&answer, &self.id) => {}
                    Ok(Some(_)) => return Ok(()),
                    // It has no identity at all any more.
                    Err(status) if status.code() == Code::PermissionDenied => return Ok(()),
                    Ok(None) => return Err("the SPIRE agent said no more".to_owned()),
                    Err(status) => return Err(format!("the SPIRE agent: {:?}: {}", status.code(), status.message())),
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.map_err(|_| late("the SVID did not go"))?
    }
}

fn has(answer: &X509svidResponse, id: &str) -> bool {
    answer.svids.iter().any(|svid| svid.spiffe_id == id)
}

fn late(what: &str) -> String {
    format!("{what} within {} seconds", PATIENCE.as_secs())
}
