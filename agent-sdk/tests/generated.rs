//! The committed API is what its proto generates. `MAYFLY_REGENERATE=1` writes it anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::{env, fs};

const COMMITTED: &str = "src/api/v1.rs";

/// Messages with a secret in a field of their own: `src/api/redacted.rs` writes their `Debug`.
const SECRET: [&str; 5] = [
    ".mayfly.v1.RedeemRequest",
    ".mayfly.v1.SpawnRequest",
    ".mayfly.v1.SpawnResponse",
    ".mayfly.v1.JwtSvid",
    ".mayfly.v1.CreateJoinTokenResponse",
];

#[test]
fn the_committed_api_is_what_the_proto_generates() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = home.parent().unwrap().join("proto");
    let generated = generate(&proto);
    let committed = home.join(COMMITTED);
    if env::var_os("MAYFLY_REGENERATE").is_some_and(|v| v == "1") {
        fs::write(&committed, &generated).unwrap();
    }
    // `assert!` and not `assert_eq!`: nobody reads two copies of the whole file.
    assert!(
        fs::read(&committed).unwrap() == generated,
        "`{COMMITTED}` is stale: run `MAYFLY_REGENERATE=1 cargo test -p mayfly-agent --test generated` and commit it"
    );
}

fn generate(proto: &Path) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let files = protox::compile([proto.join("mayfly/v1/mayfly.proto")], [proto]).unwrap();
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .skip_debug(SECRET)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    fs::read(out.path().join("mayfly.v1.rs")).unwrap()
}
