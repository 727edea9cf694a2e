//! A user as people write one: `dev/demo`, the configured name of an issuer and a subject there; or the issuer's URL and a subject.

use mayfly_agent::api::v1;

use super::exit::Failure;

/// Reads a user. The issuer of the command finds the URL by the name, so nothing needs to be known here.
pub(super) fn parse(text: &str) -> Result<v1::User, Failure> {
    let usage = || Failure::usage(format!("`{text}`: write <issuer>/<subject>, such as dev/demo"));
    let parts = if text.contains("://") { text.rsplit_once('/') } else { text.split_once('/') };
    let (iss, sub) = parts.filter(|(iss, sub)| !iss.is_empty() && !sub.is_empty()).ok_or_else(usage)?;
    Ok(v1::User { iss: iss.to_owned(), sub: sub.to_owned() })
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
        assert_eq!(read("https://idp.example/realm/alice"), is("https://idp.example/realm", "alice"));
        for wrong in ["", "alice", "corp/", "/alice", "https://idp.example/"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
