//! Generates clients of SPIRE's API for the load tester; and for its tests the servers of a SPIRE that is none.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/workloadapi.proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    generate(&out.join("client"), true)?;
    generate(&out.join("server"), false)
}

/// One side of the API, with all messages; `api.rs` names the packages.
fn generate(out: &Path, client: bool) -> Result<(), Box<dyn std::error::Error>> {
    const SPIRE: [&str; 5] =
        ["spire/agent.proto", "spire/bundle.proto", "spire/entry.proto", "spire/logger.proto", "spire/svid.proto"];
    std::fs::create_dir_all(out)?;
    let mut files = SPIRE.to_vec();
    if !client {
        files.push("workloadapi.proto");
    }
    let files = protox::compile(files, ["proto", "../proto"])?;
    let generator = tonic_prost_build::configure().build_client(client).build_server(!client);
    generator.out_dir(out).include_file("api.rs").compile_fds(files)?;
    Ok(())
}
