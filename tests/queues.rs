//! Who waits for whom on the real stack, while the journal hangs: turns, places, lanes, and what happens to work that nobody waits
//! for any more.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use mayfly::folder::Key;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::connect_unix;
use prost::Message;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use support::faults::Faults;
use support::{Dev, ORCHESTRATOR, channel};

/// Open connections of peers with a certificate.
const CONNECTIONS: &str = "mayfly_connections{kind=\"certified\"}";

/// A development issuer with agents `a1` of `demo` and `b1` of `guest`, whose journal can be made to hang.
struct House {
    faults: Faults,
    dev: Dev,
}

impl House {
    fn new() -> House {
        House::with("[server]\nrequest_timeout = \"60s\"\n[journal]\nqueue_max = 64\n")
    }

    fn with(config: &str) -> House {
        let faults = Faults::new();
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("more.toml"), config).unwrap();
        let dev = faults.start_args(home, &["--config", "more.toml"]);
        for (user, out) in [("demo", "a1"), ("guest", "b1")] {
            dev.token(user, &format!("{user}.jwt"));
            dev.json(&format!("spawn --class researcher --user-token {user}.jwt --out {out}"));
        }
        House { faults, dev }
    }

    /// Lets the journal hang, and waits until a commit of `first` does.
    async fn hang<T>(&self, first: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
    {
        // What an earlier hang said, perhaps only just.
        if self.faults.is_set("hanging") {
            self.faults.set("hanging", false);
        }
        self.faults.set("hang", true);
        let first = tokio::spawn(first);
        while !self.faults.is_set("hanging") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        first
    }

    fn go_on(&self) {
        self.faults.set("hang", false);
    }

    async fn operator(&self) -> OperationsClient<Channel> {
        OperationsClient::new(connect_unix(std::path::Path::new(&self.dev.text("socket"))).await.unwrap())
    }

    fn request(&self) -> v1::SpawnRequest {
        let (csr, user_token) = (Key::new().unwrap().csr, self.dev.file("demo.jwt"));
        v1::SpawnRequest { class: "researcher".into(), csr, user_token, ..Default::default() }
    }

    fn agents(&self) -> usize {
        self.dev.json("agents list --all")["agents"].as_array().unwrap().len()
    }

    /// The value of a metric; 0 as long as it is not there.
    fn metric(&self, name: &str) -> u64 {
        let mut stream = std::net::TcpStream::connect(self.dev.text("http")).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).map_or(0, |n| n.parse().unwrap())
    }
}

async fn spawn(from: Channel, request: v1::SpawnRequest) -> Result<v1::SpawnResponse, Status> {
    Ok(IdentitiesClient::new(from).spawn(request).await?.into_inner())
}

async fn mint(from: Channel) -> Result<u64, Status> {
    let request = v1::MintJwtRequest { audience: "https://search.example".into(), ..Default::default() };
    Ok(IdentitiesClient::new(from).mint_jwt(request).await?.into_inner().revision)
}

fn user(sub: &str) -> v1::RevokeRequest {
    let user = v1::User { iss: "https://nobody.example".into(), sub: sub.into(), ..Default::default() };
    let target = Some(v1::Target { target: Some(v1::target::Target::User(user)) });
    v1::RevokeRequest { target, reason: "a test".into(), ..Default::default() }
}

/// The code and the reason of a no that must come although the journal hangs.
async fn at_once<T>(call: impl Future<Output = Result<T, Status>>) -> (Code, String) {
    let status = tokio::time::timeout(Duration::from_secs(30), call).await.unwrap().err().unwrap();
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

/// Waits until something is so, for as long as a loaded machine may need.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t98_who_has_too_much_in_flight_is_refused_alone_and_revocations_go_first() {
    let house = House::new();
    let workload = channel(&house.dev, Some(ORCHESTRATOR)).await;
    let (of_demo, of_guest) = (channel(&house.dev, Some("a1")).await, channel(&house.dev, Some("b1")).await);
    let mut operator = house.operator().await;
    // Connections first: what follows only waits for the journal.
    for agent in [&of_demo, &of_guest] {
        mint(agent.clone()).await.unwrap();
    }
    let first = house.hang(spawn(workload.clone(), house.request())).await;
    // A fourth of the places, of which the first spawn has one; the rest is refused at once, and told when to ask again.
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        calls.spawn(spawn(workload.clone(), house.request()));
    }
    for _ in 0..25 {
        let status = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!((status.code(), status.get_details_error_info().unwrap().reason.as_str()), (Code::ResourceExhausted, "BUSY"));
        assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    }
    // The user's agents share the user's places. Other users of the workload do not, nor does the operator.
    assert_eq!(mint(of_demo).await.unwrap_err().code(), Code::ResourceExhausted);
    let minted = tokio::spawn(mint(of_guest));
    let revoked = tokio::spawn(async move { operator.revoke(user("x")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!minted.is_finished() && !revoked.is_finished(), "they wait, and are not refused");
    house.go_on();
    first.await.unwrap().unwrap();
    let spawned: Vec<u64> = calls.join_all().await.into_iter().map(|got| got.unwrap().revision).collect();
    assert_eq!(spawned.len(), 15, "whatever was taken is done");
    minted.await.unwrap().unwrap();
    let revoked = revoked.await.unwrap().unwrap().into_inner().revision;
    assert!(spawned.iter().all(|spawned| revoked < *spawned), "{revoked} came before {spawned:?}");
    assert_eq!(house.metric("mayfly_requests_abandoned_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t99_what_nobody_waits_for_is_not_recorded() {
    let house = House::new();
    let workload = channel(&house.dev, Some(ORCHESTRATOR)).await;
    let agents = house.agents();
    let first = house.hang(spawn(workload.clone(), house.request())).await;
    // One whose deadline passes, by a client that leaves it to the issuer to notice.
    let stream = tokio::net::UnixStream::connect(house.dev.text("socket")).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let post = http::Request::post("http://localhost/mayfly.v1.Operations/Revoke")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "300m");
    let (answer, mut body) = client.ready().await.unwrap().send_request(post.body(()).unwrap(), false).unwrap();
    let message = user("late").encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    body.send_data([&[0][..], &length, &message].concat().into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), Code::DeadlineExceeded);
    connection.abort();
    // Others whose clients hang up: a crowd, part of which waits for the writer already, and a connection that is closed.
    let open = house.metric(CONNECTIONS);
    let other = channel(&house.dev, Some(ORCHESTRATOR)).await;
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        calls.spawn(spawn(other.clone(), house.request()));
    }
    until("the crowd is there", || house.metric(CONNECTIONS) > open).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    calls.shutdown().await;
    drop(other);
    until("the crowd has gone", || house.metric(CONNECTIONS) == open).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    house.go_on();
    first.await.unwrap().unwrap();
    // What comes later finds the issuer free of them.
    spawn(workload.clone(), house.request()).await.unwrap();
    until("each is counted", || house.metric("mayfly_requests_abandoned_total") == 7).await;
    assert_eq!(house.agents(), agents + 2, "the first was in a commit, and the last has waited");
    assert!(house.dev.json("cuts list")["cuts"].as_array().unwrap().is_empty(), "whoever heard DEADLINE may believe it");
}

#[tokio::test(flavor = "multi_thread")]
async fn t98_t99_others_get_in_between_a_batch_and_its_rest_is_dropped_when_its_reader_goes() {
    let house = House::new();
    let (of_demo, of_guest) = (channel(&house.dev, Some("a1")).await, channel(&house.dev, Some("b1")).await);
    mint(of_guest.clone()).await.unwrap();
    let batch = |from: Channel| async move {
        let template = Some(v1::SpawnRequest { class: "worker".into(), ticket: true, ..Default::default() });
        BatchesClient::new(from).spawn(v1::SpawnBatchRequest { template, csrs: vec![], count: 1000 }).await
    };
    // The head of the answer comes once the batch is queued; the journal hangs meanwhile.
    let answers = house.hang(batch(of_demo.clone())).await.await.unwrap().unwrap();
    let minted = tokio::spawn(mint(of_guest.clone()));
    let own = tokio::spawn(mint(of_demo.clone()));
    tokio::time::sleep(Duration::from_millis(1000)).await;
    house.go_on();
    let (mut answers, mut last) = (answers.into_inner(), 0);
    let mut count = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        let v1::spawn_batch_response::Result::Spawned(spawned) = answer.result.unwrap() else { panic!("denied") };
        (last, count) = (last.max(spawned.revision), count + 1);
    }
    assert_eq!(count, 1000);
    for minted in [minted, own] {
        let minted = minted.await.unwrap().unwrap();
        assert!(minted + 500 < last, "{minted} came in the first half, {last} was the last of the batch");
    }
    // A reader that goes: what is in no commit by then is dropped.
    let before = house.metric("mayfly_journal_records_total");
    let open = house.metric(CONNECTIONS);
    let other = channel(&house.dev, Some("a1")).await;
    let answers = house.hang(batch(other.clone())).await.await.unwrap().unwrap();
    drop((answers, other));
    until("the reader has gone", || house.metric(CONNECTIONS) <= open).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    house.go_on();
    mint(of_guest).await.unwrap();
    until("the rest is counted", || house.metric("mayfly_requests_abandoned_total") >= 800).await;
    let recorded = house.metric("mayfly_journal_records_total") - before;
    let abandoned = house.metric("mayfly_requests_abandoned_total");
    assert_eq!(recorded - 1 + abandoned, 1000, "each is recorded or dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn t98_nobody_gets_to_the_writer_who_may_not_ask_it() {
    let house = House::new();
    let workload = channel(&house.dev, Some(ORCHESTRATOR)).await;
    let (agent, other) = (channel(&house.dev, Some("a1")).await, channel(&house.dev, Some("b1")).await);
    let other_id = IdentitiesClient::new(other).whoami(v1::WhoamiRequest {}).await.unwrap().into_inner().spiffe_id;
    for agent in [&agent, &workload] {
        IdentitiesClient::new(agent.clone()).whoami(v1::WhoamiRequest {}).await.unwrap();
    }
    let mut operator = house.operator().await;
    let mut stranger = IdentitiesClient::new(channel(&house.dev, None).await);
    let first = house.hang(spawn(workload.clone(), house.request())).await;
    let target = |target| v1::RevokeRequest { target: Some(v1::Target { target: Some(target) }), ..user("x") };
    let before = target(v1::target::Target::RecordedBefore(prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 }));
    let denied = (Code::PermissionDenied, "ROLE_NOT_ALLOWED".to_owned());
    for dry_run in [false, true] {
        for caller in [&agent, &workload] {
            let mut client = OperationsClient::new(caller.clone());
            let request = v1::RevokeRequest { dry_run, ..before.clone() };
            assert_eq!(at_once(client.revoke(request)).await, denied, "the journal is not read for it");
            assert_eq!(at_once(client.revoke(v1::RevokeRequest { dry_run, ..user("x") })).await, denied);
        }
        let request = v1::RevokeRequest { dry_run, ..target(v1::target::Target::Agent(other_id.clone())) };
        let got = at_once(OperationsClient::new(agent.clone()).revoke(request)).await;
        assert_eq!(got, (Code::NotFound, "AGENT_UNKNOWN".to_owned()));
    }
    let unknown = v1::RedeemRequest { secret: vec![7; 32], csr: Key::new().unwrap().csr };
    assert_eq!(at_once(stranger.redeem(unknown)).await.1, "TICKET_REFUSED", "T100");
    // A dry run that waits keeps the place of its own kind.
    let own = IdentitiesClient::new(agent.clone()).whoami(v1::WhoamiRequest {}).await.unwrap().into_inner().spiffe_id;
    let own = v1::RevokeRequest { dry_run: true, ..target(v1::target::Target::Agent(own)) };
    let waits = tokio::spawn({
        let (mut client, own) = (OperationsClient::new(agent.clone()), own.clone());
        async move { client.revoke(own).await }
    });
    let dry = tokio::spawn(async move { operator.revoke(v1::RevokeRequest { dry_run: true, ..user("x") }).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waits.is_finished() && !dry.is_finished());
    assert_eq!(at_once(OperationsClient::new(agent).revoke(own)).await.1, "BUSY");
    house.go_on();
    first.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();
    dry.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t98_who_holds_a_ticket_waits_in_its_owners_turn_and_not_among_strangers() {
    let house = House::new();
    let (of_demo, stranger) = (channel(&house.dev, Some("a1")).await, channel(&house.dev, None).await);
    let template = Some(v1::SpawnRequest { class: "worker".into(), ticket: true, ..Default::default() });
    let request = v1::SpawnBatchRequest { template, csrs: vec![], count: 14 };
    let mut answers = BatchesClient::new(of_demo.clone()).spawn(request).await.unwrap().into_inner();
    let mut secrets = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let v1::spawn_batch_response::Result::Spawned(spawned) = answer.result.unwrap() else { panic!("denied") };
        secrets.push(mayfly_agent::ticket::Ticket::parse(&spawned.ticket).unwrap().secret().expose().to_vec());
    }
    let first = house.hang(mint(of_demo)).await;
    // More than the eighth of the places that all strangers have together.
    let mut calls = JoinSet::new();
    for secret in secrets {
        let mut client = IdentitiesClient::new(stranger.clone());
        calls.spawn(async move { client.redeem(v1::RedeemRequest { secret, csr: Key::new().unwrap().csr }).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    house.go_on();
    first.await.unwrap().unwrap();
    for got in calls.join_all().await {
        got.unwrap();
    }
}

/// What a sync of the journal takes while it is slow, and the deadline of requests.
const SYNC: Duration = Duration::from_millis(500);
const SLOW: &str = "[server]\nrequest_timeout = \"3s\"\n";
/// Most acts of one commit, and most commits that those who hear DEADLINE may be in.
const COMMIT: u64 = 128;

#[tokio::test(flavor = "multi_thread")]
async fn t235_while_the_journal_is_slow_what_would_be_late_is_refused_and_each_revocation_is_answered() {
    let house = House::with(SLOW);
    let mut callers = Vec::new();
    for agent in ["a1", "b1", "a1", "b1"] {
        let caller = channel(&house.dev, Some(agent)).await;
        mint(caller.clone()).await.unwrap();
        callers.push(caller);
    }
    let mut operator = house.operator().await;
    let (before, syncs) = (house.metric("mayfly_journal_records_total"), "mayfly_journal_sync_seconds_count");
    assert!(house.metric(syncs) > 0);
    house.faults.slow(SYNC);
    // More and more, until somebody is refused.
    let mut calls = JoinSet::new();
    let (mut revoked, mut most) = (0u64, 0);
    for round in 0..60 {
        for n in 0..50 {
            calls.spawn(mint(callers[n % callers.len()].clone()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        if round % 10 == 5 {
            let begun = house.metric(syncs);
            operator.revoke(user(&format!("u{round}"))).await.unwrap();
            (revoked, most) = (revoked + 1, most.max(house.metric(syncs) - begun));
        }
        if revoked > 0 && house.metric("mayfly_requests_refused_early_total") > 0 {
            break;
        }
    }
    let (mut done, mut refused, mut late) = (0, 0, 0);
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            Ok(_) => done += 1,
            Err(status) if status.code() == Code::ResourceExhausted => {
                assert!(status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status}");
                refused += 1;
            }
            Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => late += 1,
            Err(status) => panic!("{status}"),
        }
    }
    house.faults.slow(Duration::ZERO);
    assert!(refused > 0 && revoked > 0, "{done} done, {refused} refused, {late} late, {revoked} revoked");
    assert!(most <= 4, "a revocation waits for the commit under way and for its own: {most}");
    assert!(done >= COMMIT, "full commits go on: {done}");
    // Whatever else was recorded was in a commit when its caller heard DEADLINE.
    let recorded = house.metric("mayfly_journal_records_total") - before - revoked;
    assert!(recorded - done <= late.min(2 * COMMIT), "{recorded} recorded, {done} done, {late} late");
    mint(callers[0].clone()).await.unwrap();
}
