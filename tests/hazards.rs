//! Hazards on the wire: what a hostile caller would send, and exactly what it gets. Numbers are those of the list of hazards.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

#[path = "support/raw.rs"]
mod raw;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mayfly::caller::Role;
use mayfly::folder::Key;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::ticket::Ticket;
use raw::call;
use support::{Dev, ORCHESTRATOR, channel};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn said<T>(result: Result<T, Status>) -> (Code, String) {
    match result {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), reason(&status)),
    }
}

fn dev() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev
}

async fn operator(dev: &Dev) -> Channel {
    connect_unix(std::path::Path::new(&dev.text("socket"))).await.unwrap()
}

/// One channel for each role.
async fn roles(dev: &Dev) -> BTreeMap<&'static str, (Role, Channel)> {
    BTreeMap::from([
        ("stranger", (Role::Stranger, channel(dev, None).await)),
        ("workload", (Role::Workload, channel(dev, Some(ORCHESTRATOR)).await)),
        ("agent", (Role::Agent, channel(dev, Some("a1")).await)),
        ("operator", (Role::Operator, operator(dev).await)),
    ])
}

#[tokio::test]
async fn t12_t21_every_method_for_every_role_and_nothing_by_default() {
    let dev = dev();
    let mut seen = 0;
    // An end of the caller itself comes last: it is over after that.
    let (ends, others): (Vec<_>, Vec<_>) = support::table().into_iter().partition(|(method, _)| *method == "Identities/End");
    for (name, (role, channel)) in &roles(&dev).await {
        // What there is not comes first: who ends itself loses its connection.
        let (code, _) = said(call(channel, "Identities/Impersonate", Vec::new()).await);
        assert_eq!(code, Code::Unimplemented, "{name}");
        for (method, allowed) in others.iter().chain(&ends) {
            let (code, reason) = said(call(channel, method, Vec::new()).await);
            let turned_away = matches!(reason.as_str(), "CERTIFICATE_NEEDED" | "ROLE_NOT_ALLOWED");
            assert_eq!(turned_away, !allowed.contains(role), "{method} as {name}: {code:?} {reason}");
            if turned_away {
                let expected = if *role == Role::Stranger { Code::Unauthenticated } else { Code::PermissionDenied };
                assert_eq!(code, expected, "{method} as {name}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 4 * support::table().len());
}

#[tokio::test]
async fn t11_what_a_later_version_would_say_is_refused() {
    let dev = dev();
    let workload = channel(&dev, Some(ORCHESTRATOR)).await;
    let token = std::fs::read_to_string(dev.path("demo.jwt")).unwrap().trim().to_owned();
    let spawn = |mode, excess| v1::SpawnRequest {
        class: "worker".into(),
        csr: Key::new().unwrap().csr,
        user_token: token.clone(),
        mode,
        excess,
        ..Default::default()
    };
    let mut client = IdentitiesClient::new(workload.clone());
    for (mode, excess, expected) in [(99, 0, "MODE_UNKNOWN"), (0, 99, "EXCESS_UNKNOWN"), (-1, 0, "MODE_UNKNOWN")] {
        assert_eq!(said(client.spawn(spawn(mode, excess)).await), (Code::InvalidArgument, expected.to_owned()));
    }
    let operator = operator(&dev).await;
    // `target` unset, set to an empty target, and to an arm of a later version (field 15, a string).
    for body in [vec![], vec![0x0a, 0x00], vec![0x0a, 0x03, 0x7a, 0x01, b'x']] {
        let got = said(call(&operator, "Operations/Revoke", body).await);
        assert_eq!(got, (Code::InvalidArgument, "TARGET_MISSING".to_owned()));
    }
    // Both arms: the last one counts, as the encoding has it, and it is judged like any other.
    let both = [&[0x0a, 0x07, 0x0a, 0x01, b'x', 0x12, 0x02, 0x0a, 0x00][..]].concat();
    assert_eq!(said(call(&operator, "Operations/Revoke", both).await).0, Code::InvalidArgument);
    assert_eq!(dev.json("agents list")["agents"].as_array().unwrap().len(), 1, "nothing came of it");
}

#[tokio::test]
async fn t23_absent_and_broken_messages_are_typed_errors() {
    let dev = dev();
    for (name, (role, channel)) in &roles(&dev).await {
        for (method, allowed) in support::table().into_iter().filter(|(m, _)| *m != "Identities/End") {
            // Empty, cut off, a wrong wire type, a length over the end, 60 KiB of noise.
            for body in [vec![], vec![0x0a], vec![0x08, 0x01, 0x0d], vec![0x0a, 0xff, 0xff, 0x7f], vec![0xff; 60_000]] {
                let (code, _) = said(call(channel, method, body.clone()).await);
                // tonic tells bytes that are no message as INTERNAL before any role is looked at.
                let unreadable = code == Code::Internal && !body.is_empty();
                assert!(unreadable || !matches!(code, Code::Unknown | Code::Internal), "{method} as {name}: {code:?}");
                assert!(allowed.contains(role) || code != Code::Ok || method.starts_with("Bundles"), "{method} as {name}");
            }
        }
    }
    dev.json("agents list");
}

/// What would be an identity where headers were one.
fn disguises(dev: &Dev, id: &str, jwt: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-forwarded-client-cert", format!("By=spiffe://dev.mayfly.test/issuer;URI={id}")),
        ("x-spiffe-id", id.to_owned()),
        ("x-spiffe-id", "spiffe://dev.mayfly.test/workload/orchestrator".to_owned()),
        ("authorization", format!("Bearer {}", dev.file(jwt))),
        ("authorization", format!("Bearer {}", dev.file("demo.jwt"))),
        ("x-mayfly-operator", "uid:0".to_owned()),
        ("workload.spiffe.io", "true".to_owned()),
    ]
}

fn wearing<T>(disguise: &(&'static str, String), message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(disguise.0, disguise.1.parse().unwrap());
    request
}

#[tokio::test]
async fn t19_headers_are_never_an_identity() {
    let two = two_workloads().await;
    let stranger = channel(&two.dev, None).await;
    for disguise in disguises(&two.dev, &two.a1, "a2.jwt") {
        let request = wearing(&disguise, v1::ListAgentsRequest::default());
        let got = said(InspectionClient::new(stranger.clone()).list_agents(request).await);
        assert_eq!(got, (Code::Unauthenticated, "CERTIFICATE_NEEDED".to_owned()), "{disguise:?}");
    }
}

#[tokio::test]
async fn t19_who_is_somebody_stays_that_whatever_its_headers_say() {
    let two = two_workloads().await;
    let agent = channel(&two.dev, Some("a1")).await;
    let second = channel(&two.dev, Some("second")).await;
    let not_found = (Code::NotFound, "AGENT_UNKNOWN".to_owned());
    let not_allowed = (Code::PermissionDenied, "ROLE_NOT_ALLOWED".to_owned());
    for disguise in disguises(&two.dev, &two.a2, "a2.jwt") {
        let get = |id: &String| wearing(&disguise, v1::GetAgentRequest { agent: id.clone(), ..Default::default() });
        let mut inspection = InspectionClient::new(agent.clone());
        assert_eq!(inspection.get_agent(get(&two.a1)).await.unwrap().into_inner().agent.unwrap().agent_id, two.a1);
        assert_eq!(said(inspection.get_agent(get(&two.a2)).await), not_found, "{disguise:?}");
        let mint = v1::MintJwtRequest { audience: "https://search.example".into(), ..Default::default() };
        let minted = IdentitiesClient::new(agent.clone()).mint_jwt(wearing(&disguise, mint)).await.unwrap().into_inner();
        assert_eq!(minted.svid.unwrap().spiffe_id, two.a1, "{disguise:?}");
        let reopen = wearing(&disguise, v1::ReopenRequest::default());
        assert_eq!(said(OperationsClient::new(agent.clone()).reopen(reopen).await), not_allowed, "{disguise:?}");

        let mut inspection = InspectionClient::new(second.clone());
        let list = inspection.list_agents(wearing(&disguise, v1::ListAgentsRequest::default())).await.unwrap().into_inner();
        assert_eq!(list.agents.iter().map(|a| &a.agent_id).collect::<Vec<_>>(), [&two.b1], "{disguise:?}");
        assert_eq!(said(inspection.get_agent(get(&two.a1)).await), not_found, "{disguise:?}");
        let end = wearing(&disguise, v1::EndRequest { agent: two.a1.clone() });
        assert_eq!(said(IdentitiesClient::new(second.clone()).end(end).await), not_found, "{disguise:?}");
        let token = v1::CreateJoinTokenRequest { workload: "second".into(), ttl_seconds: 0 };
        let token = OperationsClient::new(second.clone()).create_join_token(wearing(&disguise, token)).await;
        assert_eq!(said(token), not_allowed, "{disguise:?}");
    }
    // An agent that ends whom it is ends itself.
    let disguise = &disguises(&two.dev, &two.a2, "a2.jwt")[1];
    let ended = IdentitiesClient::new(agent).end(wearing(disguise, v1::EndRequest::default())).await.unwrap().into_inner();
    assert_eq!(ended.agent_id, two.a1);
    let state = |id: &str| two.dev.json(&format!("agents show {id}"))["state"].clone();
    assert_eq!((state(&two.a1), state(&two.a2)), ("ended".into(), "live".into()));
}

/// Two workloads: the first has the agents `a1` and `a2` of two users, the second has `b1`.
struct Two {
    dev: Dev,
    a1: String,
    a2: String,
    b1: String,
}

async fn two_workloads() -> Two {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[workloads]]\nname = \"second\"\n[[classes]]\nname = \"scout\"\nowner = \"me\"\nscopes = [\"look\"]\n\
                audiences = [\"https://search.example\"]\nspawners = [\"workload/orchestrator\", \"workload/second\"]\n";
    std::fs::write(dir.path().join("more.toml"), more).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    let out = dev.run("join second");
    std::fs::write(dev.path("ticket"), out.stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out second");
    for (user, file) in [("demo", "demo.jwt"), ("guest", "guest.jwt"), ("demo", "second.jwt")] {
        dev.token(user, file);
    }
    let spawn = |line: &str| {
        let agent = dev.json(&format!("spawn --class scout --audience https://search.example {line}"));
        agent["agent_id"].as_str().unwrap().to_owned()
    };
    let a1 = spawn("--user-token demo.jwt --out a1");
    let b1 = spawn("--as second --user-token second.jwt --out b1");
    let a2 = spawn("--user-token guest.jwt --out a2");
    dev.json("mint --as a2 --audience https://search.example --out a2.jwt");
    Two { dev, a1, a2, b1 }
}

#[tokio::test]
async fn t13_what_is_not_the_callers_looks_as_if_it_were_not_there() {
    let two = two_workloads().await;
    let uuid = |id: &str| id.rsplit('/').next().unwrap().to_owned();
    let nobody = "01900000-0000-7000-8000-000000000000";
    let unknown = [format!("spiffe://dev.mayfly.test/agent/scout/{nobody}"), nobody.to_owned()];
    let elsewhere = format!("spiffe://other.test/agent/scout/{nobody}");
    let mut answers = HashSet::new();
    for (caller, own, others) in [
        ("a1", &two.a1, [&two.a2, &two.b1]),
        ("b1", &two.b1, [&two.a1, &two.a2]),
        ("second", &two.b1, [&two.a1, &two.a2]),
        (ORCHESTRATOR, &two.a1, [&two.b1, &two.b1]),
    ] {
        let channel = channel(&two.dev, Some(caller)).await;
        let (inspection, identities) = (InspectionClient::new(channel.clone()), IdentitiesClient::new(channel));
        let others = others.into_iter().flat_map(|id| [id.clone(), uuid(id), id.replace("/scout/", "/worker/")]);
        for agent in others.chain(unknown.clone()).chain([elsewhere.clone()]) {
            let get = inspection
                .clone()
                .get_agent(v1::GetAgentRequest { agent: agent.clone(), ..Default::default() })
                .await
                .unwrap_err();
            let end = identities.clone().end(v1::EndRequest { agent: agent.clone() }).await.unwrap_err();
            for status in [get, end] {
                assert_eq!(status.code(), Code::NotFound, "{agent} for {caller}");
                answers.insert((status.message().to_owned(), status.details().to_vec()));
            }
        }
        for agent in [own.clone(), uuid(own)] {
            inspection.clone().get_agent(v1::GetAgentRequest { agent, ..Default::default() }).await.unwrap();
        }
    }
    assert_eq!(answers.len(), 1, "one answer for all: {answers:?}");
    for id in [&two.a1, &two.a2, &two.b1] {
        assert_eq!(two.dev.json(&format!("agents show {id}"))["state"], "live");
    }
}

#[tokio::test]
async fn t13_a_list_is_as_if_nobody_else_had_agents() {
    let two = two_workloads().await;
    let second = InspectionClient::new(channel(&two.dev, Some("second")).await);
    let list = |page_size, page_token: &str, all| {
        let (mut second, page_token) = (second.clone(), page_token.to_owned());
        async move {
            let got = second
                .list_agents(v1::ListAgentsRequest { page_size, page_token, all, ..Default::default() })
                .await
                .unwrap()
                .into_inner();
            (got.agents.into_iter().map(|a| a.agent_id).collect::<Vec<_>>(), got.next_page_token)
        }
    };
    // Those of the first stand before and behind its own: no page says so.
    let mine = vec![two.b1.clone()];
    for all in [false, true] {
        for size in [0, 1, 2, u32::MAX] {
            assert_eq!(list(size, "", all).await, (mine.clone(), String::new()), "a page of {size}");
        }
    }
    // And its own go on from page to page.
    let more = two.dev.json("spawn --as second --class scout --user-token second.jwt --out b2");
    let (first, next) = list(1, "", false).await;
    assert_eq!(first, mine);
    let last = more["agent_id"].as_str().unwrap().to_owned();
    assert_eq!(list(1, &next, false).await, (vec![last], String::new()));
    // T110: a page token is the caller's own, and nobody makes one.
    let made_up = [two.a1.rsplit('/').next().unwrap(), "ffffffff-ffff-7fff-bfff-ffffffffffff", "00", &next[2..], "x"];
    let altered = next.replacen(&next[..1], if next.starts_with('0') { "1" } else { "0" }, 1);
    for token in made_up.into_iter().chain([altered.as_str()]) {
        let request = v1::ListAgentsRequest { page_size: 1, page_token: token.to_owned(), all: false, ..Default::default() };
        assert_eq!(said(second.clone().list_agents(request).await), (Code::InvalidArgument, "PAGE_TOKEN".to_owned()), "{token}");
    }
    let mut other = InspectionClient::new(channel(&two.dev, Some(ORCHESTRATOR)).await);
    let request = v1::ListAgentsRequest { page_size: 1, page_token: next, all: false, ..Default::default() };
    assert_eq!(said(other.list_agents(request).await), (Code::InvalidArgument, "PAGE_TOKEN".to_owned()));
}

#[tokio::test]
async fn t13_a_token_of_another_workload_tells_nothing_of_it() {
    let two = two_workloads().await;
    let spawn = |caller: &'static str, token: String| {
        let dev = &two.dev;
        async move {
            let csr = Key::new().unwrap().csr;
            let request = v1::SpawnRequest { class: "scout".into(), csr, user_token: token, ..Default::default() };
            let status = IdentitiesClient::new(channel(dev, Some(caller)).await).spawn(request).await.unwrap_err();
            (status.code(), status.message().to_owned(), status.details().to_vec())
        }
    };
    // Who has not the whole of it learns nothing: a forgery of one that was used is any forgery.
    two.dev.token("guest", "unused.jwt");
    let forged = |file: &str| {
        let token = two.dev.file(file);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        // The first character: the last one has bits that belong to no byte, and another there is no base64url.
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        format!("{signed}.{other}{}", &signature[1..])
    };
    let of_used = spawn("second", forged("guest.jwt")).await;
    assert_eq!(of_used, spawn("second", forged("unused.jwt")).await);
    assert_eq!(of_used.0, Code::PermissionDenied);
    // Who has it is told that it is another's, and not whose, nor how it stands.
    let live = spawn("second", two.dev.file("guest.jwt")).await;
    assert_eq!((live.0, live.1.contains("orchestrator")), (Code::PermissionDenied, false));
    let (iss, sub) = (two.dev.text("oidc"), "guest");
    let guest = v1::User { iss, sub: sub.into(), ..Default::default() };
    let target = Some(v1::Target { target: Some(v1::target::Target::User(guest)) });
    let revoke = v1::RevokeRequest { target, reason: "test".into(), ..Default::default() };
    OperationsClient::new(operator(&two.dev).await).revoke(revoke).await.unwrap();
    assert_eq!(spawn("second", two.dev.file("guest.jwt")).await, live, "of a user who was revoked");
    assert_ne!(spawn(ORCHESTRATOR, two.dev.file("guest.jwt")).await, live, "its own workload is told");
}

#[tokio::test]
async fn t01_names_are_refused_and_never_normalised() {
    let dev = dev();
    let workload = channel(&dev, Some(ORCHESTRATOR)).await;
    let operator = operator(&dev).await;
    let uuid = "01900000-0000-7000-8000-000000000000";
    let long = "a".repeat(2049);
    let bad = ["..", ".", "a//b", "%2e%2e", "a%2Fb", "a\\b", "a\0b", "A", "a\u{2024}b", " worker", "worker ", "", &long];
    for name in bad {
        let request = v1::SpawnRequest { class: name.into(), csr: vec![1], ..Default::default() };
        let got = said(IdentitiesClient::new(workload.clone()).spawn(request).await);
        assert_eq!(got, (Code::InvalidArgument, "CLASS_MALFORMED".to_owned()), "{name:?}");
        let request = v1::CreateJoinTokenRequest { workload: name.into(), ttl_seconds: 0 };
        let got = said(OperationsClient::new(operator.clone()).create_join_token(request).await);
        assert_eq!(got, (Code::InvalidArgument, "WORKLOAD_MALFORMED".to_owned()), "{name:?}");
        let agent = format!("spiffe://dev.mayfly.test/agent/{name}/{uuid}");
        let got =
            said(InspectionClient::new(operator.clone()).get_agent(v1::GetAgentRequest { agent, ..Default::default() }).await);
        assert_eq!(got, (Code::InvalidArgument, "AGENT_MALFORMED".to_owned()), "{name:?}");
    }
    for agent in ["SPIFFE://dev.mayfly.test/agent/worker/", "spiffe://DEV.mayfly.test/agent/worker/"] {
        let agent = format!("{agent}{uuid}");
        let got =
            said(InspectionClient::new(operator.clone()).get_agent(v1::GetAgentRequest { agent, ..Default::default() }).await);
        assert_eq!(got.0, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn t01_an_agent_has_one_spelling_and_one_class() {
    let dev = dev();
    let id = dev.json("agents list")["agents"][0]["agent_id"].as_str().unwrap().to_owned();
    let uuid = id.rsplit('/').next().unwrap();
    let operator = operator(&dev).await;
    let get = |agent: String| {
        let mut client = InspectionClient::new(operator.clone());
        async move { said(client.get_agent(v1::GetAgentRequest { agent, ..Default::default() }).await) }
    };
    for good in [&id, uuid] {
        assert_eq!(get(good.to_owned()).await.0, Code::Ok);
    }
    for other in [uuid.to_uppercase(), uuid.replace('-', ""), format!("{{{uuid}}}"), format!("urn:uuid:{uuid}")] {
        assert_eq!(get(other.clone()).await, (Code::InvalidArgument, "AGENT_MALFORMED".to_owned()), "{other}");
    }
    let class = id.replace("/researcher/", "/worker/");
    assert_eq!(get(class).await, (Code::NotFound, "AGENT_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn t02_a_request_decides_nothing_but_the_key() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
    let dev = dev();
    let token = std::fs::read_to_string(dev.path("demo.jwt")).unwrap().trim().to_owned();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "issuer");
    for uri in ["spiffe://dev.mayfly.test/issuer", "spiffe://other.test/agent/x"] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let csr = params.serialize_request(&key).map(|csr| csr.der().to_vec());
    // Some of it no request may hold; then the rest is tried alone.
    let csr = csr.unwrap_or_else(|_| {
        (params.is_ca, params.key_usages, params.extended_key_usages) = (IsCa::NoCa, vec![], vec![]);
        params.serialize_request(&key).unwrap().der().to_vec()
    });
    let mut client = IdentitiesClient::new(channel(&dev, Some(ORCHESTRATOR)).await);
    let request = v1::SpawnRequest { class: "worker".into(), csr, user_token: token, ..Default::default() };
    let got = client.spawn(request).await.unwrap().into_inner();
    let der = &got.svid.as_ref().unwrap().certificates[0];
    let (_, cert) = x509_parser::parse_x509_certificate(der).unwrap();
    assert_eq!(cert.subject().iter().count(), 0);
    assert!(!cert.basic_constraints().unwrap().unwrap().value.ca);
    let names = &cert.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(format!("{:?}", names[0]).contains(&got.agent.unwrap().agent_id));
    assert!(!cert.key_usage().unwrap().unwrap().value.key_cert_sign());
    // T29: positive and at most 20 octets.
    assert!(cert.raw_serial().len() <= 20 && cert.raw_serial()[0] < 0x80 && cert.raw_serial()[0] > 0);
}

#[tokio::test]
async fn t04_of_256_who_redeem_at_once_one_does() {
    let dev = dev();
    let token = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
    let secret = Ticket::parse(&token).unwrap().secret().expose().to_vec();
    let stranger = channel(&dev, None).await;
    // A first call, so that the client knows how many streams at once it may open before it opens many.
    let unknown = v1::RedeemRequest { secret: vec![0; 32], csr: Key::new().unwrap().csr };
    assert_eq!(said(IdentitiesClient::new(stranger.clone()).redeem(unknown).await).0, Code::PermissionDenied);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..256 {
        let (mut client, secret) = (IdentitiesClient::new(stranger.clone()), secret.clone());
        calls.spawn(async move {
            let csr = Key::new().unwrap().csr;
            (client.redeem(v1::RedeemRequest { secret, csr: csr.clone() }).await.map(tonic::Response::into_inner), csr)
        });
    }
    let (mut winners, mut refused) = (Vec::new(), 0);
    for (got, csr) in calls.join_all().await {
        match got {
            Ok(got) => winners.push((got, csr)),
            Err(status) => {
                let told = format!("{status:?}");
                assert_eq!(said::<()>(Err(status)), (Code::PermissionDenied, "TICKET_REFUSED".to_owned()), "{told}");
                refused += 1;
            }
        }
    }
    assert_eq!((winners.len(), refused), (1, 255));
    // The same key again is the same record.
    let (first, csr) = winners.pop().unwrap();
    let mut client = IdentitiesClient::new(stranger.clone());
    let again = client.redeem(v1::RedeemRequest { secret: secret.clone(), csr }).await.unwrap().into_inner();
    assert_eq!(again.revision, first.revision);
    // T03: one bit, one byte more or less, and what nobody ever had: one answer.
    let mut flipped = secret.clone();
    flipped[31] ^= 1;
    for secret in [flipped, vec![0; 32]] {
        let csr = Key::new().unwrap().csr;
        let got = said(client.redeem(v1::RedeemRequest { secret, csr }).await);
        assert_eq!(got, (Code::PermissionDenied, "TICKET_REFUSED".to_owned()));
    }
    for length in [0, 31, 33] {
        let request = v1::RedeemRequest { secret: vec![1; length], csr: Key::new().unwrap().csr };
        assert_eq!(said(client.redeem(request).await), (Code::InvalidArgument, "TICKET_MALFORMED".to_owned()));
    }
}

#[tokio::test]
async fn t100_without_a_ticket_of_use_no_signature_is_verified() {
    let dev = dev();
    let token = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
    let secret = Ticket::parse(&token).unwrap().secret().expose().to_vec();
    let mut client = IdentitiesClient::new(channel(&dev, None).await);
    let good = Key::new().unwrap().csr;
    // The last byte belongs to the signature.
    let forged = |mut csr: Vec<u8>| {
        *csr.last_mut().unwrap() ^= 1;
        csr
    };
    let mut redeem = async |secret: &[u8], csr: &[u8]| {
        said(client.redeem(v1::RedeemRequest { secret: secret.to_vec(), csr: csr.to_vec() }).await)
    };
    let unknown = (Code::PermissionDenied, "TICKET_REFUSED".to_owned());
    assert_eq!(redeem(&[7; 32], &forged(good.clone())).await, unknown, "the ticket comes before the signature");
    assert_eq!(redeem(&[7; 32], &good[..9]).await, (Code::InvalidArgument, "CSR_MALFORMED".to_owned()), "as before");
    assert_eq!(redeem(&secret, &forged(good.clone())).await, (Code::InvalidArgument, "CSR_SIGNATURE".to_owned()));
    // A forged request has used nothing up.
    assert_eq!(redeem(&secret, &good).await.0, Code::Ok);
    assert_eq!(redeem(&secret, &good).await.0, Code::Ok, "the same key again");
    assert_eq!(redeem(&secret, &forged(good.clone())).await.1, "CSR_SIGNATURE", "the same key, not proved");
    assert_eq!(redeem(&secret, &forged(Key::new().unwrap().csr)).await, unknown, "another key, proved or not");
    // The ticket of an agent that has ended.
    dev.json("spawn --class researcher --user-token demo.jwt --ticket --out t1");
    let ticket = Ticket::parse(&dev.file("t1/ticket")).unwrap().secret().expose().to_vec();
    let csr = Key::new().unwrap().csr;
    assert_eq!(redeem(&ticket, &forged(csr.clone())).await.1, "CSR_SIGNATURE");
    let list = dev.json("agents list");
    let waiting = list["agents"].as_array().unwrap().iter().map(|agent| agent["agent_id"].as_str().unwrap()).max().unwrap();
    dev.json(&format!("revoke --agent {waiting} --reason test"));
    assert_eq!(redeem(&ticket, &forged(csr)).await, unknown);
}

async fn tls(dev: &Dev, config: Arc<rustls::ClientConfig>) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let tcp = tokio::net::TcpStream::connect(dev.text("grpc")).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

fn client_config(dev: &Dev, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<rustls::ClientConfig> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    for root in mayfly::folder::certificates(&dev.path(ORCHESTRATOR).join("bundle.pem")).unwrap() {
        roots.add(root).unwrap();
    }
    let identity = mayfly::folder::identity(&dev.path(ORCHESTRATOR)).unwrap();
    let builder = rustls::ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(identity.chain, identity.key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A client that would resume wherever it may.
    config.resumption = rustls::client::Resumption::in_memory_sessions(32);
    Arc::new(config)
}

#[tokio::test]
async fn t40_no_session_is_resumed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dev = dev();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client_config(&dev, &[version]);
        for _ in 0..3 {
            let mut stream = tls(&dev, Arc::clone(&config)).await;
            // The preface, empty settings: the server answers, and a ticket would come with that.
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
            let mut answer = [0; 9];
            stream.read_exact(&mut answer).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full), "{version:?}");
            assert_eq!(session.tls13_tickets_received(), 0);
        }
    }
}

#[tokio::test]
async fn t59_a_flood_of_resets_ends_its_connection_and_nothing_else() {
    let dev = dev();
    let stream = tls(&dev, client_config(&dev, &[&rustls::version::TLS13])).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sent = 0;
    // Opened and reset at once, again and again (CVE-2023-44487).
    while sent < 50_000 {
        let Ok(ready) = tokio::time::timeout(Duration::from_secs(5), client.ready()).await else { break };
        let Ok(mut ready) = ready else { break };
        let uri = "https://127.0.0.1/mayfly.v1.Identities/Spawn";
        let request = http::Request::post(uri).header("content-type", "application/grpc").body(()).unwrap();
        let Ok((_, mut stream)) = ready.send_request(request, false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        client = ready;
        sent += 1;
        if connection.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(sent < 50_000, "the server put up with {sent} resets");
    assert!(connection.await.unwrap().is_err(), "it is told to go away");
    // Others are served.
    dev.json("mint --as a1 --audience https://search.example");
}

#[tokio::test]
async fn limits_of_headers_and_messages_refuse_one_request_and_no_more() {
    let dev = dev();
    let workload = channel(&dev, Some(ORCHESTRATOR)).await;
    let mut client = IdentitiesClient::new(workload.clone());
    let large = v1::SpawnRequest { class: "worker".into(), csr: vec![0; 200_000], ..Default::default() };
    assert_eq!(said(client.spawn(large).await).0, Code::OutOfRange, "over `max_message_bytes`");
    // `max_header_bytes` is 16384. HTTP has a status of its own for more, which gRPC does not map: 431 is UNKNOWN.
    for (bytes, code, within) in
        [(15_000, Code::InvalidArgument, true), (16_384, Code::Unknown, false), (40_000, Code::Unknown, false)]
    {
        let mut request = Request::new(v1::SpawnRequest::default());
        request.metadata_mut().insert("x-large", "a".repeat(bytes).parse().unwrap());
        let status = client.spawn(request).await.unwrap_err();
        assert_eq!((status.code(), status.message().contains("HTTP status code 431")), (code, !within), "{bytes}: {status:?}");
    }
    let csr = vec![0; 5000];
    let token = std::fs::read_to_string(dev.path("demo.jwt")).unwrap().trim().to_owned();
    let request = v1::SpawnRequest { class: "worker".into(), csr, user_token: token, ..Default::default() };
    assert_eq!(said(client.spawn(request).await), (Code::InvalidArgument, "CSR_MALFORMED".to_owned()));
}

#[tokio::test]
async fn a_batch_is_bounded_in_size_and_in_number() {
    use mayfly_agent::api::v1::batches_client::BatchesClient;
    let dev = dev();
    let client = BatchesClient::new(channel(&dev, Some("a1")).await);
    let batch = |csrs: Vec<Vec<u8>>, count, ticket, csr: Vec<u8>| {
        let template = Some(v1::SpawnRequest { class: "worker".into(), ticket, csr, ..Default::default() });
        let mut client = client.clone();
        async move { client.spawn(v1::SpawnBatchRequest { template, csrs, count }).await }
    };
    let csr = Key::new().unwrap().csr;
    for (csrs, count, ticket, own, expected) in [
        (vec![], 0, false, vec![], "BATCH_MALFORMED"),
        (vec![csr.clone()], 3, false, vec![], "BATCH_MALFORMED"),
        (vec![csr.clone()], 0, true, vec![], "BATCH_MALFORMED"),
        (vec![csr.clone()], 0, false, csr.clone(), "BATCH_MALFORMED"),
        (vec![], 1001, true, vec![], "BATCH_SIZE"),
        (vec![], u32::MAX, true, vec![], "BATCH_SIZE"),
        (vec![csr.clone(); 1001], 0, false, vec![], "BATCH_SIZE"),
    ] {
        let got = said(batch(csrs, count, ticket, own).await);
        assert_eq!(got, (Code::InvalidArgument, expected.to_owned()));
    }
    // One bad request among good ones is told apart, and the same key twice is one agent's.
    let mut answers = batch(vec![csr.clone(), vec![1, 2, 3], csr], 0, false, vec![]).await.unwrap().into_inner();
    let mut told = BTreeMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let result = match answer.result.unwrap() {
            v1::spawn_batch_response::Result::Spawned(_) => "spawned".to_owned(),
            v1::spawn_batch_response::Result::Denied(status) => {
                assert!(!status.message.is_empty() && !status.details.is_empty());
                format!("{:?}", Code::from(status.code))
            }
        };
        told.insert(answer.index, result);
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), ["spawned", "InvalidArgument", "AlreadyExists"]);
    // Sixty at once: what is not taken is told to come back, and the process lives.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let batch = batch(vec![], 1000, true, vec![]);
        calls.spawn(async move {
            let mut answers = batch.await?.into_inner();
            let mut count = 0;
            while answers.message().await?.is_some() {
                count += 1;
            }
            Ok::<_, Status>(count)
        });
    }
    for got in calls.join_all().await {
        match got {
            Ok(count) => assert_eq!(count, 1000),
            Err(status) => assert_eq!(said::<()>(Err(status)), (Code::ResourceExhausted, "BUSY".to_owned())),
        }
    }
}

fn hurried() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    let text = "[server]\nhandshake_timeout = \"1s\"\nmax_connections = 16\n";
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev
}

/// How many connections were refused, because of places, TLS and time, once so many were. A task that panics counts nothing.
fn refused(dev: &Dev, all: u64) -> [u64; 3] {
    for _ in 0..100 {
        if ["full", "tls", "slow"].map(|reason| counted(dev, reason)).iter().sum::<u64>() >= all {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    ["full", "tls", "slow"].map(|reason| counted(dev, reason))
}

fn counted(dev: &Dev, reason: &str) -> u64 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(dev.text("http")).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let name = format!("mayfly_connections_refused_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&name)).map_or(0, |n| n.parse().unwrap())
}

/// Processor time that the issuer has used.
fn used(dev: &Dev) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", dev.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time in ticks of 10 ms.
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}

fn tcp(dev: &Dev) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(dev.text("grpc")).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// A client and its hello, each byte of it in a record of its own.
fn hello(dev: &Dev) -> (rustls::ClientConnection, Vec<[u8; 6]>) {
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut client = rustls::ClientConnection::new(client_config(dev, &[&rustls::version::TLS13]), name).unwrap();
    let mut record = Vec::new();
    client.write_tls(&mut record).unwrap();
    assert_eq!((record[0], record.len()), (0x16, 5 + usize::from(u16::from_be_bytes([record[3], record[4]]))), "one record");
    (client, record[5..].iter().map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect())
}

/// Whether the other side has closed, within the read timeout: what it says before that does not matter.
fn closed(stream: &mut std::net::TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match std::io::Read::read(stream, &mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn t39_records_of_one_byte_are_read_or_refused_and_cut_at_the_bound() {
    use std::io::{Read, Write};
    let dev = hurried();
    // A hello in one-byte records, whole: read, and so are requests in one-byte records.
    let (mut client, records) = hello(&dev);
    let mut stream = tcp(&dev);
    stream.write_all(&records.concat()).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream).unwrap();
    }
    let ping = |flags: u8, n: u8| [0, 0, 8, 6, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n];
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend((0..100).flat_map(|n| ping(0, n)));
    for byte in bytes {
        client.writer().write_all(&[byte]).unwrap();
        client.write_tls(&mut stream).unwrap();
    }
    let (mut answer, last) = (Vec::new(), ping(1, 99));
    while !answer.windows(last.len()).any(|w| w == last) {
        assert_ne!(client.read_tls(&mut stream).unwrap(), 0, "closed");
        client.process_new_packets().unwrap();
        let _ = client.reader().read_to_end(&mut answer);
    }
    drop(stream);

    // The same, byte by byte, never done: cut at the bound although something always comes.
    let (_, records) = hello(&dev);
    let mut stream = tcp(&dev);
    let started = std::time::Instant::now();
    let cut = records.iter().cycle().take(80).find(|record| {
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(*record).is_err()
    });
    assert!(cut.is_some(), "still taken after {:?}", started.elapsed());
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert_eq!(refused(&dev, 1), [0, 0, 1]);

    // Half a hello and then: an empty record, a close_notify, another hello, a record that is too long.
    let (_, records) = hello(&dev);
    let (half, whole) = (records[..records.len() / 2].concat(), records.concat());
    let ends: [&[u8]; 4] = [&[0x16, 3, 1, 0, 0], &[0x15, 3, 3, 0, 2, 1, 0], &[0x17, 3, 3, 0, 1, 0], &[0x16, 3, 1, 0xff, 0xff]];
    for end in ends {
        let mut stream = tcp(&dev);
        stream.write_all(&[&half, end].concat()).unwrap();
        assert!(closed(&mut stream), "{end:?}");
    }
    let mut stream = tcp(&dev);
    stream.write_all(&[half, whole].concat()).unwrap();
    assert!(closed(&mut stream), "a hello in a hello");
    assert_eq!(refused(&dev, 6), [0, 5, 1], "each ended as a refusal, none in a panic");
    // Nothing of it goes on turning.
    let before = used(&dev);
    std::thread::sleep(Duration::from_millis(500));
    let turned = used(&dev) - before;
    assert!(turned < Duration::from_millis(200), "{turned:?} of 500 ms");
    dev.json("mint --as a1 --audience https://search.example");
}

#[test]
fn t39_a_flood_of_key_updates_ends_its_connection_and_nothing_else() {
    use std::io::Write;
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let dev = hurried();
    let established = || {
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let mut client = rustls::ClientConnection::new(client_config(&dev, &[&rustls::version::TLS13]), name).unwrap();
        let mut stream = tcp(&dev);
        while client.is_handshaking() {
            client.complete_io(&mut stream).unwrap();
        }
        client.writer().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        client.complete_io(&mut stream).unwrap();
        (client, stream)
    };
    // Nothing but updates: the connection ends after a few.
    let (mut client, mut stream) = established();
    let sent = (0..100_000).find(|_| {
        client.refresh_traffic_keys().unwrap();
        client.write_tls(&mut stream).is_err()
    });
    assert!(sent.is_some(), "the server put up with 100,000 updates");
    assert!(closed(&mut stream));
    // With data between them they are allowed. Then they cost about what they cost their sender, and others are served.
    let (mut client, mut stream) = established();
    let before = used(&dev);
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || {
            for n in 0..100_000 {
                client.refresh_traffic_keys().unwrap();
                if n % 16 == 0 {
                    client.writer().write_all(PING).unwrap();
                }
                if client.write_tls(&mut stream).is_err() {
                    break;
                }
            }
        });
        dev.json("mint --as a1 --audience https://search.example");
        flood.join().unwrap();
    });
    let turned = used(&dev) - before;
    assert!(turned < Duration::from_secs(5), "{turned:?}: 50 µs for each update");
    dev.json("mint --as a1 --audience https://search.example");
}

#[tokio::test]
async fn t63_thousands_of_broken_connections_leave_the_listener_and_all_its_places() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const TRIES: u64 = 4000;
    let dev = hurried();
    let hello = hello(&dev).1.concat();
    let address: std::net::SocketAddr = dev.text("grpc").parse().unwrap();
    let mut attackers = tokio::task::JoinSet::new();
    for n in 0..TRIES {
        // As many at once as there are places, and then some.
        while attackers.len() >= 24 {
            attackers.join_next().await.unwrap().unwrap();
        }
        let hello = hello.clone();
        attackers.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let garbage: &[u8] = match n % 8 {
                0 => b"GET / HTTP/1.1\r\n\r\n",
                1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                2 => &[0xff; 8192],
                3 => &[0; 64],
                4 => &hello[..hello.len() / 2],
                5 => &[0x15, 3, 3, 0, 2, 2, 40],
                // 6 and 7 reset at once: before and after a whole hello.
                6 => &[],
                _ => &hello,
            };
            let _ = stream.write_all(garbage).await;
            if n % 8 >= 6 {
                return socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("left open");
        });
    }
    attackers.join_all().await;
    let [full, tls, slow] = refused(&dev, TRIES);
    assert_eq!((full + tls, slow), (TRIES, 0), "each was refused, none in a panic");
    assert!(tls > TRIES / 2, "most got as far as their garbage: {tls}");
    // Every place is free again: as many as there are, all at once.
    let mut held = Vec::new();
    for _ in 0..16 {
        let channel = channel(&dev, Some("a1")).await;
        let mint = v1::MintJwtRequest { audience: "https://search.example".into(), ..Default::default() };
        IdentitiesClient::new(channel.clone()).mint_jwt(mint).await.unwrap();
        held.push(channel);
    }
}

#[tokio::test]
async fn t63_a_process_out_of_files_serves_again_when_there_are_some() {
    let dev = dev();
    let files = |most: &str| {
        let (pid, limit) = (dev.pid().to_string(), format!("--nofile={most}"));
        let mut set = std::process::Command::new("prlimit");
        set.args(["--pid", &pid, &limit]).status().is_ok_and(|status| status.success())
    };
    // The files of a process that nobody may look into are root's to list.
    let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", dev.pid())).map(Iterator::count) else {
        assert!(std::env::var_os("MAYFLY_CI").is_none(), "MAYFLY_CI needs root");
        return eprintln!("SKIPPED: only root can do this");
    };
    if !files(&format!("{0}:4096", open + 8)) {
        assert!(std::env::var_os("MAYFLY_CI").is_none(), "prlimit is missing");
        return eprintln!("SKIPPED: prlimit is not installed, this test did not run");
    }
    let held: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(dev.text("grpc")).unwrap()).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(std::fs::read_dir(format!("/proc/{}/fd", dev.pid())).unwrap().count() >= open + 7, "it ran out of files");
    drop(held);
    // The handshakes that never came are cut at their bound.
    let served = tokio::time::timeout(Duration::from_secs(15), async {
        let mut inspection = InspectionClient::new(channel(&dev, Some("a1")).await);
        inspection.get_agent(v1::GetAgentRequest { agent: own_id(&dev), ..Default::default() }).await
    });
    served.await.unwrap().unwrap();
}

fn own_id(dev: &Dev) -> String {
    dev.json("verify a1/svid.pem")["spiffe_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn t91_a_backup_is_made_for_local_operators_and_below_the_home() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[operator]\nworkloads = [\"desk\"]\n[[workloads]]\nname = \"desk\"\n";
    std::fs::write(dir.path().join("more.toml"), more).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    std::fs::write(dev.path("ticket"), dev.run("join desk").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out desk");
    let backup = async |channel: Channel, name: &str| {
        let request = v1::BackupRequest { name: name.to_owned() };
        OperationsClient::new(channel).backup(request).await.map(|got| got.into_inner().path)
    };
    let code = |status: Status| status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    // An operator from elsewhere does other things, and this not.
    let remote = channel(&dev, Some("desk")).await;
    dev.json("cuts list --as desk");
    for name in ["copy.db", "/tmp/mayfly-t91", ""] {
        let refused = backup(remote.clone(), name).await.unwrap_err();
        assert_eq!((refused.code(), code(refused).as_str()), (Code::PermissionDenied, "ROLE_NOT_ALLOWED"), "{name}");
    }
    // Here, a name is no path, whatever is at its end.
    let local = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
    let absolute = dev.path("elsewhere.db").display().to_string();
    for name in [absolute.as_str(), "/etc/passwd", "../elsewhere.db", ".hidden", "..", "a/b", "a\nb", "", &"x".repeat(129)] {
        let refused = backup(local.clone(), name).await.unwrap_err();
        assert_eq!((refused.code(), code(refused).as_str()), (Code::InvalidArgument, "PATH_UNUSABLE"), "{name}");
    }
    assert!(!dev.path("elsewhere.db").exists() && !dev.path(".mayfly/backups").exists());
    let made = backup(local.clone(), "copy.db").await.unwrap();
    assert_eq!(std::path::PathBuf::from(made), dev.path(".mayfly/backups/copy.db").canonicalize().unwrap());
    assert_eq!(code(backup(local.clone(), "copy.db").await.unwrap_err()), "PATH_UNUSABLE");
    // Nor does a folder that others may enter take a copy.
    std::fs::set_permissions(dev.path(".mayfly/backups"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(backup(local, "another.db").await.unwrap_err().code(), Code::Internal);
}
