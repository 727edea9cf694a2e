//! `[[audiences]]`: the services that receive tokens, and how their tokens look.

use std::collections::BTreeMap;

use mayfly_verify::{BindingOid, ClassName, Mode, TrustDomain};
use toml::Value;

use super::reader::Reader;
use crate::judge::audience::{Audience, Claim, SYSTEMS, System};
use crate::judge::bound::BOUNDS;
use crate::judge::policy::Class;
use crate::judge::profile::{Form, Profile, Subject, usual};
use crate::judge::template::Template;

/// Most audiences of a catalogue.
const MOST: usize = 1024;
/// Levels of lists and objects in a claim.
const DEPTH: usize = 4;
/// Most bytes of a subject at Google (`google.subject`).
const GOOGLE_SUBJECT: usize = 127;
/// Characters of the UUID at the end of an agent's SPIFFE ID.
const UUID: usize = 36;
/// Seconds for which the libraries for Entra use a token that they have read from a file.
const ENTRA_READS: u64 = 600;

/// The claim of a token that is accepted once, by verifiers that know it.
const SINGLE_USE: &str = "single_use";

/// Names that a configured claim may not have: those of claims that every token has, or that would change its meaning.
const TAKEN: [&str; 20] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "act",
    "may_act",
    "cnf",
    "azp",
    "client_id",
    "scope",
    "events",
    "authorization_details",
    "approved_by",
    "approval_id",
    "acr",
    "resource",
    SINGLE_USE,
];

/// Reads every `[[audiences]]`.
pub(super) fn read_audiences(top: &mut Reader, oid: Option<&BindingOid>) -> BTreeMap<String, Audience> {
    let mut audiences = BTreeMap::new();
    for mut a in top.sections("audiences") {
        let name = a.parsed("name", None, |s| {
            let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
            if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
        });
        let audience = read_audience(&mut a, oid);
        if let Some((name, audience)) = name.zip(audience)
            && audiences.insert(name.clone(), audience).is_some()
        {
            a.fault("name", &format!("`{name}` is in the catalogue already"));
        }
        top.close(a);
    }
    if audiences.len() > MOST {
        top.fault("audiences", &format!("a catalogue has at most {MOST} audiences"));
    }
    audiences
}

fn read_audience(a: &mut Reader, oid: Option<&BindingOid>) -> Option<Audience> {
    let named = |s: &str| if s.trim().is_empty() { Err("name the owner of the audience".into()) } else { Ok(s.to_owned()) };
    let owner = a.parsed("owner", None, named);
    let kind = a.optional("kind", |s| {
        let found = SYSTEMS.iter().find(|(name, _)| *name == s).map(|(_, system)| *system);
        found.ok_or_else(|| format!("write one of {}, or leave it out", SYSTEMS.map(|(name, _)| name).join(", ")))
    });
    let algorithm = a.optional("algorithm", |s| match s.to_ascii_lowercase().as_str() {
        "es256" => Ok(false),
        "rs256" => Ok(true),
        _ => Err("write `es256` or `rs256`".into()),
    });
    let lifetime = a.has("lifetime").then(|| a.duration("lifetime", "5m", 10, 3600).as_secs());
    // OpenBao and Vault accept a token for 150 seconds after its expiry, and 60 more for differences of clocks.
    let usual = if kind == Some(System::Vault) { "210s" } else { "0s" };
    let leeway = a.duration("leeway", usual, 0, 86_400).as_secs();
    let bound = a.optional("bound", |s| {
        let found = BOUNDS.iter().find(|(name, _)| *name == s).map(|(_, bound)| *bound);
        found.ok_or_else(|| format!("write one of {}", BOUNDS.map(|(name, _)| name).join(", ")))
    });
    let profile = read_profile(a, kind, bound.is_some());
    let mut claims = BTreeMap::new();
    for (name, value) in a.table("claims") {
        let taken = TAKEN.contains(&name.as_str()) || name.is_empty() || name.len() > 256;
        if taken || oid.is_some_and(|oid| oid.claim() == name) {
            a.fault("claims", &format!("`{name}` is a claim of every token, or says what it is: it cannot be set"));
            continue;
        }
        match claim(value, DEPTH) {
            Ok(claim) => drop(claims.insert(name, claim)),
            Err(what) => a.fault("claims", &format!("`{name}`: {what}")),
        }
    }
    let groups = a.list("groups", Some(&[]), Template::parse);
    if !groups.is_empty() && claims.insert("groups".into(), Claim::List(groups.into_iter().map(Claim::Text).collect())).is_some()
    {
        a.fault("groups", "`claims` has `groups` too");
    }
    if a.boolean(SINGLE_USE, false) {
        // T290: nobody would remember the tokens.
        if kind.is_some_and(|kind| kind != System::Mcp) || profile.form == Form::Plain {
            a.fault(SINGLE_USE, "the guard and the packages accept a token once, and other systems do not: leave it out");
        }
        claims.insert(SINGLE_USE.into(), Claim::Fixed(true.into()));
    }
    let rs256 = algorithm == Some(true);
    Some(Audience { owner: owner?, kind, lifetime, leeway, bound: bound.unwrap_or_default(), profile, rs256, claims })
}

/// Reads the content of access tokens. `bound` says whether the section names what they are bound to.
fn read_profile(a: &mut Reader, kind: Option<System>, bound: bool) -> Profile {
    let (subject, usual_form) = kind.map(usual).unwrap_or_default();
    let subject = a.optional("subject", Subject::parse).or(subject);
    let form = a.optional("form", |s| match s {
        "at+jwt" => Ok(Form::Access),
        "jwt" => Ok(Form::Plain),
        "id-jag" => Ok(Form::IdJag),
        _ => Err("write `at+jwt`, `jwt` or `id-jag`".into()),
    });
    let client = a.optional("client_id", Template::parse);
    let resources = a.list("resources", Some(&[]), |s| {
        let fits = reqwest::Url::parse(s).is_ok_and(|url| url.fragment().is_none()) && s.len() <= 256;
        if fits { Ok(s.to_owned()) } else { Err("write absolute URIs without fragments".into()) }
    });
    let (form, impersonation) = (form.unwrap_or(usual_form), a.boolean("impersonation", false));
    let profile = Profile { subject, form, impersonation, client, resources };
    if profile.form != Form::IdJag && (profile.client.is_some() || !profile.resources.is_empty()) {
        a.fault("form", "`client_id` and `resources` are for `form = \"id-jag\"`");
    }
    if profile.form == Form::IdJag && !profile.subject.as_ref().is_none_or(Subject::names_user) {
        a.fault("subject", "an ID-JAG names the user: write another `subject`");
    }
    if profile.form == Form::IdJag && profile.impersonation {
        a.fault("impersonation", "an ID-JAG says who acts: leave it out");
    }
    if profile.form == Form::Plain && matches!(profile.subject, None | Some(Subject::Agent)) {
        // T190: a service would take the token for a JWT-SVID.
        a.fault("subject", "a plain JWT whose subject is the agent is a JWT-SVID, which agents mint: write another `subject`, or `form = \"at+jwt\"`");
    }
    if profile.impersonation && !profile.subject.as_ref().is_none_or(Subject::names_user) {
        a.fault("impersonation", "its tokens do not name the user: write another `subject`");
    }
    if profile.impersonation && !bound {
        a.fault(
            "impersonation",
            "say with `bound` to what its tokens are bound; with `bound = \"none\"` whoever steals one is the user",
        );
    }
    profile
}

fn claim(value: Value, depth: usize) -> Result<Claim, String> {
    if depth == 0 {
        return Err(format!("it has more than {DEPTH} levels"));
    }
    Ok(match value {
        Value::String(text) => Claim::Text(Template::parse(&text)?),
        Value::Integer(number) => Claim::Fixed(number.into()),
        Value::Boolean(yes) => Claim::Fixed(yes.into()),
        Value::Array(all) => Claim::List(all.into_iter().map(|value| claim(value, depth - 1)).collect::<Result<_, _>>()?),
        Value::Table(all) => {
            let all = all.into_iter().map(|(name, value)| Ok((name, claim(value, depth - 1)?)));
            Claim::Object(all.collect::<Result<_, String>>()?)
        }
        Value::Float(_) | Value::Datetime(_) => return Err("write a text, an integer, `true`, `false`, a list or a table".into()),
    })
}

/// Checks the catalogue against the classes that may get its tokens.
pub(super) fn check_audiences(
    top: &mut Reader,
    audiences: &BTreeMap<String, Audience>,
    classes: &BTreeMap<ClassName, Class>,
    td: Option<&TrustDomain>,
) {
    for (name, audience) in audiences {
        for class in classes.values().filter(|class| class.audiences.contains(name)) {
            if class.modes.contains(&Mode::Autonomous) && audience.claims.values().any(Claim::names_user) {
                let what = "has autonomous agents, and claims of this audience name the user";
                top.fault("audiences", &format!("`{name}`: class `{}` {what}", class.name));
            }
            // The preset's rule is applied at the exchange, where it denies agents without a user. Their JWT-SVIDs need no user.
            let preset = audience.kind.and_then(|kind| usual(kind).0);
            let subject = audience.profile.subject.as_ref().filter(|subject| preset.as_ref() != Some(*subject));
            if class.modes.contains(&Mode::Autonomous) && subject.is_some_and(Subject::names_user) {
                let what = "has autonomous agents, and the subject of this audience names the user";
                top.fault("audiences", &format!("`{name}`: class `{}` {what}", class.name));
            }
            let subject = td.map_or(0, |td| format!("spiffe://{td}/agent/{}/", class.name).len() + UUID);
            if audience.kind == Some(System::Gcp) && subject > GOOGLE_SUBJECT {
                let what =
                    format!("have a `sub` of {subject} bytes, and Google allows {GOOGLE_SUBJECT}: give the class a shorter name");
                top.fault("audiences", &format!("`{name}`: agents of class `{}` {what}", class.name));
            }
        }
    }
}

/// Notes for an operator about the audiences, a sentence for each audience and each limit of a system.
pub(super) fn notes(audiences: &BTreeMap<String, Audience>, jwt_ttl: u64) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, audience) in audiences {
        let life = audience.lifetime.unwrap_or(jwt_ttl);
        notes.push(format!(
            "audience `{name}` of {}: a token lives for {life} seconds; one that is revoked is accepted for up to {} seconds where the feed \
             is not followed",
            audience.owner,
            life.saturating_add(audience.leeway)
        ));
        if audience.claims.contains_key(SINGLE_USE) {
            notes.push(format!(
                "audience `{name}`: each guard, and each service with a verifier of its own, accepts a token once, and refuses tokens from \
                 before its start"
            ));
        }
        if audience.kind == Some(System::Azure) {
            notes.push(format!(
                "audience `{name}`: Entra compares the whole subject, so it accepts no agent's token by a federated credential of its own"
            ));
            if !audience.rs256 {
                notes.push(format!("audience `{name}`: Entra verifies RS256 alone: write `algorithm = \"rs256\"`"));
            }
            if life < 2 * ENTRA_READS {
                let least = 2 * ENTRA_READS;
                notes.push(format!("audience `{name}`: the libraries for Entra read a token file every {ENTRA_READS} seconds, so tokens should live for {least}"));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::Config;

    fn config(audience: &str) -> String {
        format!(
            "trust_domain = \"prod.example.org\"\n[[classes]]\nname = \"robot-with-a-long-name-of-thirty\"\nowner = \"ops\"\n\
             scopes = []\naudiences = [\"a\"]\nmodes = [\"autonomous\"]\nspawners = []\n[[audiences]]\nname = \"a\"\nowner = \"o\"\n{audience}"
        )
    }

    #[test]
    fn t119_a_claim_never_says_what_the_token_is() {
        for name in super::TAKEN.into_iter().chain(["urn:oid:1.3.6.1.4.1.32473.1"]) {
            let faults = Config::parse(&config(&format!("claims = {{ \"{name}\" = \"x\" }}")), "f").unwrap_err().0;
            assert!(
                faults.iter().any(|f| f.contains("audiences[0].claims") && f.contains("cannot be set")),
                "{name}: {faults:?}"
            );
        }
    }

    #[test]
    fn every_fault_of_an_audience_is_told() {
        for (text, part) in [
            ("algorithm = \"none\"", "write `es256` or `rs256`"),
            ("lifetime = \"2h\"", "not from 10 to 3600"),
            ("bound = \"tls\"", "write one of none, mtls, dpop, any"),
            ("form = \"jwe\"", "write `at+jwt`, `jwt` or `id-jag`"),
            ("form = \"id-jag\"\nsubject = \"class\"", "an ID-JAG names the user"),
            ("form = \"id-jag\"\nimpersonation = true\nbound = \"none\"", "an ID-JAG says who acts"),
            ("client_id = \"x\"", "are for `form"),
            ("form = \"id-jag\"\nresources = [\"x\"]", "absolute URIs"),
            ("form = \"jwt\"", "is a JWT-SVID"),
            ("form = \"jwt\"\nsubject = \"agent\"", "is a JWT-SVID"),
            ("subject = \"usr\"", "write `agent`, `class`, `user`"),
            ("subject = \"{usr}\"", "no variable"),
            ("subject = \"user\"", "the subject of this audience names the user"),
            ("subject = \"class\"\nimpersonation = true\nbound = \"none\"", "do not name the user"),
            ("impersonation = true", "say with `bound`"),
            ("groups = [\"{class}\"]\nclaims = { groups = [\"x\"] }", "has `groups` too"),
            ("kind = \"ibm\"", "write one of aws, gcp"),
            ("claims = { u = \"{user.sub}\" }", "has autonomous agents"),
            ("claims = { u = \"{user}\" }", "no variable"),
            ("claims = { u = 1.5 }", "write a text"),
            ("claims = { u = [[[[\"x\"]]]] }", "more than 4 levels"),
            ("claims = 1", "a section"),
            ("single_use = 1", "write"),
            ("single_use = true\nkind = \"aws\"", "other systems do not"),
            ("single_use = true\nform = \"jwt\"\nsubject = \"class\"", "other systems do not"),
            ("leewy = \"1m\"", "did you mean `leeway`"),
            ("[[audiences]]\nname = \"a\"\nowner = \"o\"", "in the catalogue already"),
        ] {
            let faults = Config::parse(&config(text), "f").unwrap_err().0;
            assert!(faults.iter().any(|f| f.contains("audiences") && f.contains(part)), "{text}: {faults:?}");
        }
        let long = config("kind = \"gcp\"").replace("prod.example.org", &format!("{}.example.org", "a".repeat(40)));
        let faults = Config::parse(&long, "f").unwrap_err().0;
        assert!(faults.iter().any(|f| f.contains("Google allows 127")), "{faults:?}");
    }

    #[test]
    fn the_catalogue_says_how_long_a_revoked_token_lives() {
        let notes = |text: &str| Config::parse(&config(text), "f").unwrap().notes().join("\n");
        assert!(notes("lifetime = \"20m\"").contains("lives for 1200 seconds; one that is revoked is accepted for up to 1200 "));
        assert!(notes("kind = \"vault\"").contains("lives for 300 seconds; one that is revoked is accepted for up to 510 "));
        assert!(notes("single_use = true").contains("accepts a token once") && !notes("").contains("accepts a token once"));
        assert!(notes("kind = \"azure\"").contains("tokens should live for 1200"));
        assert!(notes("kind = \"azure\"").contains("write `algorithm = \"rs256\"`"));
        assert!(!notes("kind = \"azure\"\nalgorithm = \"rs256\"").contains("write `algorithm"));
        assert_eq!(Config::parse(&config("lifetime = \"20m\""), "f").unwrap().schedule(u64::MAX).jwt_life, 1200);
    }
}
