//! Foreign trust domains against the real binary: who of them may spawn, and which bundle counts (clauses FC-1 to FC-7).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "foreign/endpoint.rs"]
mod endpoint;
#[path = "foreign/pki.rs"]
mod pki;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use endpoint::{Answer, Endpoint};
use mayfly::caller::Role;
use mayfly::folder::Key;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_x509};
use pki::{Pki, document};
use support::{Dev, ORCHESTRATOR, channel};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const DOMAIN: &str = "spire.example.org";
const LISTED: &str = "spiffe://spire.example.org/ns/x/sa/y";

/// A class that the listed foreign id and our own workload may spawn, and what else is given.
fn config(dir: &Path, foreign: &str) {
    let text = format!(
        "{foreign}\n[[classes]]\nname = \"robot\"\nowner = \"ops\"\nscopes = [\"build:run\"]\naudiences = [\"https://build.example\"]\n\
         max_depth = 2\nmodes = [\"autonomous\", \"delegated\"]\n\
         spawners = [\"workload/orchestrator\", \"class/robot\", \"{LISTED}\"]\n"
    );
    std::fs::write(dir.join("extra.toml"), text).unwrap();
}

/// `[[foreign]]` by a file in the folder.
fn by_file(domain: &str, file: &str) -> String {
    format!("[[foreign]]\ntrust_domain = \"{domain}\"\nfile = \"{file}\"\n")
}

/// `[[foreign]]` by an endpoint that is known by its host name; its root is in `ca.pem`.
fn by_web(url: &str) -> String {
    format!("[[foreign]]\ntrust_domain = \"{DOMAIN}\"\nendpoint = \"{url}\"\nprofile = \"https_web\"\nca_file = \"ca.pem\"\n")
}

/// `[[foreign]]` by an endpoint that is known by its SPIFFE ID; the bundle to begin with is in `bootstrap.json`.
fn by_spiffe(url: &str) -> String {
    format!(
        "[[foreign]]\ntrust_domain = \"{DOMAIN}\"\nendpoint = \"{url}\"\nprofile = \"https_spiffe\"\n\
         endpoint_id = \"spiffe://{DOMAIN}/spire/server\"\nbootstrap = \"bootstrap.json\"\n"
    )
}

fn start(dir: tempfile::TempDir) -> Dev {
    Dev::start_args(dir, &["--config", "extra.toml"], &[])
}

/// With the foreign trust domain by a file with this root.
fn dev(spire: &Pki) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spire.json"), document(&[spire], 1)).unwrap();
    config(dir.path(), &by_file(DOMAIN, "spire.json"));
    start(dir)
}

/// A channel as whoever `pki` says that it is `id`.
async fn connected(dev: &Dev, pki: &Pki, id: &str) -> Channel {
    let folder = format!("peer-{}", hex::encode(&mayfly_verify::sha256(&[id.as_bytes(), &pki.root].concat())[..8]));
    pki.svid(id).write(&dev.path(&folder));
    channel(dev, Some(&folder)).await
}

fn request(user_token: &str) -> v1::SpawnRequest {
    let csr = Key::new().unwrap().csr;
    let mode = if user_token.is_empty() { v1::Mode::Autonomous } else { v1::Mode::Delegated };
    v1::SpawnRequest { class: "robot".into(), csr, user_token: user_token.into(), mode: mode.into(), ..Default::default() }
}

async fn spawn(channel: &Channel) -> Result<v1::SpawnResponse, Status> {
    IdentitiesClient::new(channel.clone()).spawn(request("")).await.map(tonic::Response::into_inner)
}

fn said<T>(result: Result<T, Status>) -> (Code, String) {
    match result {
        Ok(_) => (Code::Ok, String::new()),
        Err(s) => (s.code(), s.get_details_error_info().map_or_else(|| s.message().to_owned(), |info| info.reason)),
    }
}

/// What a peer hears, or that it did not get through the handshake.
async fn heard(dev: &Dev, pki: &Pki, id: &str) -> String {
    match said(spawn(&connected(dev, pki, id).await).await) {
        (Code::Ok, _) => "ok".into(),
        (Code::Unauthenticated, reason) => reason,
        // The connection broke under the call: nobody answered it.
        (Code::Unavailable | Code::Unknown | Code::Cancelled, _) => "handshake".into(),
        (code, reason) => panic!("{code:?} {reason}"),
    }
}

/// Waits until something is so, and how long that took.
async fn until<F: Future<Output = bool>>(seconds: u64, mut so: impl FnMut() -> F) -> Duration {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < Duration::from_secs(seconds), "not within {seconds} s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    started.elapsed()
}

/// How often a look at the foreign bundle ended so.
fn looks(dev: &Dev, outcome: &str) -> u64 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(dev.text("http")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = format!("mayfly_foreign_fetches_total{{trust_domain=\"{DOMAIN}\",outcome=\"{outcome}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |n| n.parse().unwrap())
}

#[test]
fn fc2_config_check_tells_every_fault_of_a_foreign_trust_domain() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        std::fs::write(dir.path().join("serve.toml"), format!("trust_domain = \"prod.example.org\"\n{text}")).unwrap();
        let out = support::run_in(dir.path(), "config check serve.toml");
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let good = by_web("https://a.example.org/b") + &by_file("b.example.org", "b.json");
    let (code, told) = check(&good);
    assert!(code == 1 && told.contains("the CA file `ca.pem` cannot be read"), "{told}");
    let ca = rcgen::generate_simple_self_signed(["a.example.org".to_owned()]).unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.cert.pem()).unwrap();
    assert_eq!(check(&good), (0, String::new()));
    let wrong = by_file("prod.example.org", "b.json") + &by_spiffe("http://a.example.org/b").replace(DOMAIN, "a.example.org");
    let (code, told) = check(&(wrong.replace("bootstrap", "file") + "spawners = []"));
    assert_eq!(code, 1);
    for part in ["it is ours", "foreign[1].endpoint", "exactly one of", "foreign[1].spawners: is not a key"] {
        assert!(told.contains(part), "{part} not in {told}");
    }
}

#[tokio::test]
async fn fc1_a_listed_foreign_id_spawns_for_a_user_and_is_the_root_of_the_chain() {
    let spire = Pki::of(DOMAIN);
    let dev = dev(&spire);
    dev.token("demo", "demo.jwt");
    let token = std::fs::read_to_string(dev.path("demo.jwt")).unwrap().trim().to_owned();
    let peer = connected(&dev, &spire, LISTED).await;
    let spawned = IdentitiesClient::new(peer.clone()).spawn(request(&token)).await.unwrap().into_inner();
    let agent = spawned.agent.unwrap();
    assert_eq!((agent.root_id.as_str(), agent.parent_id.as_str()), (LISTED, LISTED));
    assert_eq!(agent.user.unwrap().sub, "demo");

    // What its own certificate says, to a verifier that knows our bundle and nothing else.
    let ours = TrustDomain::new("dev.mayfly.test").unwrap();
    let bundle = Bundle::from_json(ours, &spawned.bundle.unwrap().spiffe_json).unwrap();
    assert_eq!(bundle.x509_authorities().len(), 1, "FC-6: no foreign root is in our bundle");
    let chain: Vec<_> = spawned.svid.unwrap().certificates.into_iter().map(Into::into).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let svid = verify_x509(&chain, &bundle, &BindingOid::default(), now).unwrap();
    assert_eq!(svid.binding.unwrap().root_id(), LISTED);

    // The token belongs to who used it first.
    let own = channel(&dev, Some(ORCHESTRATOR)).await;
    let stolen = IdentitiesClient::new(own.clone()).spawn(request(&token)).await;
    assert_eq!(said(stolen), (Code::PermissionDenied, "USER_TOKEN_OF_ANOTHER".into()));

    // T13: it sees its own agents, and our workload sees others.
    let list = |channel: &Channel| {
        let mut client = InspectionClient::new(channel.clone());
        async move { client.list_agents(v1::ListAgentsRequest::default()).await.unwrap().into_inner().agents }
    };
    let seen = list(&peer).await;
    assert_eq!(seen.iter().map(|a| &a.agent_id).collect::<Vec<_>>(), [&agent.agent_id]);
    assert!(list(&own).await.is_empty());
    let end = v1::EndRequest { agent: agent.agent_id.clone() };
    assert_eq!(said(IdentitiesClient::new(own).end(end.clone()).await).0, Code::NotFound);

    // A restart replays who the root is, and the root ends its agent.
    let dev = start(dev.kill());
    let peer = connected(&dev, &spire, LISTED).await;
    assert_eq!(list(&peer).await, seen);
    IdentitiesClient::new(peer.clone()).end(end).await.unwrap();
    assert!(list(&peer).await.is_empty());
}

#[tokio::test]
async fn t12_a_foreign_workload_may_what_a_workload_may_but_for_certificates_of_its_own() {
    let spire = Pki::of(DOMAIN);
    let dev = dev(&spire);
    let peer = connected(&dev, &spire, LISTED).await;
    for (method, roles) in support::table() {
        let workload =
            roles.contains(&Role::Workload) && !matches!(method, "Identities/Renew" | "Identities/Redeem" | "Identities/Attest");
        assert_eq!(roles.contains(&Role::Foreign), workload, "{method}");
        let mut grpc = tonic::client::Grpc::new(peer.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let called = grpc.server_streaming(Request::new(()), format!("/mayfly.v1.{method}").parse().unwrap(), codec).await;
        let heard = match called {
            Ok(mut answers) => said(answers.get_mut().message().await),
            Err(status) => said::<()>(Err(status)),
        };
        assert_eq!(heard == (Code::PermissionDenied, "ROLE_NOT_ALLOWED".into()), !workload, "{method}: {heard:?}");
    }
}

#[tokio::test]
async fn a_foreign_certificate_that_ends_ends_its_connection_too() {
    let spire = Pki::of(DOMAIN);
    let dev = dev(&spire);
    spire.short(LISTED, 3).write(&dev.path("short"));
    let peer = channel(&dev, Some("short")).await;
    spawn(&peer).await.unwrap();
    // Its calls are refused and its connection is closed, whichever comes first; and no other begins.
    until(10, || async { spawn(&peer).await.is_err() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(spawn(&peer).await.is_err());
    assert!(dev.fails("agents list --as short", 4).contains("expired"));
    spawn(&connected(&dev, &spire, LISTED).await).await.unwrap();
}

#[tokio::test]
async fn limits_of_a_workload_count_for_a_foreign_one_alone() {
    let spire = Pki::of(DOMAIN);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spire.json"), document(&[&spire], 1)).unwrap();
    let limits = "[[limits]]\nname = \"few\"\nper = \"root\"\nlive = 2\n";
    config(dir.path(), &(by_file(DOMAIN, "spire.json") + limits));
    let dev = start(dir);
    let peer = connected(&dev, &spire, LISTED).await;
    for _ in 0..2 {
        let spawned = spawn(&peer).await.unwrap();
        assert_eq!(spawned.agent.unwrap().root_id, LISTED);
    }
    assert_eq!(said(spawn(&peer).await), (Code::ResourceExhausted, "LIMIT_REACHED".into()));
    spawn(&channel(&dev, Some(ORCHESTRATOR)).await).await.unwrap();
}

#[tokio::test]
async fn fc6_t33_a_peer_is_proved_by_the_bundle_of_its_own_trust_domain_alone() {
    let (spire, other, shared) = (Pki::of(DOMAIN), Pki::of("other.example.org"), Pki::nameless());
    let dir = tempfile::tempdir().unwrap();
    // The first publishes a root that names nobody: what it signs is of the first, and of nobody else.
    std::fs::write(dir.path().join("spire.json"), document(&[&spire, &shared], 1)).unwrap();
    std::fs::write(dir.path().join("other.json"), document(&[&other], 1)).unwrap();
    config(dir.path(), &(by_file(DOMAIN, "spire.json") + &by_file("other.example.org", "other.json")));
    let text = std::fs::read_to_string(dir.path().join("extra.toml")).unwrap();
    let both = text.replace(LISTED, &format!("{LISTED}\", \"spiffe://other.example.org/z"));
    std::fs::write(dir.path().join("extra.toml"), both).unwrap();
    let dev = start(dir);
    let ours = Pki::stolen(&dev.path(".mayfly"));
    let orchestrator = "spiffe://dev.mayfly.test/workload/orchestrator";
    for (pki, id, expected) in [
        (&spire, LISTED, "ok"),
        (&shared, LISTED, "ok"),
        (&other, "spiffe://other.example.org/z", "ok"),
        // By exact id: near is not enough, and no path of another trust domain means what it means in ours.
        (&spire, "spiffe://spire.example.org/ns/x/sa/y2", "CALLER_UNKNOWN"),
        (&spire, "spiffe://spire.example.org/ns/x/sa", "CALLER_UNKNOWN"),
        (&spire, "spiffe://spire.example.org/ns/x/sa/Y", "CALLER_UNKNOWN"),
        (&spire, "spiffe://spire.example.org/workload/orchestrator", "CALLER_UNKNOWN"),
        (&spire, "spiffe://spire.example.org/issuer", "CALLER_UNKNOWN"),
        // The name of one trust domain under the authority of another.
        (&spire, "spiffe://other.example.org/z", "CREDENTIAL_UNTRUSTED"),
        (&shared, "spiffe://other.example.org/z", "CREDENTIAL_UNTRUSTED"),
        (&other, LISTED, "CREDENTIAL_UNTRUSTED"),
        // Ours under a foreign authority, and a foreign one under ours.
        (&spire, orchestrator, "CREDENTIAL_UNTRUSTED"),
        (&shared, orchestrator, "CREDENTIAL_UNTRUSTED"),
        (&ours, LISTED, "CREDENTIAL_UNTRUSTED"),
        // No bundle at all.
        (&spire, "spiffe://third.example.org/z", "CREDENTIAL_TRUST_DOMAIN"),
        (&ours, "spiffe://third.example.org/z", "CREDENTIAL_TRUST_DOMAIN"),
        (&Pki::of(DOMAIN), LISTED, "handshake"),
    ] {
        assert_eq!(heard(&dev, pki, id).await, expected, "{id}");
    }
}

#[tokio::test]
async fn foreign_bundles_are_told_to_whoever_is_known_and_to_no_stranger() {
    use mayfly_agent::api::v1::bundles_client::BundlesClient;

    let spire = Pki::of(DOMAIN);
    let dev = dev(&spire);
    let ask = async |channel: Channel| {
        let mut client = BundlesClient::new(channel);
        let got = client.get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
        let mut stream = client.watch_bundle(v1::WatchBundleRequest {}).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert!(got.bundle.is_some() && first.bundle == got.bundle && first.foreign == got.foreign);
        (got.foreign, stream)
    };
    let peer = connected(&dev, &spire, LISTED).await;
    let (foreign, mut known) = ask(channel(&dev, Some(ORCHESTRATOR)).await).await;
    let (told, _) = ask(peer).await;
    assert_eq!(foreign, told);
    let [one] = foreign.as_slice() else { panic!("{foreign:?}") };
    let bundle = Bundle::from_json(TrustDomain::new(&one.trust_domain).unwrap(), &one.spiffe_json).unwrap();
    assert_eq!((one.trust_domain.as_str(), bundle.x509_authorities()), (DOMAIN, &[spire.root.to_vec()][..]));
    let (nothing, mut stranger) = ask(channel(&dev, None).await).await;
    assert_eq!(nothing, []);
    // A change is for those who may see it.
    std::fs::write(dev.path("spire.json"), document(&[&spire, &Pki::of(DOMAIN)], 2)).unwrap();
    let next = tokio::time::timeout(Duration::from_secs(10), known.message()).await.unwrap().unwrap().unwrap();
    assert_ne!(next.foreign, foreign);
    assert!(tokio::time::timeout(Duration::from_millis(700), stranger.message()).await.is_err());
}

#[tokio::test]
async fn fc6_a_merged_or_misfiled_bundle_is_kept_out_whole() {
    let (spire, other) = (Pki::of(DOMAIN), Pki::of("other.example.org"));
    for wrong in [document(&[&other], 2), document(&[&spire, &other], 2)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("spire.json"), wrong).unwrap();
        config(dir.path(), &by_file(DOMAIN, "spire.json"));
        let dev = start(dir);
        assert!(looks(&dev, "refused") > 0);
        assert_eq!(heard(&dev, &spire, LISTED).await, "handshake");
        assert_eq!(heard(&dev, &other, LISTED).await, "handshake");
        assert!(!dev.path(".mayfly/foreign/spire.example.org.json").exists(), "nothing is stored");
        // And the right one is taken when it comes.
        std::fs::write(dev.path("spire.json"), document(&[&spire], 1)).unwrap();
        until(10, || async { heard(&dev, &spire, LISTED).await == "ok" }).await;
    }
}

#[tokio::test]
async fn fc5_xv6_a_changed_bundle_counts_on_connections_that_stand_and_a_sequence_never_goes_back() {
    let (spire, next) = (Pki::of(DOMAIN), Pki::of(DOMAIN));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spire.json"), document(&[&spire], 5)).unwrap();
    config(dir.path(), &by_file(DOMAIN, "spire.json"));
    let dev = start(dir);
    let peer = connected(&dev, &spire, LISTED).await;
    spawn(&peer).await.unwrap();
    // An older document is kept out, whatever it says.
    std::fs::write(dev.path("spire.json"), document(&[&next], 4)).unwrap();
    until(10, || async { looks(&dev, "refused") > 0 }).await;
    spawn(&peer).await.unwrap();
    assert_eq!(heard(&dev, &next, LISTED).await, "handshake");
    // Another key joins: whoever held before still holds, on the same connection.
    std::fs::write(dev.path("spire.json"), document(&[&spire, &next], 5)).unwrap();
    until(10, || async { heard(&dev, &next, LISTED).await == "ok" }).await;
    spawn(&peer).await.unwrap();
    // The first is gone: the connection stands, and its calls are refused.
    std::fs::write(dev.path("spire.json"), document(&[&next], 6)).unwrap();
    until(10, || async { spawn(&peer).await.is_err() }).await;
    assert_eq!(said(spawn(&peer).await), (Code::Unauthenticated, "CREDENTIAL_UNTRUSTED".into()));
    assert_eq!(heard(&dev, &spire, LISTED).await, "handshake");
    let peer = connected(&dev, &next, LISTED).await;
    spawn(&peer).await.unwrap();
    // A restart without the file knows the newest, and still not the older one.
    std::fs::remove_file(dev.path("spire.json")).unwrap();
    let dev = start(dev.kill());
    assert_eq!(heard(&dev, &next, LISTED).await, "ok");
    std::fs::write(dev.path("spire.json"), document(&[&spire], 5)).unwrap();
    until(10, || async { looks(&dev, "refused") > 0 }).await;
    assert_eq!(heard(&dev, &spire, LISTED).await, "handshake");
    // BU-1: a bundle without keys revokes all of them.
    let peer = connected(&dev, &next, LISTED).await;
    spawn(&peer).await.unwrap();
    std::fs::write(dev.path("spire.json"), document(&[], 7)).unwrap();
    until(10, || async { said(spawn(&peer).await) == (Code::Unauthenticated, "CREDENTIAL_UNTRUSTED".into()) }).await;
}

#[tokio::test]
async fn fc3_https_web_is_verified_by_its_host_name_and_the_configured_roots() {
    let (spire, web) = (Pki::of(DOMAIN), Pki::nameless());
    let of = |leaf: &pki::Leaf| {
        let endpoint = Endpoint::start(leaf, Answer::Document(document(&[&spire], 1)));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), pki::pem(std::slice::from_ref(&web.root))).unwrap();
        config(dir.path(), &by_web(&endpoint.url()));
        (start(dir), endpoint)
    };
    let (dev, endpoint) = of(&web.web("127.0.0.1"));
    until(10, || async { looks(&dev, "ok") == 1 }).await;
    assert_eq!(heard(&dev, &spire, LISTED).await, "ok");
    assert_eq!(endpoint.hits(), 1);
    // Another name, and another root.
    for leaf in [web.web("elsewhere.example.org"), spire.web("127.0.0.1")] {
        let (dev, endpoint) = of(&leaf);
        until(10, || async { looks(&dev, "failed") == 1 }).await;
        assert_eq!((endpoint.hits(), heard(&dev, &spire, LISTED).await.as_str()), (0, "handshake"));
    }
}

#[tokio::test]
async fn fc3_fc5_https_spiffe_begins_with_the_bootstrap_and_goes_on_with_the_newest_bundle() {
    let (spire, next) = (Pki::of(DOMAIN), Pki::of(DOMAIN));
    let server = format!("spiffe://{DOMAIN}/spire/server");
    let endpoint = Endpoint::start(&spire.svid(&server), Answer::Document(document(&[&spire, &next], 2)));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bootstrap.json"), document(&[&spire], 1)).unwrap();
    config(dir.path(), &by_spiffe(&endpoint.url()));
    let dev = start(dir);
    until(10, || async { looks(&dev, "ok") == 1 }).await;
    assert_eq!(heard(&dev, &next, LISTED).await, "ok");
    // The bootstrap alone would refuse the endpoint from now on.
    endpoint.become_other(&next.svid(&server));
    endpoint.answer(Answer::Document(document(&[&next], 3)));
    let peer = connected(&dev, &spire, LISTED).await;
    spawn(&peer).await.unwrap();
    until(20, || async { looks(&dev, "ok") == 2 }).await;
    assert_eq!(said(spawn(&peer).await), (Code::Unauthenticated, "CREDENTIAL_UNTRUSTED".into()));
    // FC-5: the endpoint is down when the issuer comes back, which needs no network.
    endpoint.go_down();
    let dev = start(dev.kill());
    assert_eq!(heard(&dev, &next, LISTED).await, "ok");
    until(10, || async { looks(&dev, "failed") == 1 }).await;
}

#[tokio::test]
async fn fc3_https_spiffe_refuses_another_id_and_another_authority() {
    let (spire, web) = (Pki::of(DOMAIN), Pki::of(DOMAIN));
    let server = format!("spiffe://{DOMAIN}/spire/server");
    for leaf in [spire.svid(&format!("{server}2")), web.svid(&server), spire.web("127.0.0.1")] {
        let endpoint = Endpoint::start(&leaf, Answer::Document(document(&[&spire], 2)));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bootstrap.json"), document(&[&spire], 1)).unwrap();
        config(dir.path(), &by_spiffe(&endpoint.url()));
        let dev = start(dir);
        until(10, || async { looks(&dev, "failed") == 1 }).await;
        assert_eq!(
            (endpoint.hits(), heard(&dev, &spire, LISTED).await.as_str()),
            (0, "handshake"),
            "the bootstrap proves no caller"
        );
    }
}

#[tokio::test]
async fn fc7_redirects_lead_to_valid_endpoints_only() {
    let (spire, web) = (Pki::of(DOMAIN), Pki::nameless());
    let leaf = web.web("127.0.0.1");
    let good = Endpoint::start(&leaf, Answer::Document(document(&[&spire], 1)));
    let elsewhere = Endpoint::start(&spire.web("127.0.0.1"), Answer::Document(document(&[&spire], 1)));
    let with_user = good.url().replace("https://", "https://u@");
    for (to, outcome) in [
        (good.url(), "ok"),
        (good.url().replace("https:", "http:"), "failed"),
        (with_user, "failed"),
        (elsewhere.url(), "failed"),
        ("/bundle".into(), "failed"),
        (String::new(), "failed"),
    ] {
        let first = Endpoint::start(&leaf, Answer::Redirect(to.clone()));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), pki::pem(std::slice::from_ref(&web.root))).unwrap();
        config(dir.path(), &by_web(&first.url()));
        let dev = start(dir);
        until(10, || async { looks(&dev, outcome) == 1 }).await;
        // A circle ends.
        assert_eq!(first.hits(), if to == "/bundle" { 4 } else { 1 }, "{to}");
    }
    assert_eq!((good.hits(), elsewhere.hits()), (1, 0));
}

#[tokio::test]
async fn fc7_a_redirect_of_https_spiffe_leads_to_the_same_spiffe_id() {
    let spire = Pki::of(DOMAIN);
    let server = format!("spiffe://{DOMAIN}/spire/server");
    for (id, outcome) in [(server.clone(), "ok"), (format!("spiffe://{DOMAIN}/spire/other"), "failed")] {
        let target = Endpoint::start(&spire.svid(&id), Answer::Document(document(&[&spire], 2)));
        let first = Endpoint::start(&spire.svid(&server), Answer::Redirect(target.url()));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bootstrap.json"), document(&[&spire], 1)).unwrap();
        config(dir.path(), &by_spiffe(&first.url()));
        let dev = start(dir);
        until(10, || async { looks(&dev, outcome) == 1 }).await;
        assert_eq!((first.hits(), target.hits()), (1, usize::from(outcome == "ok")), "{id}");
    }
}

#[tokio::test]
async fn fc4_fc7_a_failure_waits_for_the_next_interval_and_each_fetch_begins_at_the_configured_url() {
    let (spire, web) = (Pki::of(DOMAIN), Pki::nameless());
    let leaf = web.web("127.0.0.1");
    let target = Endpoint::start(&leaf, Answer::Document(document(&[&spire], 1)));
    let first = Endpoint::start(&leaf, Answer::Redirect(target.url()));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), pki::pem(std::slice::from_ref(&web.root))).unwrap();
    config(dir.path(), &by_web(&first.url()));
    let dev = start(dir);
    until(10, || async { looks(&dev, "ok") == 1 }).await;
    first.answer(Answer::Status(503));
    let waited = until(20, || async { looks(&dev, "failed") == 1 }).await;
    assert!(waited > Duration::from_secs(8), "the publisher's ten seconds, not {waited:?}");
    first.answer(Answer::Document(document(&[&spire], 2)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((first.hits(), target.hits()), (2, 1), "nobody asks again at once, nor at the place of yesterday");
    until(20, || async { looks(&dev, "ok") == 2 }).await;
    assert_eq!((first.hits(), target.hits()), (3, 1));
}
