//! `mayfly history verify`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::cli::exit::{FAILURE, Failure};
use crate::cli::global::Global;
use crate::cli::output;
use crate::history::{Place, verify};

/// Verify a history, offline: the running issuer's, or a copy of its folder anywhere
///
/// It recomputes the tree, verifies the signed checkpoint, and names the first entry that is not what was signed.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder; without it, the history of the home
    dir: Option<PathBuf>,
    /// The key that is trusted, as text or as a file; without it, the one in the folder, which proves less
    #[arg(long, value_name = "VKEY")]
    vkey: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(|| Place::of(&global.home).dir);
    let vkey = match args.vkey.as_deref() {
        Some(text) if text.matches('+').count() < 2 => {
            Some(std::fs::read_to_string(text).map_err(|e| Failure::new(FAILURE, format!("`{text}`: {e}")))?)
        }
        other => other.map(str::to_owned),
    };
    let verified = verify::verify(&dir, vkey.as_deref()).map_err(|e| Failure::new(FAILURE, e))?;
    let object = json!({
        "origin": verified.checkpoint.origin,
        "size": verified.checkpoint.size,
        "root": BASE64.encode(verified.checkpoint.root),
        "first": verified.first,
        "opened": verified.opened,
        "unsigned": verified.unsigned,
    });
    output::print(global.output, &object, || {
        format!(
            "holds: entries {} to {} of {}, {} of them with their openings; {} more are not signed yet",
            verified.first, verified.checkpoint.size, verified.checkpoint.origin, verified.opened, verified.unsigned
        )
    })
}
