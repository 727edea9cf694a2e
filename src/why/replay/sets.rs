//! The policies that were in force at each time of the history.

use std::sync::Arc;

use crate::acts::Issuer;
use crate::denial::Fault;
use crate::history::entry::Kind;
use crate::history::query::{self, Filter};
use crate::judge::Rules;

/// Most queries of the history for configurations, each of which reads at most 100,000 entries.
const LOOKS: usize = 100;

/// The policies that were in force at each time, from the history.
pub(super) struct Sets {
    /// The revision of each record of a configuration, and the digest of its policies in hex; empty if there were none.
    from: Vec<(u64, String)>,
    /// The digest of the policies in use by the replay now.
    now: String,
    /// The present rules, and the digest of their policies.
    today: (Rules, String),
}

impl Sets {
    pub(super) fn of(issuer: &Issuer, rules: &Rules) -> Result<Sets, Fault> {
        let filter = Filter { kinds: vec![Kind::Configuration], ..Filter::default() };
        let (mut from, mut place) = (Vec::new(), 0);
        for _ in 0..LOOKS {
            let page = query::page(issuer.history.reader(), &filter, place, usize::MAX, |_| true)
                .map_err(|e| Fault::new("replay", e))?;
            from.extend(page.entries.iter().map(|(entry, _)| {
                let digest = entry.opening.target.split(", ").find_map(|part| part.strip_prefix("policies "));
                (entry.leaf.revision, digest.unwrap_or_default().to_owned())
            }));
            match page.next {
                Some(next) => place = next,
                None => break,
            }
        }
        let now = rules.policies.as_ref().map(|set| hex::encode(set.digest())).unwrap_or_default();
        Ok(Sets { from, now: now.clone(), today: (rules.clone(), now) })
    }

    /// Gives the rules the policies that were in force at a revision. Returns `false` if they are not kept, or it is unknown which
    /// they were.
    pub(super) fn at(&mut self, issuer: &Issuer, revision: u64, rules: &mut Rules) -> bool {
        let (today, digest) = &self.today;
        let wanted = self.from.iter().rev().find(|(from, _)| *from < revision).map(|(_, wanted)| wanted);
        if wanted == Some(&self.now) {
            return true;
        }
        let (policies, now, known) = match wanted {
            Some(wanted) if wanted == digest => (today.policies.clone(), digest, true),
            Some(none) if none.is_empty() => (None, none, true),
            Some(wanted) => match issuer.sets.open(wanted) {
                Some(set) => (Some(Arc::new(set)), wanted, true),
                None => (today.policies.clone(), digest, false),
            },
            None => (today.policies.clone(), digest, false),
        };
        self.now.clone_from(now);
        rules.policies = policies;
        known
    }
}
