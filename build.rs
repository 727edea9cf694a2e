//! Generates the journal's records, and the server traits of the API onto the messages that `mayfly-agent` commits.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=MAYFLY_COMMIT={}", commit());
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

    let workload = protox::compile(["proto/workloadapi.proto"], ["proto"])?;
    std::fs::write(out.join("workloadapi.bin"), workload.encode_to_vec())?;
    let messages: Vec<_> =
        workload.file.iter().filter(|f| f.name() == "workloadapi.proto").flat_map(|f| &f.message_type).collect();
    let mut generator = tonic_prost_build::configure().build_client(false);
    for name in messages.iter().map(|message| message.name()) {
        // Without a package there is no path for all of them.
        generator = generator.extern_path(format!(".{name}"), format!("::mayfly_agent::api::workload::{}", rust_name(name)));
    }
    generator.compile_fds(workload.clone())?;

    // What is read and written of Envoy's API.
    let envoy = protox::compile(
        [
            "proto/envoy/service/auth/v3/external_auth.proto",
            "proto/envoy/service/secret/v3/sds.proto",
            "proto/envoy/extensions/transport_sockets/tls/v3/secret.proto",
        ],
        ["proto"],
    )?;
    std::fs::write(out.join("envoy.bin"), envoy.encode_to_vec())?;
    let into = out.join("envoy");
    std::fs::create_dir_all(&into)?;
    let generator = tonic_prost_build::configure().build_client(false).extern_path(".google.rpc", "::tonic_types::pb");
    generator.out_dir(into).include_file("api.rs").compile_fds(envoy)?;

    let guard = protox::compile(["proto/mayfly/guard/v1/guard.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(false).compile_fds(guard)?;

    let journal = protox::compile(["proto/mayfly/journal/v1/journal.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).compile_fds(journal)?;
    Ok(())
}

/// The commit that is built, for `--version`: what the builder says in `MAYFLY_COMMIT`, or what git says. A build for development does
/// not ask git, because each commit would then build everything anew.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=MAYFLY_COMMIT");
    if let Ok(commit) = std::env::var("MAYFLY_COMMIT") {
        return commit.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    }
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return "development".into();
    }
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    let asked = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let told = asked.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    told.map_or_else(|| "unknown".into(), |told| told.trim().to_owned())
}

/// As the generator of `mayfly-agent` names a message: a run of capitals is one word, but for its last where another begins.
fn rust_name(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let at = |n: usize| letters.get(n).copied().unwrap_or('_');
    let mut out = String::new();
    for (n, letter) in letters.iter().enumerate() {
        let begins = n == 0 || !at(n - 1).is_ascii_uppercase() && !at(n - 1).is_ascii_digit() || at(n + 1).is_ascii_lowercase();
        out.push(if begins { *letter } else { letter.to_ascii_lowercase() });
    }
    out
}
