//! Every target of a revocation against both credentials of a parent and a child, and the token of a child without a key, at a verifier
//! and at the issuer: before the
//! cut, after it, after granting anew, and after a restart that replays the journal (T69, T71, T82).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::time::{Duration, Instant, SystemTime};

use mayfly::folder;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Bundle, Reject, TrustDomain, verify_jwt, verify_x509};
use support::{Dev, ORCHESTRATOR};

const AUDIENCE: &str = "https://search.example";

/// Whether it holds: parent's certificate and token, child's certificate and token, the token of the child without a key; and whether
/// the issuer mints for each of the three.
type Row = [bool; 8];

/// A verifier, which has heard of everything.
struct Verifier {
    feed: Following,
    bundle: Bundle,
}

impl Verifier {
    async fn open(dev: &Dev) -> Verifier {
        let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
        let got = BundlesClient::new(operator.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
        let (got, td) = (got.bundle.unwrap(), TrustDomain::new("dev.mayfly.test").unwrap());
        let bundle = Bundle::from_json(td.clone(), &got.spiffe_json).unwrap();
        let feed = follow(operator, FeedKey::from_point(&got.feed_key).unwrap(), td, Freshness::default());
        Verifier { feed, bundle }
    }

    async fn heard(&self, revision: u64) {
        let (live, started) = (self.feed.live(), Instant::now());
        live.require(revision);
        while live.fresh(now()).is_err() {
            assert!(started.elapsed() < Duration::from_secs(5), "nothing is heard");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn holds(&self, dev: &Dev, dir: &str) -> [bool; 2] {
        let (live, oid) = (self.feed.live(), BindingOid::default());
        let chain = folder::certificates(&dev.path(&format!("{dir}/svid.pem"))).unwrap();
        let time = now().as_secs();
        let x509 = verify_x509(&chain, &self.bundle, &oid, time).and_then(|svid| live.check(now(), &svid));
        [verdict(x509, dir), self.accepts(dev, &format!("{dir}/svid.jwt"))]
    }

    fn accepts(&self, dev: &Dev, file: &str) -> bool {
        let jwt = verify_jwt(&dev.file(file), AUDIENCE, &self.bundle, &BindingOid::default(), now().as_secs());
        verdict(jwt.and_then(|svid| self.feed.live().check(now(), &svid)), file)
    }
}

fn verdict(said: Result<(), Reject>, of: &str) -> bool {
    match said {
        Ok(()) => true,
        // A bundle that was fetched later does not hold a tainted key any more.
        Err(Reject::Cut | Reject::Untrusted(_)) => false,
        Err(other) => panic!("{of}: {other}"),
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn grow(dev: &Dev, name: &str) -> serde_json::Value {
    let parent = dev.json(&format!("spawn --class researcher --user-token demo.jwt --audience {AUDIENCE} --out {name}.p"));
    dev.json(&format!("spawn --as {name}.p --class worker --audience {AUDIENCE} --out {name}.c"));
    let part = dev.json(&format!("spawn --as {name}.p --class worker --keyless"));
    std::fs::write(dev.path(&format!("{name}.k")), part["agent_id"].as_str().unwrap()).unwrap();
    assert!(mints_for(dev, name, "svid"), "{name}");
    parent
}

/// Whether the parent gets a token for the child without a key.
fn mints_for(dev: &Dev, name: &str, file: &str) -> bool {
    let agent = dev.file(&format!("{name}.k"));
    dev.run(&format!("mint --as {name}.p --for {agent} --audience {AUDIENCE} --out {name}.k.{file}.jwt")).status.success()
}

/// What holds at the verifier.
fn held(dev: &Dev, verifier: &Verifier, name: &str) -> [bool; 5] {
    let ([px, pj], [cx, cj]) = (verifier.holds(dev, &format!("{name}.p")), verifier.holds(dev, &format!("{name}.c")));
    [px, pj, cx, cj, verifier.accepts(dev, &format!("{name}.k.svid.jwt"))]
}

/// What holds there and at the issuer.
fn row(dev: &Dev, verifier: &Verifier, name: &str) -> Row {
    let serves = |dir: &str| dev.run(&format!("mint --as {dir} --audience {AUDIENCE} --out {dir}/another.jwt")).status.success();
    let [px, pj, cx, cj, kj] = held(dev, verifier, name);
    [px, pj, cx, cj, kj, serves(&format!("{name}.p")), serves(&format!("{name}.c")), mints_for(dev, name, "another")]
}

fn key_of(dev: &Dev, dir: &str) -> String {
    let chain = folder::certificates(&dev.path(&format!("{dir}/svid.pem"))).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    hex::encode(mayfly_verify::sha256(leaf.public_key().raw))
}

fn authority(dev: &Dev, kind: &str) -> String {
    let all = dev.json("authority list");
    let of = |a: &&serde_json::Value| a["kind"] == kind && a["status"] == "active";
    all["authorities"].as_array().unwrap().iter().find(of).unwrap()["id"].as_str().unwrap().to_owned()
}

/// Lets two holders renew the identity of the orchestrator. Returns a revision at which verifiers have heard of it.
fn copied(dev: &Dev) -> u64 {
    std::fs::create_dir_all(dev.path("stolen")).unwrap();
    for file in ["svid.pem", "key.pem", "bundle.pem", "bundle.json"] {
        std::fs::copy(dev.path(ORCHESTRATOR).join(file), dev.path("stolen").join(file)).unwrap();
    }
    dev.json(&format!("renew --as {ORCHESTRATOR}"));
    assert!(dev.fails("renew --as stolen", 3).contains("CREDENTIAL_REUSED"));
    assert!(dev.fails("renew --as stolen", 3).contains("KEY_REVOKED"));
    let cuts = dev.json("cuts list");
    let revisions = cuts["cuts"].as_array().unwrap().iter().filter_map(|cut| cut["revision"].as_u64());
    revisions.max().unwrap()
}

const ALL: Row = [true; 8];
const NONE: Row = [false; 8];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t82_every_target_by_every_credential_at_verifier_and_issuer_and_after_a_restart() {
    let mut dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let mut verifier = Verifier::open(&dev).await;
    let mut history: Vec<(String, Row)> = Vec::new();
    // A tainted authority comes last: it takes everybody along whom it signed.
    let targets = [
        "agent",
        "class above",
        "class below",
        "key",
        "workload",
        "copied workload",
        "delegation",
        "user",
        "issuer of users",
        "before",
        "jwt authority",
        "x509 authority",
    ];
    for (n, target) in targets.into_iter().enumerate() {
        let name = format!("t{n}");
        let parent = grow(&dev, &name);
        verifier.heard(parent["revision"].as_u64().unwrap()).await;
        assert_eq!(row(&dev, &verifier, &name), ALL, "{target}: before");
        let of = |field: &str| parent[field].as_str().unwrap().to_owned();
        let (line, after) = match target {
            "agent" => (format!("--subtree {}", of("agent_id")), NONE),
            "class above" => ("--class researcher".to_owned(), NONE),
            // A child's class says nothing of its parent.
            "class below" => ("--class worker".to_owned(), [true, true, false, false, false, true, false, false]),
            // A key takes its certificates along, and nobody's token names a key.
            "key" => {
                (format!("--key {}", key_of(&dev, &format!("{name}.c"))), [true, true, false, true, true, true, false, true])
            }
            "workload" => ("--root orchestrator".to_owned(), NONE),
            // T226: the issuer does it by itself, when two have renewed one identity.
            "copied workload" => (String::new(), NONE),
            "delegation" => (format!("--delegation {}", of("delegation_id")), NONE),
            "user" => ("--user dev/demo".to_owned(), NONE),
            "issuer of users" => ("--issuer dev".to_owned(), NONE),
            "before" => ("--before now".to_owned(), NONE),
            kind => {
                let kind = kind.split(' ').next().unwrap();
                let id = authority(&dev, kind);
                dev.json(&format!("authority rotate {kind} --now"));
                let x509 = kind == "x509";
                (format!("--authority {id}"), [!x509, x509, !x509, x509, x509, !x509, !x509, !x509])
            }
        };
        let revision = if target == "copied workload" {
            copied(&dev)
        } else {
            dev.json(&format!("revoke {line}"))["revision"].as_u64().unwrap()
        };
        verifier.heard(revision).await;
        assert_eq!(row(&dev, &verifier, &name), after, "{target}: after");
        // What was before it under another target is what it was, where this one does not reach it.
        for (earlier, then) in &history {
            for (at, holds) in held(&dev, &verifier, earlier).into_iter().enumerate() {
                assert!(then[at] || !holds, "{target}: something of {earlier} lives again");
            }
        }
        history.push((name, after));
        // Granted anew, it lives.
        match target {
            "class above" => drop(dev.json("reopen --class researcher")),
            "class below" => drop(dev.json("reopen --class worker")),
            "workload" => drop(dev.json("reopen --root orchestrator")),
            // The development workload joins again by itself.
            "copied workload" => {
                let started = Instant::now();
                while !dev.run(&format!("whoami --as {ORCHESTRATOR}")).status.success() {
                    assert!(started.elapsed() < Duration::from_secs(60), "it does not join again");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            "user" => drop(dev.json("reopen --user dev/demo")),
            "issuer of users" => drop(dev.json("reopen --issuer dev")),
            "before" => std::thread::sleep(Duration::from_millis(1100)),
            // Whoever joined under the tainted authority joins again; the development workload does it by itself.
            "x509 authority" => std::thread::sleep(Duration::from_secs(3)),
            _ => {}
        }
        if matches!(target, "user" | "issuer of users" | "before" | "delegation") {
            dev.token("demo", "demo.jwt");
        }
        verifier = Verifier::open(&dev).await;
        let anew = format!("n{n}");
        let parent = grow(&dev, &anew);
        verifier.heard(parent["revision"].as_u64().unwrap()).await;
        assert_eq!(row(&dev, &verifier, &anew), ALL, "{target}: granted anew");
        history.push((anew, ALL));
    }
    // The journal, replayed, says the same.
    for (name, then) in &mut history {
        *then = row(&dev, &verifier, name);
    }
    dev = Dev::start_in(dev.kill());
    verifier = Verifier::open(&dev).await;
    verifier.heard(1).await;
    for (name, then) in &history {
        assert_eq!(row(&dev, &verifier, name), *then, "{name}: after a restart");
    }
}
