//! `[[classes]]`: what agents of each kind may do, and who may spawn them.

use std::collections::BTreeMap;

use mayfly_verify::{ClassName, Mode, Workload};

use super::actions::read_approve;
use super::budget::read_budget;
use super::foreign::Known;
use super::reader::Reader;
use crate::judge::SubjectTemplate;
use crate::judge::action::Catalogue;
use crate::judge::policy::Class;

/// Reads every `[[classes]]`. A class may name any other class as a spawner, so those names are checked at the end.
pub(super) fn read_classes(top: &mut Reader, known: &Known<'_>, actions: &Catalogue) -> BTreeMap<ClassName, Class> {
    let mut classes = BTreeMap::new();
    let mut spawners = Vec::new();
    for mut c in top.sections("classes") {
        if let Some(class) = read_class(&mut c, known, actions) {
            spawners.extend(class.classes.iter().map(|spawner| (class.name.clone(), spawner.clone())));
            let name = class.name.clone();
            if classes.insert(name.clone(), class).is_some() {
                c.fault("name", &format!("`{name}` is already the name of another class"));
            }
        }
        top.close(c);
    }
    for (class, spawner) in spawners {
        if !classes.contains_key(&spawner) {
            top.fault("classes", &format!("`{class}` names the spawner `class/{spawner}`, which is not configured"));
        }
    }
    classes
}

fn read_class(c: &mut Reader, known: &Known<'_>, actions: &Catalogue) -> Option<Class> {
    let name = c.parsed("name", None, |s| s.parse::<ClassName>().map_err(|e| e.to_string()));
    let owner =
        c.parsed(
            "owner",
            None,
            |s| if s.trim().is_empty() { Err("name the owner of the class".into()) } else { Ok(s.to_owned()) },
        );
    let scopes = c.list("scopes", None, |s| {
        // RFC 6749, 3.3: scope-token.
        let ok = (1..=128).contains(&s.len()) && s.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if ok { Ok(s.to_owned()) } else { Err("a scope has 1 to 128 visible ASCII characters, without `\"` and `\\`".into()) }
    });
    let audiences = c.list("audiences", None, |s| {
        let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
    });
    if scopes.len() > 64 || audiences.len() > 64 {
        c.fault("scopes", "a class has at most 64 scopes and 64 audiences");
    }
    let svid_ttl = c.duration("svid_ttl", "15m", 10, 86_400).as_secs();
    let max_lease = c.duration("max_lease", "8h", 60, 30 * 86_400).as_secs();
    if svid_ttl > max_lease {
        c.fault("svid_ttl", "an SVID cannot last longer than `max_lease`");
    }
    let max_depth = c.integer("max_depth", 0, 0, 16);
    let modes =
        c.list("modes", Some(&["delegated"]), |s| s.parse::<Mode>().map_err(|_| "write `delegated` or `autonomous`".into()));
    let subject = c.optional("subject", SubjectTemplate::parse);
    if subject.as_ref().is_some_and(SubjectTemplate::names_user) && modes.contains(&Mode::Autonomous) {
        c.fault("subject", "it names the user, and autonomous agents act for none: leave `autonomous` out of `modes`");
    }
    let impersonates = c.list("impersonates", Some(&[]), |s| match audiences.iter().any(|audience| audience == s) {
        true => Ok(s.to_owned()),
        false => Err("it is none of the class's `audiences`".into()),
    });
    let budget = read_budget(c);
    let mut workloads: Vec<Workload> = Vec::new();
    let mut classes = Vec::new();
    let spawners = c.list("spawners", None, |s| match s.split_once('/') {
        Some(("workload", name)) => known.own(name).map(Spawner::Workload),
        Some(("spiffe:", _)) => known.foreign(s).map(Spawner::Workload),
        Some(("class", name)) => name.parse::<ClassName>().map(Spawner::Class).map_err(|e| e.to_string()),
        _ => Err("write `workload/<name>`, `class/<name>` or a complete foreign SPIFFE ID".into()),
    });
    for spawner in spawners {
        match spawner {
            Spawner::Workload(workload) => workloads.push(workload),
            Spawner::Class(class) => classes.push(class),
        }
    }
    let approve = read_approve(c, actions, &audiences, &scopes);
    Some(Class {
        name: name?,
        owner: owner?,
        scopes: scopes.into_iter().collect(),
        audiences: audiences.into_iter().collect(),
        impersonates: impersonates.into_iter().collect(),
        svid_ttl,
        max_lease,
        max_depth: u32::try_from(max_depth).ok()?,
        modes,
        workloads,
        classes,
        subject,
        approve,
        budget,
    })
}

enum Spawner {
    Workload(Workload),
    Class(ClassName),
}
