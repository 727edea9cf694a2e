//! The committed API is what its protos generate. `MAYFLY_REGENERATE=1` writes it anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::{env, fs};

/// Proto, the generator's name for its package, where that is committed, and messages with a secret in a field of their own:
/// `src/api/redacted.rs` writes their `Debug`.
const APIS: [(&str, &str, &str, &[&str]); 2] = [
    (
        "mayfly/v1/mayfly.proto",
        "mayfly.v1.rs",
        "src/api/v1.rs",
        &[
            ".mayfly.v1.RedeemRequest",
            ".mayfly.v1.AttestRequest",
            ".mayfly.v1.SpawnRequest",
            ".mayfly.v1.SpawnResponse",
            ".mayfly.v1.JwtSvid",
            ".mayfly.v1.CreateJoinTokenResponse",
            ".mayfly.v1.ExchangeRequest",
            ".mayfly.v1.ExchangeResponse",
            ".mayfly.v1.IntrospectRequest",
            ".mayfly.v1.TokensRevokeRequest",
            ".mayfly.v1.RevokeRequest",
            ".mayfly.v1.ExtendRequest",
            ".mayfly.v1.ReopenRequest",
            ".mayfly.v1.ListAgentsRequest",
            ".mayfly.v1.GetAgentRequest",
            ".mayfly.v1.ListEntriesRequest",
            ".mayfly.v1.GetDecisionRequest",
            ".mayfly.v1.GetApprovalRequest",
            ".mayfly.v1.ListApprovalsRequest",
            ".mayfly.v1.ApproveRequest",
            ".mayfly.v1.DenyRequest",
            ".mayfly.v1.ExplainRequest",
        ],
    ),
    ("workloadapi.proto", "_.rs", "src/api/workload.rs", &[".X509SVID", ".JWTSVID", ".ValidateJWTSVIDRequest", ".WITSVID"]),
];

#[test]
fn the_committed_api_is_what_the_proto_generates() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = home.parent().unwrap().join("proto");
    for (proto, name, committed, secret) in APIS {
        let generated = generate(&protos, proto, name, secret);
        if env::var_os("MAYFLY_REGENERATE").is_some_and(|v| v == "1") {
            fs::write(home.join(committed), &generated).unwrap();
        }
        // `assert!` and not `assert_eq!`: nobody reads two copies of the whole file.
        assert!(
            fs::read(home.join(committed)).unwrap() == generated,
            "`{committed}` is stale: run `MAYFLY_REGENERATE=1 cargo test -p mayfly-agent --test generated` and commit it"
        );
    }
}

fn generate(protos: &Path, proto: &str, name: &str, secret: &[&str]) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile([protos.join(proto)], [protos]).unwrap();
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .skip_debug(secret)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    fs::read(out.path().join(name)).unwrap()
}
