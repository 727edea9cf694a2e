//! The rule in the configuration of a proxy: audience, scopes, and which credential counts. It is sent in a place that clients
//! cannot change: the URL that the proxy requests (`/auth?…`), or Envoy's context extensions.

use axum::http::HeaderName;

/// Longest audience and longest scope, in bytes, as at the issuer.
const MAX_NAME: usize = 256;
/// Most scopes, as at the issuer.
const MAX_SCOPES: usize = 64;

/// Which credentials of a request count. All others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The bearer token.
    Bearer,
    /// The client certificate.
    Peer,
    /// Either. If there are both, both must be of one identity.
    Any,
}

impl Which {
    pub(super) fn bearer(self) -> bool {
        self != Which::Peer
    }

    pub(super) fn peer(self) -> bool {
        self != Which::Bearer
    }
}

/// The requirements for each request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The service's own audience. Without it no token is accepted.
    pub(super) audience: Option<String>,
    /// The credential must have all of these scopes.
    pub(super) scopes: Vec<String>,
    pub(super) which: Which,
    /// The header into which a proxy puts the client's certificate.
    pub(super) certificate: HeaderName,
}

impl Rule {
    /// Reads `audience`, `scopes` (with a space between them), `credential` and, if `headers`, `certificate`. Unknown and repeated
    /// parameters are refused, because a misspelt rule must not be a weaker one.
    pub(super) fn read<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
        default: Which,
        headers: bool,
    ) -> Result<Rule, String> {
        let (mut audience, mut scopes, mut which, mut certificate) = (None, None, None, None);
        for (name, value) in pairs {
            let twice = match name {
                "audience" => audience.replace(value).is_some(),
                "scopes" => scopes.replace(value).is_some(),
                "credential" => which.replace(value).is_some(),
                "certificate" if headers => certificate.replace(value).is_some(),
                other => {
                    let other: String = other.chars().take(64).collect();
                    return Err(format!("`{other}` is not known here: there are audience, scopes and credential"));
                }
            };
            if twice {
                return Err(format!("`{name}` is there twice"));
            }
        }
        let which = match which {
            None => default,
            Some("bearer") => Which::Bearer,
            Some("peer") => Which::Peer,
            Some("any") => Which::Any,
            Some(_) => return Err("`credential` is bearer, peer or any".into()),
        };
        let certificate = certificate.unwrap_or("x-client-cert").parse().map_err(|_| "`certificate` is no name of a header")?;
        audience.map_or(Ok(()), bounded_audience)?;
        let scopes: Vec<String> = scopes.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        bounded_scopes(&scopes)?;
        Ok(Rule { audience: audience.map(str::to_owned), scopes, which, certificate })
    }
}

pub(super) fn bounded_audience(audience: &str) -> Result<(), String> {
    let fits = !audience.is_empty() && audience.len() <= MAX_NAME;
    if fits { Ok(()) } else { Err(format!("`audience` must have 1 to {MAX_NAME} bytes")) }
}

pub(super) fn bounded_scopes(scopes: &[String]) -> Result<(), String> {
    let fits = scopes.len() <= MAX_SCOPES && scopes.iter().all(|scope| !scope.is_empty() && scope.len() <= MAX_NAME);
    if fits { Ok(()) } else { Err(format!("`scopes` are at most {MAX_SCOPES}, of 1 to {MAX_NAME} bytes each")) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Rule, String> {
        Rule::read(pairs.iter().copied(), Which::Bearer, true)
    }

    #[test]
    fn t114_a_rule_that_is_misspelt_or_there_twice_is_no_weaker_rule() {
        let rule = read(&[("audience", "https://a"), ("scopes", "a b  c"), ("credential", "any")]).unwrap();
        assert_eq!((rule.scopes.len(), rule.which, rule.audience.as_deref()), (3, Which::Any, Some("https://a")));
        assert_eq!(read(&[]).unwrap().which, Which::Bearer);
        let (long, many) = ("x".repeat(257), vec!["s"; 65].join(" "));
        for bad in [
            ("scope", "a"),
            ("Scopes", "a"),
            ("credential", "certificate"),
            ("credential", ""),
            ("certificate", "not a name"),
            ("audience", ""),
            ("audience", &long),
            ("scopes", &long),
            ("scopes", &many),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
        for name in ["audience", "scopes", "credential", "certificate"] {
            let value = if name == "credential" { "any" } else { "x" };
            assert!(read(&[(name, value), (name, value)]).unwrap_err().contains("twice"), "{name}");
        }
        assert!(Rule::read([("certificate", "x")].into_iter(), Which::Any, false).is_err(), "Envoy gives it as it is");
    }
}
