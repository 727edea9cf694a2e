//! `[[issuers]]`: the OIDC providers whose tokens prove a user.

use std::path::PathBuf;

use mayfly_verify::ClassName;

use super::foreign::Known;
use super::places::read_owner;
use super::reader::Reader;
use crate::assertion::{AudienceSettings, DEFAULT_ALGS, Hint, IssuerSettings};

/// Reads every `[[issuers]]`.
pub(super) fn read_issuers(top: &mut Reader, known: &Known<'_>) -> Vec<IssuerSettings> {
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    for mut i in top.sections("issuers") {
        if let Some(issuer) = read_issuer(&mut i, known) {
            if issuers.iter().any(|o| o.name == issuer.name || o.issuer == issuer.issuer) {
                i.fault("name", "another issuer has the same name or URL");
            }
            issuers.push(issuer);
        }
        top.close(i);
    }
    issuers
}

fn read_issuer(i: &mut Reader, known: &Known<'_>) -> Option<IssuerSettings> {
    let name = i.parsed("name", None, |s| s.parse::<ClassName>().map(|n| n.to_string()).map_err(|e| e.to_string()));
    read_owner(i);
    let issuer = i.parsed("issuer", None, https);
    let jwks_url = i.optional("jwks_url", https_with_query);
    let ca_file = i.optional("ca_file", |s| Ok(PathBuf::from(s)));
    // At most a day: a user's revocation is kept that long for tokens that were issued before it.
    let max_age = i.duration("max_age", "1h", 60, 86_400);
    let groups = i.optional("groups", |s| if s.is_empty() { Err("name a claim".to_owned()) } else { Ok(s.to_owned()) });
    let hint = i.optional("login_hint", |s| match s {
        "sub" => Ok(Hint::Sub),
        "iss_sub" => Ok(Hint::IssSub),
        "" => Err("write `sub`, `iss_sub`, or the name of a claim of the user's tokens".to_owned()),
        claim => Ok(Hint::Claim(claim.to_owned())),
    });
    let mut audiences = Vec::new();
    for mut a in i.sections("audiences") {
        audiences.extend(read_audience(&mut a, known));
        i.close(a);
    }
    if audiences.iter().filter(|audience: &&AudienceSettings| audience.asks.is_some()).count() > 1 {
        i.fault("audiences", "a provider asks people by one client: set `ciba = true` once");
    }
    if audiences.is_empty() {
        i.fault("audiences", "list the accepted audiences, and for each the workloads that may present its tokens");
    }
    Some(IssuerSettings {
        name: name?,
        issuer: issuer?,
        jwks_url,
        ca_file,
        audiences,
        max_age,
        groups,
        hint: hint.unwrap_or_default(),
        allowed_algs: DEFAULT_ALGS.to_vec(),
    })
}

fn read_audience(a: &mut Reader, known: &Known<'_>) -> Option<AudienceSettings> {
    let audience = a.parsed("audience", None, |s| Ok(s.to_owned()));
    let (revokes, user) = (a.boolean("revokes", false), a.boolean("user", false));
    let sign_in = a.boolean("sign_in", false);
    if sign_in && !user {
        a.fault("sign_in", "who signs in at the page speaks for themself: set `user = true` too");
    }
    let ciba = a.boolean("ciba", false);
    let secret_file = a.optional("secret_file", |s| Ok(PathBuf::from(s)));
    match (ciba, &secret_file) {
        (true, None) => {
            a.fault("secret_file", "a client that asks people has a secret: name the file, which only its owner may read");
        }
        (false, Some(_)) => a.fault("secret_file", "only a client with `ciba = true` has a secret here"),
        _ => {}
    }
    // Tokens that are for the users themselves need no workload, so `workloads` may be left out.
    let default: Option<&[&str]> = (revokes || user || ciba).then_some(&[]);
    let workloads = a.list("workloads", default, |s| if s.starts_with("spiffe:") { known.foreign(s) } else { known.own(s) });
    let scopes = a.has("scopes").then(|| a.list("scopes", None, |s| Ok(s.to_owned())));
    let id_jag = a.boolean("id_jag", false);
    if id_jag && (revokes || user) {
        a.fault("id_jag", "an ID-JAG is held by a client and not by the user: leave out `user` and `revokes`");
    }
    if ciba && (revokes || user || id_jag || !workloads.is_empty()) {
        // T333: the answer to one question proves nothing else.
        a.fault(
            "ciba",
            "the tokens of this client are answers and nothing else: leave out `user`, `revokes`, `id_jag` and `workloads`",
        );
    }
    let max_lease = a.has("max_lease").then(|| a.duration("max_lease", "1h", 60, 30 * 86_400));
    let (audience, asks) = (audience?, secret_file.filter(|_| ciba));
    Some(AudienceSettings { audience, workloads, scopes, max_lease, revokes, user, sign_in, asks, operates: false, id_jag })
}

/// Accepts an https URL without user, password, query and fragment.
pub(super) fn https(s: &str) -> Result<String, String> {
    let url = https_with_query(s)?;
    if url.contains('?') { Err("write an https URL without a query".into()) } else { Ok(url) }
}

/// Accepts an https URL without user, password and fragment.
fn https_with_query(s: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(s).map_err(|e| e.to_string())?;
    let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if plain { Ok(s.to_owned()) } else { Err("write an https URL without user or fragment".into()) }
}
