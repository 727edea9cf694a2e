//! Workloads that prove themselves by the OIDC token of their platform: tokens as GitHub Actions, GitLab and Kubernetes issue them,
//! of an issuer on this machine.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_agent::identity::{Identity, IdentityError, Issuer};
use mayfly_verify::TrustDomain;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use support::{Dev, ORCHESTRATOR};

const AUDIENCE: &str = "mayfly.example";

/// An OIDC issuer: discovery and keys over HTTPS.
struct Platform {
    url: String,
    key: RsaKeyPair,
}

impl Platform {
    /// Starts one, and writes its CA to a file.
    fn start(ca_file: &std::path::Path) -> Platform {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(ca_file, made.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private).unwrap());
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
        let (n, e) = (b64(n.big_endian_without_leading_zero()), b64(e.big_endian_without_leading_zero()));
        let keys = json!({ "keys": [{ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": n, "e": e }] }).to_string();
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") }).to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream.unwrap());
                let (mut request, mut byte) = (Vec::new(), [0; 1]);
                while !request.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
                    request.push(byte[0]);
                }
                let body = if request.starts_with(b"GET /jwks ") { &keys } else { &discovery };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let _ = write!(tls, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        });
        Platform { url, key }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let b64 = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", b64(header), b64(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token with these claims beside those that every token has; a claim that is `null` is left out.
    fn token(&self, claims: &Value, changed: &Value) -> String {
        let now = now();
        let mut all = json!({ "iss": self.url, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300, "jti": jti() });
        for (name, value) in claims.as_object().unwrap().iter().chain(changed.as_object().unwrap()) {
            all[name] = value.clone();
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.sign(&json!({ "typ": "JWT", "alg": "RS256", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE", "kid": "k1" }), &all)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn jti() -> String {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    hex::encode(random)
}

/// As GitHub documents the token of a job.
fn github() -> Value {
    json!({
        "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod", "ref": "refs/heads/main", "repository": "octo-org/octo-repo",
        "repository_id": "74", "repository_owner": "octo-org", "repository_owner_id": "65", "run_id": "example-run-id", "run_attempt": "2",
        "runner_environment": "github-hosted", "actor": "octocat", "event_name": "push", "ref_type": "branch", "sha": "example-sha",
        "workflow": "example-workflow", "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
    })
}

/// As GitLab documents an ID token of a job.
fn gitlab() -> Value {
    json!({
        "sub": "project_path:my-group/my-project:ref_type:branch:ref:main", "namespace_id": "72", "project_id": "20",
        "project_path": "my-group/my-project", "pipeline_source": "push", "ref": "main", "ref_type": "branch", "ref_protected": "true",
        "environment": "prod", "environment_protected": "true", "runner_id": 1, "runner_environment": "gitlab-hosted",
    })
}

/// As a projected token of a service account is.
fn kubernetes() -> Value {
    json!({
        "aud": [AUDIENCE], "sub": "system:serviceaccount:agents:orchestrator",
        "kubernetes.io": {
            "namespace": "agents", "node": { "name": "node-1", "uid": "646e7c5e" },
            "pod": { "name": "orchestrator-69cbfb9798-jv9gn", "uid": "4f1e9a33" },
            "serviceaccount": { "name": "orchestrator", "uid": "1d3a4c5b" },
        },
    })
}

fn start() -> (Dev, Platform) {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("platform.pem");
    let platform = Platform::start(&ca_file);
    let config = format!(
        r#"
[[workload_issuers]]
name = "platform"
issuer = "{url}"
ca_file = "{ca}"
audience = "{AUDIENCE}"
[[workloads]]
name = "ci"
[[workloads.attest]]
issuer = "platform"
claims = {{ repository_id = "74", ref = "refs/heads/main", environment = "prod", event_name = "push" }}
[[workloads.attest]]
issuer = "platform"
claims = {{ project_id = "20", ref = "main", ref_type = "branch", ref_protected = "true" }}
[[workloads]]
name = "cluster"
[[workloads.attest]]
issuer = "platform"
claims = {{ "kubernetes.io" = {{ namespace = "agents", serviceaccount = {{ name = "orchestrator", uid = "1d3a4c5b" }} }} }}
[[workloads]]
name = "cluster-too"
[[workloads.attest]]
issuer = "platform"
claims = {{ "kubernetes.io" = {{ namespace = "agents" }}, aud = ["{AUDIENCE}"] }}
[[classes]]
name = "robot"
owner = "tests"
scopes = ["build:run"]
audiences = []
modes = ["delegated"]
spawners = ["workload/ci"]
"#,
        url = platform.url,
        ca = ca_file.display()
    );
    std::fs::write(dir.path().join("extra.toml"), config).unwrap();
    (Dev::start_args(dir, &["--config", "extra.toml"], &[]), platform)
}

/// `mayfly join --attest` with a token that must be refused; the reason.
fn refused(dev: &Dev, token: &str, more: &str) -> String {
    std::fs::write(dev.path("t.jwt"), token).unwrap();
    let told = dev.fails(&format!("join {more} --attest t.jwt --out refused"), 3);
    assert!(!dev.path("refused").exists(), "{told}");
    told.split("denied: ").nth(1).unwrap_or(&told).split(':').next().unwrap().to_owned()
}

#[test]
fn a_job_and_a_service_account_join_by_their_token_and_spawn() {
    let (dev, platform) = start();
    dev.token("demo", "demo.jwt");
    for (n, claims) in [github(), gitlab()].iter().enumerate() {
        std::fs::write(dev.path("t.jwt"), platform.token(claims, &json!({}))).unwrap();
        let joined = dev.json(&format!("join --attest t.jwt --out ci{n}"));
        assert_eq!(joined["spiffe_id"], "spiffe://dev.mayfly.test/workload/ci");
        // It renews without the platform.
        dev.json(&format!("renew --as ci{n}"));
    }
    // No join token anywhere: a job has an agent for a user.
    dev.json("spawn --as ci0 --class robot --user-token demo.jwt --out a1");
    // The token of this service account has the claims of two workloads.
    let token = || platform.token(&kubernetes(), &json!({}));
    assert_eq!(refused(&dev, &token(), ""), "WORKLOAD_TOKEN_UNMATCHED");
    assert_eq!(refused(&dev, &token(), "ci"), "WORKLOAD_TOKEN_UNMATCHED");
    std::fs::write(dev.path("t.jwt"), token()).unwrap();
    let joined = dev.json("join cluster --attest t.jwt --out cluster");
    assert_eq!(joined["spiffe_id"], "spiffe://dev.mayfly.test/workload/cluster");
}

#[test]
fn t122_a_token_with_other_claims_proves_nothing() {
    let (dev, platform) = start();
    let revision = || dev.json("join orchestrator")["revision"].as_u64().unwrap();
    let before = revision();
    for (claims, changed) in [
        (github(), json!({ "repository_id": "75" })),
        (github(), json!({ "repository_id": 74 })),
        (github(), json!({ "repository_id": ["74"] })),
        (
            github(),
            json!({ "sub": "repo:octo-org/octo-repo:pull_request", "event_name": "pull_request", "ref": "refs/pull/1/merge" }),
        ),
        (github(), json!({ "ref": "refs/heads/main2" })),
        (github(), json!({ "environment": null })),
        (gitlab(), json!({ "ref_protected": "false" })),
        (gitlab(), json!({ "ref_protected": true })),
        (
            kubernetes(),
            json!({ "kubernetes.io": { "namespace": "other", "serviceaccount": { "name": "orchestrator", "uid": "1d3a4c5b" } } }),
        ),
        (kubernetes(), json!({ "kubernetes.io": "agents" })),
    ] {
        assert_eq!(refused(&dev, &platform.token(&claims, &changed), ""), "WORKLOAD_TOKEN_UNMATCHED", "{changed}");
    }
    let again =
        json!({ "kubernetes.io": { "namespace": "agents", "serviceaccount": { "name": "orchestrator", "uid": "another" } } });
    assert_eq!(
        refused(&dev, &platform.token(&kubernetes(), &again), "cluster"),
        "WORKLOAD_TOKEN_UNMATCHED",
        "a new account of the name"
    );
    for (changed, reason) in [
        (json!({ "aud": "other" }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "aud": [AUDIENCE, "other"], "azp": AUDIENCE }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "iss": "https://127.0.0.1:1" }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "sub": null }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "iat": null }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "exp": "300" }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "cnf": {} }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "nbf": now() + 60 }), "WORKLOAD_TOKEN_REFUSED"),
        (json!({ "exp": now() - 1 }), "WORKLOAD_TOKEN_EXPIRED"),
        // A projected token lasts an hour, and its pod may be gone.
        (json!({ "iat": now() - 660, "exp": now() + 3000 }), "WORKLOAD_TOKEN_EXPIRED"),
    ] {
        assert_eq!(refused(&dev, &platform.token(&github(), &changed), ""), reason, "{changed}");
    }
    let good = platform.token(&github(), &json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let none = platform.sign(&json!({ "alg": "none", "kid": "k1" }), &github());
    for forged in [format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 256])), format!("{signed}."), none, "x".repeat(20_000)] {
        assert_eq!(refused(&dev, &forged, ""), "WORKLOAD_TOKEN_REFUSED");
    }
    assert_eq!(revision(), before + 1, "nothing was recorded");
}

#[test]
fn t120_no_token_proves_a_user_and_a_workload() {
    let (dev, platform) = start();
    dev.token("demo", "demo.jwt");
    assert_eq!(refused(&dev, &dev.file("demo.jwt"), ""), "WORKLOAD_TOKEN_REFUSED");
    std::fs::write(dev.path("t.jwt"), platform.token(&github(), &json!({ "aud": "mayfly-dev" }))).unwrap();
    let told = dev.fails("spawn --class researcher --user-token t.jwt --out a1", 3);
    assert!(told.contains("USER_TOKEN_ISSUER_UNKNOWN"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t121_a_token_counts_once() {
    let (dev, platform) = start();
    let token = platform.token(&github(), &json!({}));
    let at = |dev: &Dev| {
        let trust_domain = TrustDomain::new("dev.mayfly.test").unwrap();
        Issuer { address: dev.text("grpc"), trust_domain, connect_timeout: Duration::from_secs(10) }
    };
    let roots = |dev: &Dev| mayfly::folder::certificates(&dev.path(ORCHESTRATOR).join("bundle.pem")).unwrap();
    let identity = Identity::attest(at(&dev), roots(&dev), &token, "").await.unwrap();
    assert_eq!(identity.current().spiffe_id(), "spiffe://dev.mayfly.test/workload/ci");
    let used = |result: Result<Identity, IdentityError>| {
        assert!(
            matches!(&result, Err(IdentityError::Denied { reason, .. }) if reason == "WORKLOAD_TOKEN_USED"),
            "{:?}",
            result.err()
        );
    };
    used(Identity::attest(at(&dev), roots(&dev), &token, "ci").await);
    // It is on record, and counts across a restart.
    let dir = dev.kill();
    let files = std::fs::read_dir(dir.path().join(".mayfly")).unwrap().map(|entry| entry.unwrap().path());
    let journal: Vec<u8> = files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect();
    let recorded = |bytes: &[u8]| journal.windows(bytes.len()).any(|window| window == bytes);
    assert!(recorded(&mayfly_verify::sha256(token.as_bytes())) && recorded(platform.url.as_bytes()));
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    used(Identity::attest(at(&dev), roots(&dev), &token, "ci").await);
    // After a revocation no token from before it, and a fresh one once the workload is open again.
    dev.json("revoke --root ci");
    assert_eq!(refused(&dev, &platform.token(&github(), &json!({})), ""), "WORKLOAD_CLOSED");
    let early = platform.token(&github(), &json!({ "iat": now() - 30 }));
    dev.json("reopen --root ci");
    assert_eq!(refused(&dev, &early, ""), "WORKLOAD_TOKEN_EXPIRED");
    // A token tells whole seconds: the next one counts.
    let reopened = now();
    while now() <= reopened {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Identity::attest(at(&dev), roots(&dev), &platform.token(&github(), &json!({})), "").await.unwrap();
}
