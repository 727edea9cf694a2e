//! Mandates: the fields that similar agents have in common, stored once for all of them.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use foldhash::HashMap;
use foldhash::quality::RandomState;
use mayfly_verify::{ClassName, Salt, Subject, Target, Workload};

use crate::journal::record;

/// The subject of the trust domain.
pub(crate) static EVERYTHING: LazyLock<Subject> = LazyLock::new(|| Target::TrustDomain.unsalted());

/// The class of an agent, its root, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// The class.
    pub class: ClassName,
    /// The workload at the root.
    pub workload: Workload,
    /// Sorted.
    pub scopes: Vec<String>,
    /// Sorted.
    pub audiences: Vec<String>,
    /// Levels of agents that may be spawned below the agent.
    pub depth_left: u32,
    /// The subject of the class.
    pub class_subject: Subject,
    /// The subject of the root workload.
    pub workload_subject: Subject,
}

/// The fields of a mandate as a record holds them, for a lookup without allocation.
#[derive(Clone, Copy, Hash)]
pub(crate) struct Words<'a> {
    class: &'a str,
    workload: &'a str,
    scopes: &'a [String],
    audiences: &'a [String],
    depth_left: u32,
}

impl<'a> Words<'a> {
    /// The mandate of an admission.
    pub(crate) fn of(a: &'a record::Admitted) -> Words<'a> {
        let record::Admitted { class, workload, scopes, audiences, depth_left, .. } = a;
        Words { class, workload, scopes, audiences, depth_left: *depth_left }
    }

    fn say(&self, mandate: &Mandate) -> bool {
        let workload = match &mandate.workload {
            Workload::Own(name) => name.as_str() == self.workload,
            foreign @ Workload::Foreign(_) => foreign.to_string() == self.workload,
        };
        workload
            && mandate.class.as_str() == self.class
            && mandate.scopes == self.scopes
            && mandate.audiences == self.audiences
            && mandate.depth_left == self.depth_left
    }

    fn read(&self, salt: &Salt) -> Result<Mandate, &'static str> {
        let class: ClassName = self.class.parse().map_err(|_| "class")?;
        let workload: Workload = self.workload.parse().map_err(|_| "workload")?;
        Ok(Mandate {
            class_subject: Target::Class(class.clone()).subject(salt),
            workload_subject: Target::Workload(workload.clone()).subject(salt),
            class,
            workload,
            scopes: self.scopes.to_vec(),
            audiences: self.audiences.to_vec(),
            depth_left: self.depth_left,
        })
    }
}

/// Most mandates in the cache.
const MOST: usize = 4096;

/// A cache of recent mandates, so that similar agents share one.
#[derive(Clone, Default)]
pub(crate) struct Mandates {
    known: HashMap<u64, Arc<Mandate>>,
    // The last result. Agents that are admitted one after the other are mostly similar, and comparing is cheaper than hashing.
    last: Option<Arc<Mandate>>,
    hasher: RandomState,
    // The salt of the state that they belong to.
    salt: Salt,
}

// This is only a cache, so two states with different caches are equal; agents hold their own `Arc`.
impl PartialEq for Mandates {
    fn eq(&self, _: &Mandates) -> bool {
        true
    }
}

impl Eq for Mandates {}

impl fmt::Debug for Mandates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mandates")
    }
}

impl Mandates {
    /// An empty cache for a state with this salt.
    pub(super) fn salted(salt: Salt) -> Mandates {
        Mandates { salt, ..Mandates::default() }
    }

    /// Looks up the shared mandate with these contents.
    pub(crate) fn known(&self, words: &Words<'_>) -> Option<Arc<Mandate>> {
        if let Some(last) = self.last.as_ref().filter(|mandate| words.say(mandate)) {
            return Some(Arc::clone(last));
        }
        self.known.get(&self.hasher.hash_one(words)).filter(|mandate| words.say(mandate)).map(Arc::clone)
    }

    /// The shared mandate with these contents. The error names the field that is not a valid name.
    pub(crate) fn share(&mut self, words: &Words<'_>) -> Result<Arc<Mandate>, &'static str> {
        if let Some(known) = self.known(words) {
            self.note(&known);
            return Ok(known);
        }
        let mandate = Arc::new(words.read(&self.salt)?);
        self.keep(words, Arc::clone(&mandate));
        Ok(mandate)
    }

    /// The shared mandate with the contents of `made`, which becomes the shared one if there is none.
    pub(super) fn adopt(&mut self, words: &Words<'_>, made: Arc<Mandate>) -> Arc<Mandate> {
        if let Some(known) = self.known(words) {
            self.note(&known);
            return known;
        }
        self.keep(words, Arc::clone(&made));
        made
    }

    fn keep(&mut self, words: &Words<'_>, mandate: Arc<Mandate>) {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.note(&mandate);
        self.known.insert(self.hasher.hash_one(words), mandate);
    }

    fn note(&mut self, mandate: &Arc<Mandate>) {
        if self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, mandate)) {
            self.last = Some(Arc::clone(mandate));
        }
    }

    /// The mandate that differs from `of` in scopes and audiences.
    pub(super) fn narrowed(
        &mut self,
        of: &Mandate,
        scopes: &[String],
        audiences: &[String],
    ) -> Result<Arc<Mandate>, &'static str> {
        let workload = of.workload.to_string();
        let (class, depth_left) = (of.class.as_str(), of.depth_left);
        self.share(&Words { class, workload: &workload, scopes, audiences, depth_left })
    }
}
