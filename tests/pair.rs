//! The SDK's example of a pair over tonic, against the real issuer: it goes on through renewals, and ends at a cut.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../agent-sdk/examples/pair.rs"]
#[expect(dead_code, reason = "its main is for the shell")]
mod pair;
mod support;

use std::time::{Duration, Instant};

use mayfly_agent::ticket::Ticket;
use pair::{Caller, Member};
use support::Dev;
use tokio::net::TcpListener;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Certificates as short as a class may have them: both ends renew several times.
const CONFIG: &str = r#"
[[classes]]
name = "worker"
owner = "tests"
scopes = ["files:read", "search:read"]
audiences = ["https://search.example"]
svid_ttl = "10s"
max_lease = "5m"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
"#;

async fn agent(dev: &Dev, folder: &str, scope: &str) -> Member {
    dev.json(&format!("spawn --class worker --user-token demo.jwt --scope {scope} --ticket --out {folder}"));
    Member::new(&Ticket::parse(&dev.file(&format!("{folder}/ticket"))).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_goes_on_through_renewals_and_ends_at_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let token = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
    let service = Member::new(&Ticket::parse(&token).unwrap()).await.unwrap();
    let served = tokio::spawn(pair::serve(service, listener));

    let mut caller = Caller::new(agent(&dev, "a1", "search:read").await, address.clone()).await.unwrap();
    let id = caller.member.identity.current().spiffe_id().to_owned();
    let (mut seen, until) = (vec![caller.member.identity.current().expires_at()], Instant::now() + Duration::from_secs(20));
    while Instant::now() < until || seen.len() < 3 {
        assert_eq!(caller.search("rust").await.unwrap(), format!("{id} found nothing about rust for demo"));
        seen.push(caller.member.identity.current().expires_at());
        seen.dedup();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // One that may do something else.
    let mut other = Caller::new(agent(&dev, "a2", "files:read").await, address).await.unwrap();
    let denied = other.search("rust").await.unwrap_err();
    let denied = denied.downcast_ref::<Status>().unwrap();
    let reason = denied.get_details_error_info().map(|info| info.reason);
    assert_eq!((denied.code(), reason.as_deref()), (Code::PermissionDenied, Some("SCOPE_MISSING")));

    dev.json(&format!("revoke --agent {id}"));
    let cut = Instant::now();
    while caller.search("rust").await.is_ok() {
        assert!(cut.elapsed() < Duration::from_secs(1), "it goes on after the cut");
    }
    assert!(other.search("rust").await.is_err_and(|e| e.to_string().contains("search:read")), "it is still answered");
    assert!(!served.is_finished());
}
