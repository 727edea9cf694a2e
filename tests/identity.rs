//! Identities that rotate themselves, against the real binary.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::identity::{Current, Identity, IdentityError, Issuer, Over, Saved};
use mayfly_agent::ticket::Ticket;
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_x509};
use support::{Dev, ORCHESTRATOR, channel};

/// As short as a class may have it.
const CONFIG: &str = r#"
[[classes]]
name = "researcher"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://files.example", "https://search.example"]
svid_ttl = "10s"
max_lease = "2m"
max_depth = 2
modes = ["delegated"]
spawners = ["workload/orchestrator"]
[[classes]]
name = "worker"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "10s"
max_lease = "1m"
modes = ["delegated"]
spawners = ["class/researcher"]
"#;
const SEARCH: &str = "https://search.example";
const SOON: Duration = Duration::from_secs(20);

fn dev() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev
}

fn issuer(dev: &Dev) -> Issuer {
    let trust_domain = TrustDomain::new("dev.mayfly.test").unwrap();
    Issuer { address: dev.text("grpc"), trust_domain, connect_timeout: Duration::from_secs(10) }
}

async fn spawn(dev: &Dev) -> Identity {
    let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file("demo.jwt"), ..Default::default() };
    Identity::spawn(channel(dev, Some(ORCHESTRATOR)).await, issuer(dev), request).await.unwrap()
}

fn holds(current: &Current) -> bool {
    let bundle = Bundle::from_json(TrustDomain::new("dev.mayfly.test").unwrap(), &current.bundle().spiffe_json).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let svid = verify_x509(current.chain(), &bundle, &BindingOid::default(), now).unwrap();
    svid.id.to_string() == current.spiffe_id() && current.certified_key().keys_match().is_ok()
}

fn state(dev: &Dev, identity: &Identity) -> String {
    let shown = dev.json(&format!("agents show {}", identity.current().spiffe_id()));
    shown["state"].as_str().unwrap().to_owned()
}

async fn over(identity: &Identity) -> Over {
    tokio::time::timeout(SOON, identity.ended()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_in_one_process_never_share_a_token() {
    let dev = dev();
    dev.token("guest", "guest.jwt");
    let orchestrator = channel(&dev, Some(ORCHESTRATOR)).await;
    let mut agents = Vec::new();
    for user in ["demo.jwt", "guest.jwt"] {
        let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file(user), ..Default::default() };
        agents.push(Arc::new(Identity::spawn(orchestrator.clone(), issuer(&dev), request).await.unwrap()));
    }
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let agents = agents.clone();
            tokio::spawn(async move {
                for n in 0..1250 {
                    let agent = &agents[(worker + n) % 2];
                    let token = agent.jwt(SEARCH).await.unwrap().token;
                    let whose = mayfly_verify::inspect_jwt(&token).unwrap().to_string();
                    assert_eq!(whose, agent.current().spiffe_id());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_renews_itself_while_it_is_used_and_is_never_taken_for_a_thief() {
    let dev = dev();
    let identity = Arc::new(spawn(&dev).await);
    assert!(holds(&identity.current()));
    let until = Instant::now() + Duration::from_secs(25);
    // Calls all the time, over the newest channel and over the first, which connects again whenever it was closed.
    let first = identity.channel();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (identity, first) = (Arc::clone(&identity), first.clone());
        callers.spawn(async move {
            let mut calls = 0u32;
            while Instant::now() < until {
                let channel = if n == 0 { first.clone() } else { identity.channel() };
                let request = v1::GetAgentRequest { agent: identity.current().spiffe_id().to_owned(), ..Default::default() };
                match InspectionClient::new(channel).get_agent(request).await {
                    Ok(_) => calls += 1,
                    // It was under way when its connection was closed.
                    Err(s) if matches!(s.code(), tonic::Code::Unavailable | tonic::Code::Cancelled) => {}
                    // tonic tells a GOAWAY that met the request as an internal error.
                    Err(s) if format!("{s:?}").contains("GoAway(b\"\", NO_ERROR, Remote)") => {}
                    // The first channel's certificate ended, and its connection was not closed yet. Who asks for the channel at each
                    // use has long had another.
                    Err(s) => assert!(n == 0 && s.message().contains("expired"), "{n}: {s:?}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            calls
        });
    }
    let mut changed = identity.changed();
    let (mut keys, mut last) = (vec![identity.current().chain().to_vec()], identity.current().expires_at());
    while let Ok(next) = tokio::time::timeout_at(until.into(), changed.changed()).await {
        next.unwrap();
        let current = changed.borrow_and_update().clone();
        assert!(holds(&current) && current.expires_at() >= last && current.expires_at() > SystemTime::now());
        last = current.expires_at();
        keys.push(current.chain().to_vec());
    }
    keys.dedup();
    assert!(keys.len() >= 4, "{} certificates in 25 s", keys.len());
    while let Some(calls) = callers.join_next().await {
        assert!(calls.unwrap() > 500);
    }
    assert_eq!(state(&dev, &identity), "live");
    identity.jwt(SEARCH).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_an_identity_at_once_and_says_why() {
    let dev = dev();
    let (parent, sibling) = (spawn(&dev).await, spawn(&dev).await);
    let child = parent.spawn_child(v1::SpawnRequest { class: "worker".into(), ..Default::default() }).await.unwrap();
    let token = child.jwt(SEARCH).await.unwrap();
    assert_eq!(child.jwt(SEARCH).await.unwrap().token, token.token, "one is remembered");
    let denied = child.jwt("https://files.example").await.unwrap_err();
    assert!(matches!(&denied, IdentityError::Denied { reason, .. } if reason == "AUDIENCE_NOT_ALLOWED"), "{denied}");
    assert_eq!((denied.code(), denied.is_transient()), ("denied", false));

    dev.json(&format!("revoke --agent {}", parent.current().spiffe_id()));
    let cut = Instant::now();
    for identity in [&parent, &child] {
        let why = over(identity).await;
        assert!(matches!(&why, Over::Revoked { reason, .. } if reason == "AGENT_REVOKED"), "{why:?}");
        assert!(matches!(identity.jwt(SEARCH).await, Err(IdentityError::Over(_))), "not what is remembered either");
    }
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    assert!(sibling.over().borrow().is_none());
    sibling.jwt(SEARCH).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_survives_the_issuer_and_expires_only_when_its_time_is_over() {
    let dev = dev();
    let identity = spawn(&dev).await;
    identity.jwt(SEARCH).await.unwrap();
    let before = identity.current();
    let dir = dev.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(identity.current().chain(), before.chain());
    identity.jwt(SEARCH).await.unwrap();
    let away = identity.jwt("https://files.example").await.unwrap_err();
    assert!(away.is_transient() && away.to_string().contains("reach"), "{away}");

    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    let mut changed = identity.changed();
    tokio::time::timeout(SOON, changed.wait_for(|c| c.expires_at() > before.expires_at())).await.unwrap().unwrap();
    assert!(holds(&identity.current()));
    assert_eq!(state(&dev, &identity), "live");

    drop(dev);
    let last = identity.current();
    let why = over(&identity).await;
    assert!(matches!(why, Over::Expired(_)), "{why:?}");
    let late = SystemTime::now().duration_since(last.expires_at()).unwrap();
    assert!(late < Duration::from_secs(2), "neither before its end nor long after: {late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_redeemed_and_the_agent_ends_by_its_own_word() {
    let dev = dev();
    dev.json("spawn --class researcher --user-token demo.jwt --ticket --out t1");
    let ticket = Ticket::parse(&dev.file("t1/ticket")).unwrap();
    let identity = Identity::redeem(&ticket, Duration::from_secs(5)).await.unwrap();
    assert!(holds(&identity.current()));
    let again = Identity::redeem(&ticket, Duration::from_secs(5)).await.err().unwrap();
    assert!(matches!(&again, IdentityError::Denied { reason, .. } if reason == "TICKET_REFUSED"), "T04: {again}");
    identity.end().await.unwrap();
    assert_eq!(state(&dev, &identity), "ended");
    assert_eq!(over(&identity).await, Over::Ended);
    identity.end().await.unwrap();

    // A join token makes a workload, which has no end of its own.
    let token = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
    let workload = Identity::redeem(&Ticket::parse(&token).unwrap(), Duration::from_secs(5)).await.unwrap();
    assert_eq!(workload.current().spiffe_id(), "spiffe://dev.mayfly.test/workload/orchestrator");
    let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file("demo.jwt"), ..Default::default() };
    let agent = workload.spawn_child(request).await.unwrap();
    workload.end().await.unwrap();
    assert!(agent.over().borrow().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_bundle_arrives_by_itself() {
    let dev = dev();
    let identity = spawn(&dev).await;
    let mut changed = identity.changed();
    let before = changed.borrow_and_update().bundle().spiffe_json.clone();
    dev.json("authority prepare jwt");
    tokio::time::timeout(Duration::from_secs(5), changed.wait_for(|c| c.bundle().spiffe_json != before)).await.unwrap().unwrap();
    assert!(holds(&identity.current()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_not_outlived() {
    let dev = dev();
    let request = v1::SpawnRequest {
        class: "researcher".into(),
        user_token: dev.file("demo.jwt"),
        lease_seconds: 12,
        ..Default::default()
    };
    let began = Instant::now();
    let identity = Identity::spawn(channel(&dev, Some(ORCHESTRATOR)).await, issuer(&dev), request).await.unwrap();
    let why = over(&identity).await;
    assert!(matches!(why, Over::Expired(_)), "{why:?}");
    assert!((10..16).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_holds_in_a_folder_is_taken_over_under_a_fresh_key_and_rotates() {
    let dev = dev();
    let spawned = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let saved = Saved::from_folder(&dev.path("a1")).unwrap();
    assert_eq!(spawned["agent_id"].as_str().unwrap(), saved.agent().to_string());
    let elsewhere = Issuer { trust_domain: TrustDomain::new("other.test").unwrap(), ..issuer(&dev) };
    let other = Identity::take_over(&saved, elsewhere).await.err().unwrap();
    assert!(other.code() == "saved" && other.to_string().contains("other.test"), "{other}");

    let (saved, at) = (Arc::new(saved), issuer(&dev));
    let taking = Arc::clone(&saved);
    let identity = tokio::spawn(async move { Identity::take_over(&taking, at).await }).await.unwrap().unwrap();
    let first = identity.current();
    let folder = mayfly::folder::certificates(&dev.path("a1/svid.pem")).unwrap();
    assert!(holds(&first) && first.spiffe_id() == saved.agent().to_string() && first.chain()[0] != folder[0]);
    assert!(first.agent().is_some_and(|agent| agent.class == "researcher"));
    identity.jwt(SEARCH).await.unwrap();
    let mut changed = identity.changed();
    tokio::time::timeout(SOON, changed.wait_for(|c| c.expires_at() > first.expires_at())).await.unwrap().unwrap();
    assert!(holds(&identity.current()) && state(&dev, &identity) == "live");

    // T15: what is in the folder is a copy now, and whoever uses it has it from somewhere.
    let again = Identity::take_over(&saved, issuer(&dev)).await.err().unwrap();
    assert!(matches!(&again, IdentityError::Over(_)), "{again:?}");
    let why = over(&identity).await;
    assert!(matches!(&why, Over::Revoked { .. }), "{why:?}");
    assert_eq!(state(&dev, &identity), "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_or_has_run_out_is_not_taken_over() {
    let dev = dev();
    let spawned = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    let saved = Saved::from_folder(&dev.path("a2")).unwrap();
    dev.json(&format!("revoke --agent {}", spawned["agent_id"].as_str().unwrap()));
    let cut = Identity::take_over(&Saved::from_folder(&dev.path("a1")).unwrap(), issuer(&dev)).await.err().unwrap();
    assert!(matches!(&cut, IdentityError::Over(Over::Revoked { reason, .. }) if reason == "AGENT_REVOKED"), "{cut:?}");
    let workload = Saved::from_folder(&dev.path(ORCHESTRATOR)).err().unwrap();
    assert!(workload.to_string().contains("is not an agent"), "{workload}");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let late = Saved::from_folder(&dev.path("a2")).err().unwrap();
    assert!(matches!(&late, IdentityError::Over(Over::Expired(_))), "{late:?}");
    let late = Identity::take_over(&saved, issuer(&dev)).await.err().unwrap();
    assert!(matches!(&late, IdentityError::Over(Over::Expired(_))), "{late:?}");
}

#[test]
fn t27_a_command_refuses_an_identity_whose_key_others_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let dev = dev();
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let key = dev.path("a1/key.pem");
    let set = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o640);
    let told = dev.fails("renew --as a1", 1);
    assert!(told.contains("key.pem` has mode 640") && told.contains("run `chmod 600 "), "{told}");
    set(0o600);
    dev.json("renew --as a1");
}
