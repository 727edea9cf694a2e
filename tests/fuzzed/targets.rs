//! Whatever the issuer reads of others, or of its own disk, as functions of bytes that hold it to a rule. `tests/fuzzed.rs` runs them
//! over what is kept and over mutations of it, and `.fuzz/run` for as long as one likes.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use mayfly::assertion::{Assertions, AudienceSettings, IssuerSettings};
use mayfly::authority::Authority;
use mayfly::config::{Config, EXAMPLE};
use mayfly::foreign::Newest;
use mayfly::guard::Guard;
use mayfly::history::entry::Sealed;
use mayfly::history::note;
use mayfly::home::Beats;
use mayfly::journal;
use mayfly::keys::keystore::Keystore;
use mayfly::ledger::{Head, Watermark};
use mayfly::lenient::Lenient;
use mayfly::state::State;
use mayfly_agent::api::{v1, workload};
use mayfly_agent::peers::Bundles;
use mayfly_agent::revocation::Freshness;
use mayfly_verify::{BindingOid, Live, TrustDomain};
use prost::Message;
use tokio::io::{AsyncRead, ReadBuf};
use tower::ServiceExt as _;

/// Something that reads bytes.
pub struct Target {
    /// Its name, and that of the folder of what is kept for it.
    pub name: &'static str,
    /// Reads them, and panics if its rule does not hold. Returns whether they were accepted.
    pub take: fn(&[u8]) -> bool,
    /// What it starts from, beside the files that are kept.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const ALL: &[Target] = &[
    Target { name: "journal", take: journal, seeds: records },
    Target { name: "csr", take: csr, seeds: csrs },
    Target { name: "user_token", take: user_token, seeds: none },
    Target { name: "discovery", take: discovery, seeds: discoveries },
    Target { name: "foreign_bundle", take: foreign_bundle, seeds: none },
    Target { name: "socket", take: socket, seeds: connections },
    Target { name: "request", take: request, seeds: requests },
    Target { name: "configuration", take: configuration, seeds: configurations },
    Target { name: "watermark", take: watermark, seeds: watermarks },
    Target { name: "history", take: history, seeds: none },
    Target { name: "verify_json", take: verify_json, seeds: questions },
];

/// The files that are kept for a target.
pub fn kept(name: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = if env!("CARGO_PKG_NAME") == "mayfly" { here } else { here.parent().unwrap() };
    let dir = project.join("tests/fuzzed/corpus").join(name);
    let Ok(files) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

/// Rows, each with its length in two bytes before it. What decodes is written again as it was; whatever it says, applying it either
/// works or is a misfit, and what the state tells of itself can be told.
fn journal(bytes: &[u8]) -> bool {
    let (mut state, mut rest, mut revision) = (State::default(), bytes, 0);
    while let [high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (row, after) = more.split_at(length);
        rest = after;
        let Ok(record) = journal::decode(row) else { continue };
        assert_eq!(journal::decode(&record.encode_to_vec()).unwrap(), record);
        revision += 1;
        if state.apply(revision, &record).is_err() {
            // A start is refused.
            return false;
        }
        assert_eq!((state.revision, state.at), (revision, record.at));
        drop(state.cuts_of(revision, &record));
        drop(state.take_subsumed());
        state.all_cuts().for_each(drop);
    }
    revision > 0
}

/// Records that the kept journal has none of.
fn records() -> Vec<Vec<u8>> {
    use journal::record::{
        Answered, Asked, Exchanged, Extended, Opened, Passed, Record, Released, Reserved, Resumed, Spent, TimeRepaired,
        record::Body,
    };
    let opened = Opened { incarnation: vec![7; 16], trust_domain: td().to_string(), salt: vec![3; 32] };
    let bodies = [
        Body::Reserved(Reserved::default()),
        Body::Spent(Spent::default()),
        Body::Released(Released::default()),
        Body::Asked(Asked::default()),
        Body::Answered(Answered::default()),
        Body::Exchanged(Exchanged { ends_at: ISSUED, ..Default::default() }),
        Body::Extended(Extended { agent: vec![1; 16], lease_ends_at: ISSUED, proof: vec![2; 32], ..Default::default() }),
        Body::Resumed(Resumed { last: 1 }),
        Body::Passed(Passed::default()),
        Body::TimeRepaired(TimeRepaired { first: 1 }),
    ];
    let row = |body: Body| {
        let bytes = Record { at: ISSUED * 1_000_000, operator: "uid:0".into(), body: Some(body) }.encode_to_vec();
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
    };
    bodies.into_iter().map(|body| [row(Body::Opened(opened.clone())), row(body)].concat()).collect()
}

/// A request for a certificate. Whatever is accepted has one key.
fn csr(bytes: &[u8]) -> bool {
    let Ok(key) = mayfly::csr::verify(bytes) else { return false };
    assert_eq!(key.digest(), mayfly_verify::sha256(key.spki()));
    assert_eq!(mayfly::csr::verify(bytes).unwrap().digest(), key.digest());
    true
}

fn csrs() -> Vec<Vec<u8>> {
    vec![mayfly::folder::Key::new().unwrap().csr]
}

/// The provider of the kept tokens, and when they are read.
const PROVIDER: &str = "https://127.0.0.1:37933";
const ISSUED: u64 = 1_795_821_716;

/// A key set and a token after it, with the length of the first in two bytes before it. Whoever is proved is a user of this provider.
fn user_token(bytes: &[u8]) -> bool {
    let [high, low, rest @ ..] = bytes else { return false };
    let (keys, token) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
    let Ok(token) = std::str::from_utf8(token) else { return false };
    let audience = AudienceSettings::new("mayfly-dev");
    let settings = IssuerSettings { audiences: vec![audience], ..IssuerSettings::new("dev", PROVIDER) };
    drop(Assertions::may_act(token));
    let Ok(delegator) = Assertions::examine(&settings, keys, token, ISSUED) else { return false };
    assert_eq!(delegator.user().iss, PROVIDER);
    assert!(delegator.expires_at() > ISSUED - 60 && !delegator.user().sub.is_empty());
    true
}

/// A discovery document. Keys come from the issuer's own origin.
fn discovery(bytes: &[u8]) -> bool {
    let Ok(url) = Assertions::keys_url(PROVIDER, bytes) else { return false };
    let rest = url.strip_prefix(PROVIDER).unwrap_or_else(|| panic!("{url}"));
    assert!(rest.is_empty() || rest.starts_with(['/', '?', '#']), "{url}");
    true
}

fn discoveries() -> Vec<Vec<u8>> {
    vec![format!("{{\"issuer\":\"{PROVIDER}\",\"jwks_uri\":\"{PROVIDER}/jwks\",\"x\":[]}}").into_bytes()]
}

/// The bundle of a foreign trust domain. What is taken says the same when it is read again.
fn foreign_bundle(bytes: &[u8]) -> bool {
    let Ok(Some(newest)) = Newest::after(None, &td(), bytes) else { return false };
    assert_eq!(newest.bundle().trust_domain(), &td());
    assert!(Newest::after(Some(&newest), &td(), newest.text()).unwrap().is_none());
    true
}

/// What comes in over the socket of operators or the Workload API: the first byte says in which pieces. What is passed on does not
/// depend on the pieces, and is at most an authority longer for each frame.
fn socket(bytes: &[u8]) -> bool {
    let Some((piece, bytes)) = bytes.split_first() else { return false };
    let whole = passed_on(bytes, usize::MAX);
    assert_eq!(passed_on(bytes, usize::from(*piece).max(1)), whole);
    assert!(whole.len() <= bytes.len() * 2 + 64, "{} of {}", whole.len(), bytes.len());
    whole.windows(9).any(|part| part == b"localhost")
}

struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(out.remaining()));
        out.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

fn passed_on(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut stream, mut all) = (Lenient::new(Pieces(bytes, piece)), Vec::new());
    loop {
        let mut room = [0; 512];
        let mut out = ReadBuf::new(&mut room);
        match Pin::new(&mut stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut out) {
            Poll::Ready(Ok(())) if out.filled().is_empty() => return all,
            Poll::Ready(Ok(())) => all.extend_from_slice(out.filled()),
            other => panic!("{other:?}"),
        }
    }
}

fn connections() -> Vec<Vec<u8>> {
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    };
    let plain = [&[0x83, 0x86, 0x41, 0x0c][..], b"tmp%2Fx.sock"].concat();
    let spelled = [&[0x83, 0x86, 0x00, 0x0a][..], b":authority", &[0x04], b"%2Fx"].concat();
    let padded = [&[3, 0, 0, 0, 0, 16][..], &plain, &[0, 0, 0]].concat();
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, &[])].concat();
    let with = |frames: &[Vec<u8>]| [vec![3], begin.clone(), frames.concat()].concat();
    vec![
        with(&[frame(1, 0x4, &plain), frame(0, 1, b"\0\0\0\0\0")]),
        with(&[frame(1, 0x5, &spelled)]),
        with(&[frame(1, 0x2c, &padded), frame(8, 0, &[0, 0, 1, 0])]),
        with(&[frame(1, 0, &plain[..7]), frame(9, 4, &plain[7..])]),
    ]
}

/// A message of the Workload API or of an operator: the first byte says which. What is read is read again from what it is written as.
fn request(bytes: &[u8]) -> bool {
    type Reads = fn(&[u8]) -> bool;
    fn reads<M: Message + Default + PartialEq>(bytes: &[u8]) -> bool {
        let Ok(message) = M::decode(bytes) else { return false };
        let again = M::decode(message.encode_to_vec().as_slice()).unwrap();
        // What holds a NaN equals nothing.
        assert!(again == message || again.encode_to_vec() == message.encode_to_vec());
        true
    }
    let Some((which, bytes)) = bytes.split_first() else { return false };
    let all: [Reads; 12] = [
        reads::<workload::X509svidRequest>,
        reads::<workload::JwtsvidRequest>,
        reads::<workload::ValidateJwtsvidRequest>,
        reads::<workload::JwtBundlesRequest>,
        reads::<v1::RevokeRequest>,
        reads::<v1::ReopenRequest>,
        reads::<v1::SpawnRequest>,
        reads::<v1::SpawnBatchRequest>,
        reads::<v1::WatchCutsRequest>,
        reads::<v1::ListAgentsRequest>,
        reads::<v1::CompareConfigurationRequest>,
        reads::<v1::ExplainRequest>,
    ];
    all[usize::from(*which) % all.len()](bytes)
}

fn requests() -> Vec<Vec<u8>> {
    let target = v1::Target { target: Some(v1::target::Target::Agent("spiffe://dev.mayfly.test/agent/worker/0".into())) };
    let revoke = v1::RevokeRequest { target: Some(target), reason: "why".into(), ..Default::default() };
    let spawn = v1::SpawnRequest { class: "worker".into(), csr: vec![1; 40], scopes: vec!["a".into()], ..Default::default() };
    let batch = v1::SpawnBatchRequest { template: Some(spawn.clone()), csrs: vec![vec![2; 9]], count: 3 };
    let jwt = workload::JwtsvidRequest { audience: vec!["a".into()], ..Default::default() };
    let with = |which: u8, bytes: Vec<u8>| [vec![which], bytes].concat();
    vec![
        with(4, revoke.encode_to_vec()),
        with(6, spawn.encode_to_vec()),
        with(7, batch.encode_to_vec()),
        with(1, jwt.encode_to_vec()),
    ]
}

/// A configuration. One that is accepted is the same when it is read again.
fn configuration(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    // Other files are not part of the text.
    if text.contains("policy") {
        return false;
    }
    let Ok(config) = Config::parse(text, "fuzzed.toml") else { return false };
    assert_eq!(Config::parse(text, "fuzzed.toml").unwrap().digest(), config.digest());
    drop(config.notes());
    true
}

fn configurations() -> Vec<Vec<u8>> {
    let sections: Vec<&str> = EXAMPLE.split("\n\n").filter(|part| !part.contains("policy")).collect();
    vec![sections.join("\n\n").into_bytes(), b"trust_domain = \"a.example\"\n".to_vec()]
}

/// Signs a watermark.
static SIGNED: LazyLock<(tempfile::TempDir, Beats, Vec<u8>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let keystore = Keystore::open(&dir.path().join("keys")).unwrap();
    let authority = Arc::new(Authority::open(keystore, &td(), &BindingOid::default(), None, true, ISSUED).unwrap());
    let path = dir.path().join("heartbeat.json");
    let mut beats = Beats { path: path.clone(), authority: Arc::clone(&authority), trust_domain: td(), last: None };
    let head = Head { incarnation: uuid::Uuid::from_u128(7), revision: HEAD, chain: Some([9; 32]) };
    beats.write(head, ISSUED * 1_000_000);
    let text = std::fs::read(&path).unwrap();
    (dir, beats, text)
});

const HEAD: u64 = 4_711;

/// `heartbeat.json`. What is believed is what was signed.
fn watermark(bytes: &[u8]) -> bool {
    let (_, beats, _) = &*SIGNED;
    std::fs::write(&beats.path, bytes).unwrap();
    let Ok(mark) = beats.read() else { return false };
    let mark = mark.unwrap();
    assert_eq!((mark.head, mark.as_of, mark.chain), (HEAD, ISSUED * 1_000_000, Some([9; 32])));
    true
}

fn watermarks() -> Vec<Vec<u8>> {
    vec![SIGNED.2.clone()]
}

/// A line of the history, or a signed checkpoint. What is read is written as it was.
fn history(bytes: &[u8]) -> bool {
    let sealed = Sealed::read(bytes);
    if let Ok(sealed) = &sealed {
        let mut line = Vec::new();
        sealed.line(&mut line);
        assert_eq!(Sealed::read(&line).unwrap(), *sealed);
        let _ = (sealed.open(), sealed.is_committed());
    }
    // The key of a log, and a checkpoint of it.
    if let Some((key, checkpoint)) = std::str::from_utf8(bytes).ok().and_then(|text| text.split_once('\n'))
        && let Ok(verifier) = note::Verifier::read(key)
    {
        assert_eq!(note::Verifier::read(&verifier.encoded()).unwrap().encoded(), verifier.encoded());
        return verifier.open(checkpoint).is_ok();
    }
    sealed.is_ok_and(|sealed| sealed.is_committed() && sealed.open().is_ok())
}

/// `POST /verify` and `/verify/batch` of a guard that has heard nothing: whatever is asked, nothing is allowed.
fn verify_json(bytes: &[u8]) -> bool {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    static ROUTES: LazyLock<axum::Router> = LazyLock::new(|| {
        let bundles = Bundles::default();
        bundles.set(mayfly_verify::Bundle::new(td(), vec![], vec![], 0, 0));
        let live = Live::new(td(), Freshness::Strict(Duration::from_secs(5)));
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle();
        mayfly::guard::routes(&Guard::new(bundles, live, BindingOid::default(), false, None).unwrap(), None, &metrics).0
    });
    let (path, body) = match bytes.split_first() {
        Some((0, rest)) => ("/verify/batch", rest),
        _ => ("/verify", bytes),
    };
    let post = http::Request::post(path).body(Body::from(body.to_vec())).unwrap();
    let response = RUNTIME.block_on(ROUTES.clone().oneshot(post)).unwrap();
    let status = response.status().as_u16();
    let text = RUNTIME.block_on(axum::body::to_bytes(response.into_body(), usize::MAX)).unwrap();
    assert!(matches!(status, 200 | 400 | 403 | 413), "{status}");
    assert!(path != "/verify" || status != 200, "nothing is known of revocations");
    let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert!(!told.to_string().contains("\"allowed\":true"), "{told}");
    matches!(status, 200 | 403)
}

fn questions() -> Vec<Vec<u8>> {
    let one = "{\"credential\":\"a.b.c\",\"audience\":\"https://a.example\",\"scopes\":[\"a\"]}";
    let pem = "{\"credential\":\"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\"}";
    vec![one.into(), pem.into(), format!("\0{{\"checks\":[{one},{pem}]}}").into_bytes()]
}
