//! Generates the journal's records, and the server traits of the API onto the messages that `mayfly-agent` commits.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let api = protox::compile(["proto/mayfly/v1/mayfly.proto"], ["proto"])?;
    // For reflection.
    std::fs::write(out.join("mayfly.bin"), api.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".mayfly.v1", "::mayfly_agent::api::v1")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Encoded once for all subscribers.
        .extern_path(".mayfly.v1.WatchCutsResponse", "crate::publish::feed::Encoded")
        .compile_fds(api)?;

    let journal = protox::compile(["proto/mayfly/journal/v1/journal.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).compile_fds(journal)?;
    Ok(())
}
