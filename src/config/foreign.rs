//! `[[foreign]]`: the foreign trust domains whose bundles we trust, and the source of each bundle. The file states all of it;
//! nothing is inferred from a bundle or a URL (FC-2).

use std::path::PathBuf;

use mayfly_verify::{SpiffeId, TrustDomain, Workload, WorkloadName, parse_spiffe_id};

use super::reader::Reader;
use crate::foreign::{Settings, Source, endpoint_url};

/// The workloads that classes and audiences may name.
pub(super) struct Known<'a> {
    /// The configured workloads of our trust domain.
    pub(super) own: &'a [WorkloadName],
    /// The configured foreign trust domains. All their workloads may be named.
    pub(super) foreign: &'a [TrustDomain],
}

impl Known<'_> {
    /// A configured workload of ours, by its name.
    pub(super) fn own(&self, name: &str) -> Result<Workload, String> {
        match name.parse::<WorkloadName>() {
            Ok(w) if self.own.contains(&w) => Ok(w.into()),
            Ok(w) => Err(format!("workload `{w}` is not configured")),
            Err(e) => Err(e.to_string()),
        }
    }

    /// A workload of a configured foreign trust domain, by its complete SPIFFE ID.
    pub(super) fn foreign(&self, id: &str) -> Result<Workload, String> {
        match id.parse::<Workload>() {
            Ok(Workload::Foreign(id)) if self.foreign.contains(id.trust_domain()) => Ok(Workload::Foreign(id)),
            Ok(_) => Err("its trust domain is not configured: add it as a `[[foreign]]`".into()),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// Reads every `[[foreign]]`, and the trust domains that they name. Those with a faulty source count as named too, so that
/// workloads of theirs are not reported as a second fault.
pub(super) fn read_foreign(top: &mut Reader, own: Option<&TrustDomain>) -> (Vec<Settings>, Vec<TrustDomain>) {
    let mut all = Vec::new();
    let mut domains = Vec::new();
    for mut f in top.sections("foreign") {
        let trust_domain = f.parsed("trust_domain", None, |s| match parse_spiffe_id(&format!("spiffe://{s}")) {
            Ok(id) if !id.path().is_empty() => Err("write a trust domain, without a path".into()),
            Ok(id) if own == Some(id.trust_domain()) => Err("it is ours: our bundle comes from our own authorities".into()),
            Ok(id) if domains.contains(id.trust_domain()) => Err("another `[[foreign]]` has the same trust domain".into()),
            Ok(id) => Ok(id.trust_domain().clone()),
            Err(e) => Err(e.to_string()),
        });
        let source = read_source(&mut f, trust_domain.as_ref());
        domains.extend(trust_domain.clone());
        all.extend(trust_domain.zip(source).map(|(trust_domain, source)| Settings { trust_domain, source }));
        top.close(f);
    }
    (all, domains)
}

#[derive(Clone, Copy, PartialEq)]
enum Profile {
    Web,
    Spiffe,
}

/// Reads where the bundle of `of` comes from. Keys that do not belong to the kind of source are faults.
fn read_source(f: &mut Reader, of: Option<&TrustDomain>) -> Option<Source> {
    let given: Vec<&str> = ["profile", "ca_file", "endpoint_id", "bootstrap"].into_iter().filter(|k| f.has(k)).collect();
    let either = (f.has("file"), f.has("endpoint"));
    let path = |s: &str| Ok(PathBuf::from(s));
    let file = f.optional("file", path);
    let url = f.optional("endpoint", |s| endpoint_url(s).map(|_| s.to_owned()));
    let profile = f.optional("profile", |s| match s {
        "https_web" => Ok(Profile::Web),
        "https_spiffe" => Ok(Profile::Spiffe),
        _ => Err("write `https_web` or `https_spiffe`".into()),
    });
    let ca_file = f.optional("ca_file", path);
    let id = f.optional("endpoint_id", |s| endpoint_id(s, of));
    let bootstrap = f.optional("bootstrap", path);
    let known: &[&str] = match (either, profile) {
        ((true, false), _) => &[],
        ((false, true), Some(Profile::Web)) => &["profile", "ca_file"],
        ((false, true), Some(Profile::Spiffe)) => &["profile", "endpoint_id", "bootstrap"],
        ((false, true), None) => {
            if !given.contains(&"profile") {
                f.fault("profile", "is missing: write `https_web` or `https_spiffe`");
            }
            return None;
        }
        _ => {
            f.fault("file", "give exactly one of `file` and `endpoint`");
            return None;
        }
    };
    for key in given.iter().filter(|key| !known.contains(key)) {
        f.fault(key, if known.is_empty() { "belongs to an `endpoint`" } else { "belongs to another `profile`" });
    }
    if profile == Some(Profile::Spiffe) && url.is_some() {
        for key in ["endpoint_id", "bootstrap"].into_iter().filter(|key| !given.contains(key)) {
            f.fault(key, "is missing: `https_spiffe` needs it");
        }
    }
    match profile {
        _ if file.is_some() => file.map(Source::File),
        Some(Profile::Web) => Some(Source::Web { url: url?, ca_file }),
        Some(Profile::Spiffe) => Some(Source::Spiffe { url: url?, id: id?, bootstrap: bootstrap? }),
        None => None,
    }
}

/// Reads the SPIFFE ID of a bundle endpoint. The endpoint is verified by the bundle that it serves, so its id is in the trust
/// domain `of`.
fn endpoint_id(s: &str, of: Option<&TrustDomain>) -> Result<SpiffeId, String> {
    let id = parse_spiffe_id(s).map_err(|e| e.to_string())?;
    match of {
        _ if id.path().is_empty() => Err("write the complete SPIFFE ID of the endpoint, with its path".into()),
        Some(of) if of != id.trust_domain() => Err(format!("write an id of `{of}`: the endpoint is verified by that bundle")),
        _ => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::Config;
    use super::*;

    const BASE: &str = "trust_domain = \"prod.example.org\"\n";
    const WEB: &str = "endpoint = \"https://a.example.org/b\"\nprofile = \"https_web\"\n";
    const SPIFFE: &str = "endpoint = \"https://a.example.org:8443/b\"\nprofile = \"https_spiffe\"\n\
                          endpoint_id = \"spiffe://a.example.org/spire/server\"\nbootstrap = \"/b.json\"\n";

    fn with(of: &str, more: &str) -> String {
        format!("{BASE}[[foreign]]\ntrust_domain = \"{of}\"\n{more}")
    }

    fn faults(text: &str) -> Vec<String> {
        Config::parse(text, "f").unwrap_err().0
    }

    #[test]
    fn fc1_fc2_a_source_is_a_file_or_an_endpoint_of_either_profile_each_with_all_it_needs() {
        let of = |more: &str| Config::parse(&with("a.example.org", more), "f").unwrap().foreign;
        assert!(matches!(of("file = \"/b.json\"").as_slice(), [Settings { source: Source::File(_), .. }]));
        assert!(matches!(of(WEB).as_slice(), [Settings { source: Source::Web { ca_file: None, .. }, .. }]));
        assert!(
            matches!(of(SPIFFE).as_slice(), [Settings { source: Source::Spiffe { id, .. }, .. }] if id.path() == "/spire/server")
        );
    }

    #[test]
    fn what_the_example_says_of_them_is_a_configuration() {
        let keys = super::super::EXAMPLE.lines().filter_map(|l| l.strip_prefix("# "));
        let keys = keys.skip_while(|l| *l != "[[foreign]]").take_while(|l| l.starts_with("[[foreign]]") || l.contains(" = "));
        let text = BASE.to_owned() + &keys.collect::<Vec<_>>().join("\n");
        assert_eq!(Config::parse(&text, "example").unwrap().foreign.len(), 3);
    }

    #[test]
    fn fc2_fe8_every_fault_of_a_foreign_trust_domain_is_told() {
        let spiffe = "endpoint = \"https://a/b\"\nprofile = \"https_spiffe\"\n";
        for (more, part) in [
            (String::new(), "exactly one of `file` and `endpoint`"),
            (format!("file = \"/b\"\n{WEB}"), "exactly one of `file` and `endpoint`"),
            ("file = \"/b\"\nca_file = \"/c\"".into(), "ca_file: belongs to an `endpoint`"),
            ("file = \"/b\"\nprofile = \"https_web\"".into(), "profile: belongs to an `endpoint`"),
            ("endpoint = \"https://a/b\"".into(), "profile: is missing"),
            ("endpoint = \"https://a/b\"\nprofile = \"web\"".into(), "write `https_web` or `https_spiffe`"),
            (format!("{WEB}bootstrap = \"/b\""), "bootstrap: belongs to another `profile`"),
            (format!("{SPIFFE}ca_file = \"/c\""), "ca_file: belongs to another `profile`"),
            (spiffe.into(), "endpoint_id: is missing"),
            (spiffe.into(), "bootstrap: is missing"),
            (format!("{spiffe}endpoint_id = \"spiffe://b.example.org/x\"\nbootstrap = \"/b\""), "write an id of `a.example.org`"),
            (format!("{spiffe}endpoint_id = \"spiffe://a.example.org\"\nbootstrap = \"/b\""), "with its path"),
            ("endpoint = \"http://a/b\"\nprofile = \"https_web\"".into(), "https"),
            ("endpoint = \"https://u@a/b\"\nprofile = \"https_web\"".into(), "user"),
            (format!("{WEB}endpiont_id = \"x\""), "is not a key"),
        ] {
            let found = faults(&with("a.example.org", &more));
            assert!(found.iter().any(|f| f.contains("foreign[0]") && f.contains(part)), "{part} not in {found:#?}");
        }
    }

    #[test]
    fn fc6_a_foreign_trust_domain_is_never_ours_and_none_stands_twice() {
        for (of, part) in [
            ("prod.example.org", "it is ours"),
            ("A.example.org", "SPIFFE ID"),
            ("spiffe://a.example.org", "SPIFFE ID"),
            ("a.example.org/x", "without a path"),
            ("", "SPIFFE ID"),
        ] {
            let found = faults(&with(of, WEB));
            assert!(found.iter().any(|f| f.contains("trust_domain") && f.contains(part)), "{of}: {found:#?}");
        }
        let twice = with("a.example.org", WEB) + &with("a.example.org", WEB).replace(BASE, "");
        assert!(faults(&twice).iter().any(|f| f.contains("foreign[1].trust_domain") && f.contains("another `[[foreign]]`")));
    }

    #[test]
    fn a_foreign_spawner_is_listed_in_full_and_its_trust_domain_is_configured() {
        let class = |spawner: &str| {
            format!(
                "{}[[classes]]\nname = \"robot\"\nowner = \"ops\"\nscopes = [\"a\"]\naudiences = []\nspawners = [\"{spawner}\"]\n\
                 [[issuers]]\nname = \"corp\"\nissuer = \"https://login.example.org\"\n[[issuers.audiences]]\naudience = \"x\"\n\
                 workloads = [\"{spawner}\"]\n",
                with("a.example.org", WEB)
            )
        };
        let config = Config::parse(&class("spiffe://a.example.org/ns/x/sa/y"), "f").unwrap();
        let listed: Workload = "spiffe://a.example.org/ns/x/sa/y".parse().unwrap();
        assert!(config.classes.values().all(|c| c.workloads == [listed.clone()]));
        assert!(config.issuers.iter().all(|i| i.audiences.iter().all(|a| a.workloads == [listed.clone()])));
        for (spawner, part) in [
            ("spiffe://b.example.org/ns/x", "add it as a `[[foreign]]`"),
            ("spiffe://prod.example.org/workload/x", "add it as a `[[foreign]]`"),
            ("spiffe://a.example.org", "no workload"),
            ("spiffe://a.example.org/ns/*", "no SPIFFE ID"),
            ("spiffe://a.example.org/agent/w/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee", "no workload"),
        ] {
            let found = faults(&class(spawner));
            for at in ["classes[0].spawners", "issuers[0].audiences[0].workloads"] {
                assert!(found.iter().any(|f| f.contains(at) && f.contains(part)), "{spawner}: {found:#?}");
            }
        }
    }
}
