//! Witnesses: programs that follow an issuer's feed, and return the last heartbeat that they saw to anybody. At its start an issuer
//! asks them, to find out whether its home was replaced by an older copy, which it cannot notice by itself.
//!
//! The heartbeat has the issuer's own signature. So plain HTTP is enough: an attacker in between can only suppress the answer or
//! replay an older one.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use mayfly_verify::feed::Heartbeat;
use mayfly_verify::{Live, TrustDomain};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Where a witness answers.
pub const PATH: &str = "/heartbeat";
/// How long one witness may take for its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes of an answer.
const ANSWER: u64 = 16 * 1024;

/// A heartbeat as JSON.
#[derive(Serialize, Deserialize)]
struct Told {
    trust_domain: String,
    incarnation: Uuid,
    head: u64,
    as_of: u64,
    count: u64,
    // These are in hex.
    digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    signature: String,
}

impl Told {
    fn of(heartbeat: &Heartbeat) -> Told {
        Told {
            trust_domain: heartbeat.trust_domain.to_string(),
            incarnation: heartbeat.incarnation,
            head: heartbeat.head,
            as_of: heartbeat.as_of,
            count: heartbeat.count,
            digest: hex::encode(heartbeat.digest),
            chain: heartbeat.chain.map(hex::encode),
            signature: hex::encode(heartbeat.signature),
        }
    }

    fn read(self) -> Result<Heartbeat, String> {
        Ok(Heartbeat {
            trust_domain: TrustDomain::new(&self.trust_domain).map_err(|e| e.to_string())?,
            incarnation: self.incarnation,
            head: self.head,
            as_of: self.as_of,
            count: self.count,
            digest: bytes(&self.digest)?,
            chain: self.chain.as_deref().map(bytes).transpose()?,
            signature: bytes(&self.signature)?,
        })
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let bytes = hex::decode(text).map_err(|e| e.to_string())?;
    bytes.try_into().map_err(|_| "a value has a wrong length".to_owned())
}

/// The route of a witness, for a follower of the feed. It answers 503 before there is a heartbeat.
pub fn route(live: Live) -> Router {
    let answer = move || {
        let heartbeat = live.known().and_then(|known| known.heartbeat.clone());
        async move { answer(heartbeat.as_deref()) }
    };
    Router::new().route(PATH, get(answer))
}

fn answer(heartbeat: Option<&Heartbeat>) -> Response {
    match heartbeat {
        Some(heartbeat) => Json(Told::of(heartbeat)).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no heartbeat yet\n").into_response(),
    }
}

/// Asks a witness for the last heartbeat that it saw; `None` if it has seen none. The signature is not checked here. Fails if the
/// witness does not answer within three seconds, or if its answer is not a heartbeat.
pub async fn ask(address: SocketAddr) -> Result<Option<Heartbeat>, String> {
    within(async {
        let mut stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let request = format!("GET {PATH} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut text = Vec::new();
        stream.take(ANSWER).read_to_end(&mut text).await.map_err(|e| e.to_string())?;
        read(&text)
    })
    .await
}

async fn within<T>(asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| format!("no answer within {} seconds", PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

/// Reads an answer of HTTP/1.0, which ends with its connection.
fn read(answer: &[u8]) -> Result<Option<Heartbeat>, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("the answer is not of HTTP")?;
    let (head, body) = answer.split_at(end + 4);
    let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match status.split(|byte| *byte == b' ').nth(1) {
        Some(b"503") => Ok(None),
        Some(b"200") => serde_json::from_slice::<Told>(body).map_err(|e| e.to_string())?.read().map(Some),
        _ => Err(format!("the answer is `{}`", String::from_utf8_lossy(status).escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t201_an_answer_that_is_no_heartbeat_is_none() {
        let heartbeat = Heartbeat {
            trust_domain: TrustDomain::new("td").unwrap(),
            incarnation: Uuid::from_u128(7),
            head: 3,
            as_of: 4,
            count: 5,
            digest: [6; 32],
            chain: Some([7; 32]),
            signature: [8; 64],
        };
        let json = serde_json::to_string(&Told::of(&heartbeat)).unwrap();
        let answer = |status: &str, body: &str| format!("HTTP/1.0 {status}\r\ncontent-type: x\r\n\r\n{body}").into_bytes();
        assert_eq!(read(&answer("200 OK", &json)), Ok(Some(heartbeat)));
        assert_eq!(read(&answer("503 Service Unavailable", "no heartbeat yet\n")), Ok(None));
        let short = json.replace(&"08".repeat(64), "08");
        for bad in [answer("404 Not Found", &json), answer("200 OK", ""), answer("200 OK", &short), b"SSH-2.0".to_vec(), vec![]] {
            assert!(read(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
}
