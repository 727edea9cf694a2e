//! `mayfly history verify`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::cli::exit::{FAILURE, Failure};
use crate::cli::global::Global;
use crate::cli::output;
use crate::history::witness::Cosigner;
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
    /// The key of a witness that must have cosigned it, as text or as a file; repeat
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<String>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(|| Place::of(&global.home).dir);
    let vkey = args.vkey.as_deref().map(key).transpose()?;
    let verified = verify::verify(&dir, vkey.as_deref()).map_err(|e| Failure::new(FAILURE, e))?;
    let mut cosigned = Vec::new();
    for text in &args.witnesses {
        let witness = Cosigner::read(&key(text)?)?;
        let (entries, at) = verify::cosigned(&dir, vkey.as_deref(), &verified, &witness).map_err(|e| Failure::new(FAILURE, e))?;
        cosigned.push(json!({ "witness": witness.name, "entries": entries, "at": output::time(at) }));
    }
    let object = json!({
        "origin": verified.checkpoint.origin,
        "size": verified.checkpoint.size,
        "root": BASE64.encode(verified.checkpoint.root),
        "first": verified.first,
        "opened": verified.opened,
        "unsigned": verified.unsigned,
        "cosigned": cosigned,
    });
    output::print(global.output, &object, || {
        format!(
            "holds: entries {} to {} of {}, {} of them with their openings; {} more are not signed yet",
            verified.first, verified.checkpoint.size, verified.checkpoint.origin, verified.opened, verified.unsigned
        )
    })
}

/// A key that is given as text or as a file.
fn key(text: &str) -> Result<String, Failure> {
    if text.matches('+').count() >= 2 {
        return Ok(text.to_owned());
    }
    std::fs::read_to_string(text).map_err(|e| Failure::new(FAILURE, format!("`{text}`: {e}")))
}
