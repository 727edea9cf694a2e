//! A running SPIRE server, over its admin socket. Entries that this program makes there are deleted in the end.

pub(crate) mod workload;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mayfly_agent::channel::connect_unix;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::Options;
use crate::client::{Counts, nothing};
use crate::load::{Call, boxed};
use crate::machine::Process;
use crate::server::{Server, Standing};

/// Clients of its API, generated from `proto/spire`.
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, unused_qualifications, reason = "generated")]
mod api {
    include!(concat!(env!("OUT_DIR"), "/client/api.rs"));
}

use api::spire::api::server::agent::v1::ListAgentsRequest;
use api::spire::api::server::agent::v1::agent_client::AgentClient;
use api::spire::api::server::bundle::v1::GetBundleRequest;
use api::spire::api::server::bundle::v1::bundle_client::BundleClient;
use api::spire::api::server::entry::v1::entry_client::EntryClient;
use api::spire::api::server::entry::v1::{BatchCreateEntryRequest, BatchDeleteEntryRequest};
use api::spire::api::server::svid::v1::svid_client::SvidClient;
use api::spire::api::server::svid::v1::{MintJwtsvidRequest, MintX509svidRequest};
use api::spire::api::types::{Agent, Entry, Selector, Spiffeid};

/// The call of its API that looks nothing up.
const EMPTY: &str = "/spire.api.server.logger.v1.Logger/GetLogger";
/// Every SPIFFE ID that we ask for lies below this path.
const PATH: &str = "/mayfly-loadtest";
/// Entries in one request at most.
pub(crate) const BATCH: usize = 100;

/// A connection to the server. Clones share it.
#[derive(Clone)]
pub(crate) struct Spire {
    /// Every call of ours.
    pub(crate) counts: Arc<Counts>,
    process: Option<Process>,
    trust_domain: String,
    channel: Channel,
    // Guards the ids of the entries that we made and have not deleted.
    entries: Arc<Mutex<BTreeSet<String>>>,
}

impl Spire {
    /// Connects to the server that the options name.
    pub(crate) async fn reach(options: &Options) -> Result<Spire, String> {
        let socket = &options.spire_socket;
        let channel = connect_unix(socket).await.map_err(|e| {
            format!(
                "no SPIRE server is there: {e}. `spire-server run -config FILE` starts one; --spire-socket names its admin socket, \
                 which is `socket_path` in that file"
            )
        })?;
        let counts = Arc::<Counts>::default();
        let answer = BundleClient::new(channel.clone()).get_bundle(GetBundleRequest {}).await;
        let bundle = counts.take("Bundle/GetBundle", answer);
        let trust_domain =
            bundle.map_err(|e| format!("`{}` is not the admin socket of a SPIRE server: {e}", socket.display()))?.trust_domain;
        let process = match options.spire_pid {
            Some(pid) => Some(Process(pid)),
            None => listening(socket).await,
        };
        if process.and_then(Process::cpu).is_none() {
            eprintln!("the CPU of the SPIRE server cannot be seen: run beside it, or name its process with --spire-pid");
        }
        if options.pin {
            eprintln!("--pin does not move the SPIRE server: start it with `taskset -c 0`");
        }
        Ok(Spire { counts, process, trust_domain, channel, entries: Arc::default() })
    }

    /// A new SPIFFE ID below our path.
    pub(crate) fn id(&self) -> String {
        format!("spiffe://{}{PATH}", self.trust_domain)
    }

    /// A certificate for a request that names [`id`](Self::id).
    pub(crate) async fn mint_x509(&self, csr: Vec<u8>) -> Result<(), String> {
        let answer = SvidClient::new(self.channel.clone()).mint_x509svid(MintX509svidRequest { csr, ttl: 0 }).await;
        let svid = self.counts.take("SVID/MintX509SVID", answer)?.svid;
        if svid.is_some_and(|svid| !svid.cert_chain.is_empty()) { Ok(()) } else { Err("an answer without a certificate".into()) }
    }

    /// A token.
    pub(crate) async fn mint_jwt(&self, audience: String) -> Result<(), String> {
        let request = MintJwtsvidRequest { id: Some(self.named(PATH.into())), audience: vec![audience], ttl: 0 };
        let answer = SvidClient::new(self.channel.clone()).mint_jwtsvid(request).await;
        let svid = self.counts.take("SVID/MintJWTSVID", answer)?.svid;
        if svid.is_some_and(|svid| !svid.token.is_empty()) { Ok(()) } else { Err("an answer without a token".into()) }
    }

    /// An entry below an agent that does not exist, so its SVID is never fetched.
    pub(crate) fn of_nobody(&self) -> Entry {
        let selector = Selector { r#type: "mayfly".into(), value: "loadtest".into() };
        self.entry(self.named(format!("{PATH}/agent")), selector)
    }

    /// An entry of an agent, for the processes of a user.
    pub(crate) fn of_user(&self, agent: &Spiffeid, uid: u32) -> Entry {
        self.entry(agent.clone(), Selector { r#type: "unix".into(), value: format!("uid:{uid}") })
    }

    /// Each has a SPIFFE ID of its own: the server makes no two entries that are the same.
    fn entry(&self, parent: Spiffeid, selector: Selector) -> Entry {
        let id = self.named(format!("{PATH}/{}", Uuid::now_v7()));
        Entry { id: String::new(), spiffe_id: Some(id), parent_id: Some(parent), selectors: vec![selector] }
    }

    fn named(&self, path: String) -> Spiffeid {
        Spiffeid { trust_domain: self.trust_domain.clone(), path }
    }

    /// Creates entries; their ids.
    pub(crate) async fn create(&self, entries: Vec<Entry>) -> Result<Vec<String>, String> {
        let count = entries.len();
        let answer = EntryClient::new(self.channel.clone()).batch_create_entry(BatchCreateEntryRequest { entries }).await;
        let answer = answer.and_then(|answer| {
            let (mut ids, mut refused) = (Vec::with_capacity(count), Ok(()));
            for one in answer.into_inner().results {
                let (code, why) = one.status.map_or((0, String::new()), |status| (status.code, status.message));
                match (code, one.entry) {
                    (0, Some(entry)) => ids.push(entry.id),
                    (code, _) => refused = Err(Status::new(Code::from(code), format!("an entry was not created: {why}"))),
                }
            }
            self.made().extend(ids.iter().cloned());
            refused.map(|()| Response::new(ids))
        });
        let ids = self.counts.take("Entry/BatchCreateEntry", answer)?;
        if ids.len() == count { Ok(ids) } else { Err(format!("{} of {count} entries were created", ids.len())) }
    }

    /// Deletes entries.
    pub(crate) async fn delete(&self, ids: Vec<String>) -> Result<(), String> {
        let count = ids.len();
        let answer = EntryClient::new(self.channel.clone()).batch_delete_entry(BatchDeleteEntryRequest { ids }).await;
        let answer = answer.and_then(|answer| {
            let results = answer.into_inner().results;
            let deleted = results.iter().filter(|one| one.status.as_ref().is_none_or(|status| status.code == 0));
            let deleted: BTreeSet<&String> = deleted.map(|one| &one.id).collect();
            let mut made = self.made();
            for id in &deleted {
                made.remove(*id);
            }
            let missing = || Status::not_found(format!("{} of {count} entries were deleted", deleted.len()));
            if deleted.len() == count { Ok(Response::new(())) } else { Err(missing()) }
        });
        self.counts.take("Entry/BatchDeleteEntry", answer)
    }

    /// Deletes those of our entries that still exist.
    pub(crate) async fn clean(&self) -> Result<(), String> {
        let left: Vec<_> = self.made().iter().cloned().collect();
        for ids in left.chunks(BATCH) {
            self.delete(ids.to_vec()).await?;
        }
        Ok(())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The SPIRE agent with this SPIFFE ID, or the only one if `id` is `None`.
    pub(crate) async fn agent(&self, id: Option<&str>) -> Result<Spiffeid, String> {
        let answer = AgentClient::new(self.channel.clone()).list_agents(ListAgentsRequest { page_size: 0 }).await;
        let agents = self.counts.take("Agent/ListAgents", answer)?.agents;
        choose(agents, id)
    }
}

impl Server for Spire {
    fn process(&self) -> Option<Process> {
        self.process
    }

    async fn empty(&self) -> Result<Call, String> {
        let channel = self.channel.clone();
        Ok(boxed(move |_| nothing(channel.clone(), EMPTY)))
    }

    async fn standing(&self) -> Standing {
        Standing::default()
    }
}

/// The process that listens on a socket.
async fn listening(socket: &Path) -> Option<Process> {
    let peer = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?;
    u32::try_from(peer.pid()?).ok().map(Process)
}

/// The agent with this id, or the only one if `id` is `None`.
fn choose(agents: Vec<Agent>, id: Option<&str>) -> Result<Spiffeid, String> {
    let mut ids: Vec<Spiffeid> = agents.into_iter().filter(|agent| !agent.banned).filter_map(|agent| agent.id).collect();
    match (id, ids.len()) {
        (Some(id), _) => {
            let found = ids.into_iter().find(|agent| text(agent) == id);
            found.ok_or_else(|| format!("the SPIRE server has no agent `{id}`"))
        }
        (None, 0 | 1) => ids.pop().ok_or_else(|| "the SPIRE server has no agent: `spire-agent run` starts one".into()),
        (None, many) => Err(format!("the SPIRE server has {many} agents: name the one behind the socket with --spire-agent-id")),
    }
}

/// A SPIFFE ID as text.
pub(crate) fn text(id: &Spiffeid) -> String {
    format!("spiffe://{}{}", id.trust_domain, id.path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn agent(name: &str, banned: bool) -> Agent {
        let id = Spiffeid { trust_domain: "a.example".into(), path: format!("/spire/agent/{name}") };
        Agent { id: Some(id), banned, ..Default::default() }
    }

    #[test]
    fn the_only_agent_needs_no_name_and_a_banned_one_is_none() {
        let agents = vec![agent("banned", true), agent("one", false), Agent::default()];
        assert_eq!(text(&choose(agents, None).unwrap()), "spiffe://a.example/spire/agent/one");
        assert!(choose(vec![agent("banned", true)], None).unwrap_err().contains("spire-agent run"));
    }

    #[test]
    fn of_several_agents_the_named_one_is_taken_and_none_is_guessed() {
        let agents = || vec![agent("one", false), agent("two", false), agent("banned", true)];
        assert!(choose(agents(), None).unwrap_err().contains("--spire-agent-id"));
        assert_eq!(choose(agents(), Some("spiffe://a.example/spire/agent/two")).unwrap().path, "/spire/agent/two");
        for none in ["spiffe://a.example/spire/agent/banned", "spiffe://a.example/spire/agent/t", "/spire/agent/two", ""] {
            assert!(choose(agents(), Some(none)).is_err(), "{none}");
        }
    }
}
