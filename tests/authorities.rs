//! Authorities rotate while agents live on (clauses BU, FE; T17, T42, T57, T83), and roots that others made.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_x509};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use support::{BIN, Dev, channel};
use tonic::Code;

fn dev() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev
}

/// A development issuer that publishes a key for a moment before it uses it.
fn hasty() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), "[authorities]\nbundle_refresh = \"1s\"\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev
}

fn spawn(dev: &Dev, out: &str) {
    dev.json(&format!("spawn --class researcher --user-token demo.jwt --audience https://search.example --out {out}"));
}

fn listed(dev: &Dev) -> Vec<(String, String, String)> {
    let list = dev.json("authority list");
    let text = |a: &Value, name: &str| a[name].as_str().unwrap().to_owned();
    list["authorities"].as_array().unwrap().iter().map(|a| (text(a, "kind"), text(a, "status"), text(a, "id"))).collect()
}

fn id_of(dev: &Dev, kind: &str, status: &str) -> String {
    let all = listed(dev);
    all.iter().find(|(k, s, _)| k == kind && s == status).unwrap_or_else(|| panic!("no {status} {kind} in {all:?}")).2.clone()
}

fn kid(dev: &Dev, file: &str) -> String {
    let token = std::fs::read_to_string(dev.path(file)).unwrap();
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn save_bundle(dev: &Dev) {
    std::fs::write(dev.path("bundle.json"), dev.json("bundle").to_string()).unwrap();
}

#[test]
fn the_lines_of_the_shell_work_as_written() {
    let dev = dev();
    let kinds: Vec<_> = listed(&dev).into_iter().map(|(kind, status, _)| (kind, status)).collect();
    assert_eq!(kinds, [("x509".into(), "active".into()), ("jwt".into(), "active".into())]);
    let (x509, jwt) = (dev.json("authority rotate x509"), dev.json("authority rotate jwt"));
    assert_eq!((&x509["status"], &jwt["status"]), (&"active".into(), &"prepared".into()), "BU-9: published before use");
    assert!(jwt["signs_from"].is_string());
    assert!(dev.fails("authority prepare jwt", 3).contains("prepared already"));
    assert!(dev.fails("authority activate jwt", 3).contains("published"));
    assert_eq!(dev.json(&format!("authority retire {}", jwt["id"].as_str().unwrap()))["status"], "retired");
    assert!(dev.fails("authority taint nobody", 3).contains("AUTHORITY_UNKNOWN"));
    assert!(dev.fails(&format!("authority taint {}", x509["id"].as_str().unwrap()), 3).contains("rotate x509 --now"));
    for format in ["spiffe", "jwks", "pem"] {
        assert!(dev.run(&format!("bundle --format {format}")).status.success(), "{format}");
    }
}

#[test]
fn agents_live_on_while_every_authority_rotates() {
    let dev = dev();
    spawn(&dev, "a1");
    let before = std::fs::read(dev.path("a1/svid.pem")).unwrap();
    let old = (id_of(&dev, "x509", "active"), kid(&dev, "a1/svid.jwt"));
    dev.json("authority rotate x509");
    dev.json("authority rotate jwt --now");
    assert_eq!((id_of(&dev, "x509", "retired"), id_of(&dev, "jwt", "retired")), old);
    // The old credentials hold at the issuer and under the bundle of today.
    dev.json("mint --as a1 --audience https://mail.example --out a1/mail.jwt");
    assert_eq!(kid(&dev, "a1/mail.jwt"), id_of(&dev, "jwt", "active"));
    save_bundle(&dev);
    for line in [
        "verify a1/svid.pem",
        "verify a1/svid.jwt --audience https://search.example",
        "verify a1/mail.jwt --audience https://mail.example",
    ] {
        dev.json(&format!("{line} --bundle bundle.json"));
    }
    // The next certificate is another authority's, and a verifier with the first bundle follows: it anchors the root.
    dev.json("renew --as a1");
    assert_ne!(std::fs::read(dev.path("a1/svid.pem")).unwrap(), before);
    dev.json("verify a1/svid.pem --bundle bundle.json");
    dev.json("mint --as a1 --audience https://mail.example --out a1/again.jwt");
}

#[test]
fn bu9_a_rotated_jwt_key_signs_by_itself_when_it_was_published_for_long_enough() {
    let dev = hasty();
    spawn(&dev, "a1");
    let next = dev.json("authority rotate jwt")["id"].as_str().unwrap().to_owned();
    let published = dev.json("bundle")["keys"].to_string();
    assert!(published.contains(&next), "published before it is used");
    let started = std::time::Instant::now();
    while id_of(&dev, "jwt", "active") != next {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() > Duration::from_secs(2), "not before verifiers had four looks at it");
    dev.json("mint --as a1 --audience https://mail.example --out mail.jwt");
    assert_eq!(kid(&dev, "mail.jwt"), next);
}

#[test]
fn t42_what_a_tainted_authority_signed_is_over() {
    let dev = dev();
    spawn(&dev, "a1");
    let (x509, jwt) = (id_of(&dev, "x509", "active"), id_of(&dev, "jwt", "active"));
    dev.json("authority rotate x509 --now");
    dev.json("authority rotate jwt --now");
    spawn_after_join(&dev, "a2");
    dev.json(&format!("authority taint {x509}"));
    dev.json(&format!("authority taint {jwt}"));
    // Its chain still leads to the root; the issuer knows better.
    let told = dev.fails("mint --as a1 --audience https://mail.example --out no.jwt", 3);
    assert!(told.contains("AUTHORITY_TAINTED"), "{told}");
    save_bundle(&dev);
    dev.fails("verify a1/svid.jwt --audience https://search.example --bundle bundle.json", 4);
    dev.json("verify a2/svid.jwt --audience https://search.example --bundle bundle.json");
    dev.json("mint --as a2 --audience https://mail.example --out yes.jwt");
    assert!(!dev.path(".mayfly/keys").join(format!("jwt-{jwt}.key")).exists(), "its key is destroyed");
    // And it stays so.
    let dev = Dev::start_in(dev.kill());
    assert!(dev.fails("mint --as a1 --audience https://mail.example --out no.jwt", 3).contains("AUTHORITY_TAINTED"));
    assert_eq!(id_of(&dev, "x509", "tainted"), x509);
}

/// The workload's own certificate is the old authority's too: it joins again.
fn spawn_after_join(dev: &Dev, out: &str) {
    let ticket = dev.run("join orchestrator");
    std::fs::write(dev.path("ticket"), ticket.stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out orchestrator");
    dev.token("guest", "guest.jwt");
    dev.json(&format!(
        "spawn --as orchestrator --class researcher --user-token guest.jwt --audience https://search.example --out {out}"
    ));
}

#[test]
fn bu2_t83_a_restart_keeps_authorities_and_sequence_and_throws_orphans_away() {
    let dev = dev();
    spawn(&dev, "a1");
    dev.json("authority rotate x509");
    dev.json("authority prepare jwt");
    let (all, sequence) = (listed(&dev), dev.json("bundle")["spiffe_sequence"].as_u64().unwrap());
    // A key whose authority was never recorded, as a crash between the two leaves it.
    let orphan = dev.path(".mayfly/keys/jwt-orphan.key");
    std::fs::copy(dev.path(".mayfly/keys").join(format!("jwt-{}.key", id_of(&dev, "jwt", "active"))), &orphan).unwrap();
    let dev = Dev::start_in(dev.kill());
    assert_eq!(listed(&dev), all);
    assert_eq!(dev.json("bundle")["spiffe_sequence"].as_u64().unwrap(), sequence, "BU-2");
    assert!(!orphan.exists());
    dev.json("authority rotate jwt --now");
    assert!(dev.json("bundle")["spiffe_sequence"].as_u64().unwrap() > sequence, "BU-2");
    // A key that is gone is replaced at the next start, and what it signed still holds.
    let (lost, dir) = (id_of(&dev, "jwt", "active"), dev.kill());
    std::fs::remove_file(dir.path().join(".mayfly/keys").join(format!("jwt-{lost}.key"))).unwrap();
    let dev = Dev::start_in(dir);
    assert_eq!(id_of(&dev, "jwt", "active").len(), lost.len());
    assert!(listed(&dev).contains(&("jwt".into(), "retired".into(), lost.clone())));
    assert!(dev.json("bundle")["keys"].to_string().contains(&lost));
    dev.json("mint --as a1 --audience https://mail.example --out mail.jwt");
}

#[tokio::test]
async fn a_bundle_stream_says_what_is_at_once_and_what_changes_and_ends_unavailable() {
    let dev = dev();
    let mut stream =
        BundlesClient::new(channel(&dev, None).await).watch_bundle(v1::WatchBundleRequest {}).await.unwrap().into_inner();
    let sequence = |m: v1::WatchBundleResponse| {
        serde_json::from_slice::<Value>(&m.bundle.unwrap().spiffe_json).unwrap()["spiffe_sequence"].as_u64().unwrap()
    };
    let first = sequence(stream.message().await.unwrap().unwrap());
    let id = dev.json("authority prepare jwt")["id"].as_str().unwrap().to_owned();
    let changed = tokio::time::timeout(Duration::from_secs(5), stream.message()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&changed.bundle.as_ref().unwrap().spiffe_json).contains(&id), "FE-4, BU-9");
    assert!(sequence(changed) > first);
    Command::new("kill").arg(dev.pid().to_string()).status().unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
}

/// Asks a bundle endpoint as any HTTPS client would, trusting `roots`.
fn get(
    url: &str,
    method: &str,
    roots: &[CertificateDer<'static>],
    version: &'static rustls::SupportedProtocolVersion,
) -> (String, Vec<CertificateDer<'static>>) {
    let address = url.strip_prefix("https://").unwrap().trim_end_matches('/').to_owned();
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = config.with_root_certificates(store).with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let mut tls = rustls::Stream::new(&mut connection, &mut socket);
    write!(tls, "{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = tls.read_to_string(&mut text);
    let chain = connection.peer_certificates().unwrap().iter().map(|c| c.clone().into_owned()).collect();
    (text, chain)
}

#[test]
fn fe1_to_fe9_anybody_gets_the_newest_bundle_from_a_server_that_shows_an_svid() {
    let dev = dev();
    spawn(&dev, "a1");
    let roots = mayfly::folder::certificates(&dev.path("a1/bundle.pem")).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        // FE-3: no client certificate. FE-5: the name is in the certificate. FE-7: no redirect. FE-9: nothing but URL and roots.
        let (answer, chain) = get(&dev.text("bundle"), "GET", &roots, version);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "FE-4: {head}");
        let td = TrustDomain::new("dev.mayfly.test").unwrap();
        let bundle = Bundle::from_json(td, body.as_bytes()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let svid = verify_x509(&chain, &bundle, &BindingOid::default(), now).unwrap();
        assert_eq!(svid.id.to_string(), "spiffe://dev.mayfly.test/issuer", "FE-6");
    }
    let id = dev.json("authority prepare jwt")["id"].as_str().unwrap().to_owned();
    assert!(get(&dev.text("bundle"), "GET", &roots, &rustls::version::TLS13).0.contains(&id), "FE-4: the newest");
    assert!(get(&dev.text("bundle"), "POST", &roots, &rustls::version::TLS13).0.starts_with("HTTP/1.1 405"));
    assert!(dev.text("bundle").starts_with("https://"), "FE-8");
    // After a rotation it shows the new authority's certificate, below the same root.
    dev.json("authority rotate x509");
    std::thread::sleep(Duration::from_millis(300));
    let (_, chain) = get(&dev.text("bundle"), "GET", &roots, &rustls::version::TLS13);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let aki = leaf.extensions().iter().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(aki) => {
            aki.key_identifier.as_ref().map(|k| hex::encode(k.0))
        }
        _ => None,
    });
    assert_eq!(aki.unwrap(), id_of(&dev, "x509", "active"));
}

#[test]
fn t57_a_schedule_that_would_publish_too_many_keys_is_a_fault_of_the_configuration() {
    let text =
        "trust_domain = \"x.example\"\n[authorities]\nrotate_jwt = \"2s\"\nrotate_x509 = \"1m\"\nbundle_refresh = \"1s\"\n";
    let faults = mayfly::config::Config::parse(text, "f").unwrap_err().0;
    for key in ["authorities.rotate_jwt", "authorities.rotate_x509"] {
        assert!(faults.iter().any(|f| f.contains(key) && f.contains("20 are allowed")), "{faults:#?}");
    }
    let half = "trust_domain = \"x.example\"\n[authorities]\nroot_key = \"k\"\n[bundle_endpoint]\nprofile = \"https_web\"\nlisten = \"127.0.0.1:1\"\n";
    let faults = mayfly::config::Config::parse(half, "f").unwrap_err().0;
    assert_eq!(faults.len(), 2, "{faults:#?}");
}

/// `mayfly serve` with a root that somebody else made.
struct Served {
    dir: tempfile::TempDir,
    child: Child,
}

impl Served {
    fn start(certificates: &str, key: &KeyPair) -> Result<Served, String> {
        Served::with(certificates, key, "")
    }

    /// `more` are further sections of the configuration.
    fn with(certificates: &str, key: &KeyPair, more: &str) -> Result<Served, String> {
        Served::by(certificates, &key.serialize_pem(), "localhost", more)
    }

    /// `key` is a file's text, and `name` the only name of the server.
    fn by(certificates: &str, key: &str, name: &str, more: &str) -> Result<Served, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::write(path("root.pem"), certificates).unwrap();
        mayfly::keys::keystore::write_private(Path::new(&path("root.key")), key.as_bytes()).unwrap();
        let config = format!(
            "trust_domain = \"prod.example.org\"\nhome = \"{}\"\n[server]\nlisten = \"{}:{}\"\nnames = [\"{name}\"]\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n[authorities]\nroot_certificate = \"{}\"\nroot_key = \"{}\"\n\
             [[workloads]]\nname = \"orchestrator\"\n[[classes]]\nname = \"robot\"\nowner = \"ops\"\nscopes = [\"build:run\"]\n\
             audiences = [\"https://build.example\"]\nmodes = [\"autonomous\"]\nspawners = [\"workload/orchestrator\"]\n{more}",
            path("home"),
            if name.contains(':') { "[::1]" } else { "127.0.0.1" },
            free(),
            free(),
            path("root.pem"),
            path("root.key")
        );
        std::fs::write(path("mayfly.toml"), config).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let child = Command::new(BIN)
            .args(["serve", "--config", "mayfly.toml"])
            .current_dir(dir.path())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut served = Served { dir, child };
        for _ in 0..200 {
            if let Some(status) = served.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(1));
                return Err(std::fs::read_to_string(served.dir.path().join("log")).unwrap());
            }
            if served.run("bundle").is_ok() {
                return Ok(served);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{}", std::fs::read_to_string(served.dir.path().join("log")).unwrap());
    }

    fn run(&self, line: &str) -> Result<String, String> {
        let out = support::run_in(self.dir.path(), &format!("--home home {line}"));
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        if out.status.success() { Ok(text(out.stdout)) } else { Err(text(out.stderr)) }
    }

    /// A workload and an agent, whose folder is `a1`.
    fn spawn(&self) {
        std::fs::write(self.dir.path().join("ticket"), self.run("join orchestrator").unwrap()).unwrap();
        self.run("redeem --ticket-file ticket --out id").unwrap();
        self.run("spawn --as id --class robot --autonomous --out a1").unwrap();
        self.run("verify a1/svid.pem").unwrap();
    }

    fn openssl(&self, anchor: &str) -> bool {
        let out = Command::new("openssl")
            .args(["verify", "-CAfile", anchor, "-untrusted", "a1/svid.pem", "a1/svid.pem"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        out.status.success()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ca_params(name: &str, td: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Example Corp");
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = td.map(|td| SanType::URI(format!("spiffe://{td}").try_into().unwrap())).into_iter().collect();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(300);
    params
}

fn has_openssl() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok();
    assert!(there || std::env::var_os("MAYFLY_CI").is_none(), "openssl is missing");
    if !there {
        println!("SKIPPED: openssl is not installed, its part of this test did not run");
    }
    there
}

#[test]
fn an_own_root_from_files_is_what_the_bundle_anchors() {
    let key = KeyPair::generate().unwrap();
    let root = ca_params("Own Root", Some("prod.example.org")).self_signed(&key).unwrap();
    let served = Served::start(&root.pem(), &key).unwrap();
    served.spawn();
    let anchors = mayfly::folder::certificates(&served.dir.path().join("a1/bundle.pem")).unwrap();
    assert_eq!(anchors, [root.der().clone()]);
    assert!(!has_openssl() || served.openssl("root.pem"));
}

#[test]
fn t239_a_root_that_cannot_be_published_is_refused_and_a_key_after_the_parameters_of_its_curve_is_read() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let root = ca_params("Own Root", Some("prod.example.org")).self_signed(&key).unwrap();
    let refused = Served::start(&root.pem(), &key).err().unwrap();
    assert!(refused.contains("neither EC nor RSA") && !refused.contains("authorities changed"), "{refused}");
    // At an address of IPv6, and nothing else.
    let key = KeyPair::generate().unwrap();
    let root = ca_params("Own Root", Some("prod.example.org")).self_signed(&key).unwrap();
    let text = format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}", key.serialize_pem());
    Served::by(&root.pem(), &text, "::1", "").unwrap().spawn();
}

#[test]
fn of_a_ca_below_a_corporate_root_the_bundle_anchors_only_ours() {
    let (corporate_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let corporate_params = ca_params("Corporate Root", None);
    let corporate = corporate_params.self_signed(&corporate_key).unwrap();
    let above = Issuer::new(corporate_params, &corporate_key);
    let ours = ca_params("Agents CA", None).signed_by(&key, &above).unwrap();
    let served = Served::start(&format!("{}{}", ours.pem(), corporate.pem()), &key).unwrap();
    served.spawn();
    let anchors = mayfly::folder::certificates(&served.dir.path().join("a1/bundle.pem")).unwrap();
    let chain = mayfly::folder::certificates(&served.dir.path().join("a1/svid.pem")).unwrap();
    assert!(anchors.len() == 1 && anchors[0] != *corporate.der() && anchors[0] != *ours.der(), "a twin of ours");
    assert!(chain.len() == 3 && chain[2] == *ours.der(), "ours goes along for those who anchor the corporate root");
    // Somebody else below the corporate root is nobody here, though they name us.
    let rogue_key = KeyPair::generate().unwrap();
    let mut rogue = ca_params("Rogue", None);
    rogue.is_ca = IsCa::ExplicitNoCa;
    rogue.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    rogue.subject_alt_names = vec![SanType::URI("spiffe://prod.example.org/workload/orchestrator".try_into().unwrap())];
    let rogue = rogue.signed_by(&rogue_key, &above).unwrap();
    let td = TrustDomain::new("prod.example.org").unwrap();
    let bundle = Bundle::from_json(td, &std::fs::read(served.dir.path().join("a1/bundle.json")).unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let verify = |chain: &[CertificateDer<'_>]| verify_x509(chain, &bundle, &BindingOid::default(), now).map_err(|e| e.code());
    assert!(verify(&chain).is_ok());
    assert_eq!(verify(&[rogue.der().clone(), corporate.der().clone()]).err(), Some("CREDENTIAL_UNTRUSTED"));
    if has_openssl() {
        std::fs::write(served.dir.path().join("corporate.pem"), corporate.pem()).unwrap();
        assert!(served.openssl("a1/bundle.pem") && served.openssl("corporate.pem"), "both worlds accept the chain");
    }
}

#[test]
fn t31_roots_that_cannot_serve_are_refused_with_the_reason() {
    let key = KeyPair::generate().unwrap();
    let refused = |params: CertificateParams, key: &KeyPair| {
        let pem = params.self_signed(&KeyPair::from_pem(&key.serialize_pem()).unwrap()).unwrap().pem();
        Served::start(&pem, key).err().unwrap_or_else(|| panic!("it started"))
    };
    assert!(refused(ca_params("Other", Some("other.example.org")), &key).contains("spiffe://other.example.org"), "XC-1");
    let mut flat = ca_params("Flat", None);
    flat.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    assert!(refused(flat, &key).contains("path length"));
    let mut leaf = ca_params("Leaf", None);
    leaf.is_ca = IsCa::ExplicitNoCa;
    assert!(refused(leaf, &key).contains("lacks cA"));
    let mut old = ca_params("Old", None);
    old.not_after = time::OffsetDateTime::now_utc() - time::Duration::minutes(1);
    assert!(refused(old, &key).contains("not valid now"));
    let mut narrow = ca_params("Narrow", None);
    narrow.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.org".into())],
        excluded_subtrees: vec![],
    });
    assert!(refused(narrow, &key).contains("name constraints"));
    // T46: a certificate of another key.
    let other = KeyPair::generate().unwrap();
    let stranger = ca_params("Stranger", None).self_signed(&other).unwrap().pem();
    assert!(Served::start(&stranger, &key).err().unwrap_or_default().contains("does not belong"));
}

#[test]
fn fe1_fe5_https_web_shows_the_certificate_that_it_was_given() {
    let (root_key, web_ca_key, web_key) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = ca_params("Own Root", Some("prod.example.org")).self_signed(&root_key).unwrap();
    let web_params = ca_params("Web CA", None);
    let web_ca = web_params.self_signed(&web_ca_key).unwrap();
    let mut leaf = ca_params("web", None);
    (leaf.is_ca, leaf.key_usages) = (IsCa::ExplicitNoCa, vec![KeyUsagePurpose::DigitalSignature]);
    leaf.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let leaf = leaf.signed_by(&web_key, &Issuer::new(web_params, &web_ca_key)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = format!(
        "[bundle_endpoint]\nlisten = \"127.0.0.1:{port}\"\nprofile = \"https_web\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        file("web.pem", leaf.pem()),
        file("web.key", web_key.serialize_pem())
    );
    let served = Served::with(&root.pem(), &root_key, &more).unwrap();
    let url = format!("https://127.0.0.1:{port}/");
    let (answer, chain) = get(&url, "GET", &[web_ca.der().clone()], &rustls::version::TLS13);
    assert_eq!(chain, [leaf.der().clone()]);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        serde_json::from_str::<Value>(&served.run("bundle").unwrap()).unwrap()
    );
}

#[test]
fn xc1_a_root_without_an_id_is_anchored_as_a_twin_that_has_one() {
    let key = KeyPair::generate().unwrap();
    let root = ca_params("Nameless", None).self_signed(&key).unwrap();
    let served = Served::start(&root.pem(), &key).unwrap();
    served.spawn();
    let folder = |name: &str| mayfly::folder::certificates(&served.dir.path().join(name)).unwrap();
    let (anchors, chain) = (folder("a1/bundle.pem"), folder("a1/svid.pem"));
    assert!(anchors.len() == 1 && anchors[0] != *root.der() && chain.len() == 2, "XC-1; and no root goes along");
    assert!(!has_openssl() || served.openssl("a1/bundle.pem") && served.openssl("root.pem"), "one key, one name");
}
