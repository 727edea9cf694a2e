//! A user as people write one: `dev/demo`, the configured name of an issuer and a subject there.

use std::path::Path;

use mayfly_agent::api::v1;

use super::connect;
use super::exit::{FAILURE, Failure};

/// Finds the issuer's URL by its name, at the issuer of the home.
pub(super) fn parse(home: &Path, text: &str) -> Result<v1::User, Failure> {
    let issuers = connect::endpoint(home)?.issuers;
    let (name, sub) =
        text.split_once('/').ok_or_else(|| Failure::usage(format!("`{text}`: write <issuer>/<subject>, such as dev/demo")))?;
    let Some(iss) = issuers.get(name) else {
        let known = issuers.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Failure::new(FAILURE, format!("there is no issuer `{name}`: configured are {known}")));
    };
    Ok(v1::User { iss: iss.clone(), sub: sub.to_owned() })
}
