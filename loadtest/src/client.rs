//! One connection to the issuer, and a count of every call by method and outcome, as the issuer's metrics have it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

/// Bytes that pad an empty RPC to the size of a spawn, which has a certification request and a user token.
const PADDING: usize = 1000;

/// Calls by method and outcome.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Counts {
    /// Counts an answer, and returns it.
    pub(crate) fn take<T>(&self, method: &'static str, result: Result<Response<T>, Status>) -> Result<T, String> {
        let outcome = match result.as_ref().err().map(Status::code) {
            None => "ok",
            Some(Code::InvalidArgument) => "malformed",
            Some(Code::Internal) => "fault",
            // The client itself made this error: it is unknown what became of the call at the server.
            Some(Code::Unavailable | Code::Unknown | Code::Cancelled) => "lost",
            Some(_) => "denied",
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((method, outcome)).or_default() += 1;
        result.map(Response::into_inner).map_err(|e| format!("{method}: {:?}: {}", e.code(), e.message()))
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A request of padding alone, for a method that ignores the content of its request.
#[derive(Clone, PartialEq, prost::Message)]
struct Padded {
    #[prost(bytes = "vec", tag = "15")]
    padding: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(int32, tag = "1")]
    number: i32,
}

/// Calls a method that ignores its request and answers with a number. The request is as large as a spawn's.
pub(crate) async fn nothing(channel: Channel, method: &'static str) -> Result<(), String> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| e.to_string())?;
    let codec = tonic_prost::ProstCodec::<Padded, Number>::default();
    let request = tonic::Request::new(Padded { padding: vec![7; PADDING] });
    let answer = grpc.unary(request, PathAndQuery::from_static(method), codec).await;
    answer.map(drop).map_err(|e| format!("{method}: {:?}: {}", e.code(), e.message()))
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    counts: Arc<Counts>,
}

impl Client {
    pub(crate) fn new(channel: Channel, counts: Arc<Counts>) -> Client {
        Client { channel, counts }
    }

    /// Makes a call that does nothing, with a request as large as a spawn's.
    pub(crate) async fn empty(&self) -> Result<(), String> {
        nothing(self.channel.clone(), "/grpc.health.v1.Health/Check").await
    }

    /// The channel that the calls use.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn spawn(&self, request: v1::SpawnRequest) -> Result<v1::SpawnResponse, String> {
        let answer = IdentitiesClient::new(self.channel.clone()).spawn(request).await;
        self.counts.take("Identities/Spawn", answer)
    }

    /// Spawns one batch. Fails unless all `count` agents were spawned.
    pub(crate) async fn batch(&self, request: v1::SpawnBatchRequest, count: usize) -> Result<Vec<v1::SpawnResponse>, String> {
        let answer = BatchesClient::new(self.channel.clone()).spawn(request).await;
        let mut answers = self.counts.take("Batches/Spawn", answer)?;
        let mut spawned = Vec::with_capacity(count);
        while let Some(one) = answers.message().await.map_err(|e| e.to_string())? {
            match one.result {
                Some(v1::spawn_batch_response::Result::Spawned(one)) => spawned.push(one),
                Some(v1::spawn_batch_response::Result::Denied(status)) => return Err(status.message),
                None => return Err("an empty answer in a batch".into()),
            }
        }
        if spawned.len() == count { Ok(spawned) } else { Err(format!("{} of {count} were spawned", spawned.len())) }
    }

    pub(crate) async fn mint(&self, audience: String) -> Result<(), String> {
        let request = v1::MintJwtRequest { audience, ..Default::default() };
        let answer = IdentitiesClient::new(self.channel.clone()).mint_jwt(request).await;
        self.counts.take("Identities/MintJwt", answer).map(drop)
    }

    pub(crate) async fn exchange(&self, request: v1::ExchangeRequest) -> Result<v1::ExchangeResponse, String> {
        let answer = TokensClient::new(self.channel.clone()).exchange(request).await;
        self.counts.take("Tokens/Exchange", answer)
    }

    pub(crate) async fn redeem(&self, request: v1::RedeemRequest) -> Result<v1::RedeemResponse, String> {
        let answer = IdentitiesClient::new(self.channel.clone()).redeem(request).await;
        self.counts.take("Identities/Redeem", answer)
    }

    pub(crate) async fn renew(&self, csr: Vec<u8>) -> Result<v1::RenewResponse, String> {
        let answer = IdentitiesClient::new(self.channel.clone()).renew(v1::RenewRequest { csr }).await;
        self.counts.take("Identities/Renew", answer)
    }

    pub(crate) async fn end(&self, agent: String) -> Result<(), String> {
        let answer = IdentitiesClient::new(self.channel.clone()).end(v1::EndRequest { agent }).await;
        self.counts.take("Identities/End", answer).map(drop)
    }

    pub(crate) async fn revoke(&self, agent: String) -> Result<v1::RevokeResponse, String> {
        let target = Some(v1::Target { target: Some(v1::target::Target::Agent(agent)) });
        let request = v1::RevokeRequest { target, ..Default::default() };
        let answer = OperationsClient::new(self.channel.clone()).revoke(request).await;
        self.counts.take("Operations/Revoke", answer)
    }

    /// The journal's head.
    pub(crate) async fn revision(&self) -> Result<u64, String> {
        let request = v1::ListAgentsRequest { page_size: 1, ..Default::default() };
        let answer = InspectionClient::new(self.channel.clone()).list_agents(request).await;
        self.counts.take("Inspection/ListAgents", answer).map(|a| a.revision)
    }

    pub(crate) async fn watch(&self) -> Result<Streaming<v1::WatchCutsResponse>, String> {
        let answer = RevocationsClient::new(self.channel.clone()).watch_cuts(v1::WatchCutsRequest::default()).await;
        self.counts.take("Revocations/WatchCuts", answer)
    }
}
