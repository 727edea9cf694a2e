//! A user as people write one: `dev/demo`, the configured name of an issuer and a subject there; or the issuer's URL and a subject.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_agent::api::v1;
use serde_json::Value;

use super::exit::Failure;

/// Reads a user. The issuer resolves the configured name, so nothing needs to be known here.
pub(super) fn parse(text: &str) -> Result<v1::User, Failure> {
    let usage = || Failure::usage(format!("`{text}`: write <issuer>/<subject>, such as dev/demo"));
    let is_url = text.split_once('/').is_some_and(|(first, rest)| first.ends_with(':') && rest.starts_with('/'));
    let parts = if is_url { text.rsplit_once('/') } else { text.split_once('/') };
    let (iss, sub) = parts.filter(|(iss, sub)| !iss.is_empty() && !sub.is_empty()).ok_or_else(usage)?;
    Ok(v1::User { iss: iss.to_owned(), sub: sub.to_owned(), name: String::new() })
}

/// The user whom a token names. Nothing is verified here: the issuer does that.
pub(super) fn of_token(token: &str) -> Result<v1::User, Failure> {
    let usage = || Failure::usage("this is no token: give a file with an ID token, as a provider signs it");
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok()).ok_or_else(usage)?;
    let claims: Value = serde_json::from_slice(&payload).map_err(|_| usage())?;
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let (iss, sub) = claim("iss").zip(claim("sub")).ok_or_else(usage)?;
    Ok(v1::User { iss, sub, name: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_an_issuers_name_or_url_and_a_subject() {
        let read = |text: &str| parse(text).ok().map(|user| (user.iss, user.sub));
        let is = |iss: &str, sub: &str| Some((iss.to_owned(), sub.to_owned()));
        assert_eq!(read("corp/alice"), is("corp", "alice"));
        assert_eq!(read("corp/team/alice"), is("corp", "team/alice"));
        // The subject may be a URL, as in the tables.
        assert_eq!(read("corp/https://people.example/alice"), is("corp", "https://people.example/alice"));
        assert_eq!(read("https://idp.example/realm/alice"), is("https://idp.example/realm", "alice"));
        for wrong in ["", "alice", "corp/", "/alice", "https://idp.example/"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
