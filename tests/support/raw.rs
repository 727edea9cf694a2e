//! Calls with messages of raw bytes: what no client of ours would send.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses what it needs")]

use prost::bytes::{Buf, BufMut};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A message of raw bytes: what no client of ours would send.
#[derive(Clone, Debug, Default)]
pub struct Raw(pub Vec<u8>);

impl prost::Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: prost::encoding::WireType,
        buf: &mut impl Buf,
        context: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        prost::encoding::skip_field(wire, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Calls a method, and reads what it answers: all of it, or the first message of a stream that goes on as long as the issuer does.
pub async fn call(channel: &Channel, method: &str, body: Vec<u8>) -> Result<(), Status> {
    send(channel, method, Request::new(Raw(body))).await
}

/// The same with an empty message and a person's token.
pub async fn call_with(channel: &Channel, method: &str, token: &str) -> Result<(), Status> {
    let mut request = Request::new(Raw::default());
    request.metadata_mut().insert(mayfly_agent::channel::USER_TOKEN, token.parse().unwrap());
    send(channel, method, request).await
}

/// The same with two tokens.
pub async fn call_with_two(channel: &Channel, method: &str, one: &str, two: &str) -> Result<(), Status> {
    let mut request = Request::new(Raw::default());
    for token in [one, two] {
        request.metadata_mut().append(mayfly_agent::channel::USER_TOKEN, token.parse().unwrap());
    }
    send(channel, method, request).await
}

async fn send(channel: &Channel, method: &str, request: Request<Raw>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = format!("/mayfly.v1.{method}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<Raw, Raw>::default();
    let mut stream = grpc.server_streaming(request, path, codec).await?.into_inner();
    while stream.message().await?.is_some() {
        // One that goes on as long as the issuer does.
        if method.contains("/Watch") {
            break;
        }
    }
    Ok(())
}
