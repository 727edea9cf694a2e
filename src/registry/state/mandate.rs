//! What agents have in common that were admitted alike: most of what is known of them, kept once for all.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use mayfly_verify::{ClassName, Subject, Target, Workload};

use crate::journal::record;

/// The subject of everything.
pub(super) static EVERYTHING: LazyLock<Subject> = LazyLock::new(|| Target::TrustDomain.subject());

/// What an agent may do, for whom it stands, and in which class.
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
    /// Levels of agents that may stand below.
    pub depth_left: u32,
    pub(super) class_subject: Subject,
    pub(super) workload_subject: Subject,
}

/// The same, as a record has it.
#[derive(Clone, Copy, Hash)]
pub(in crate::registry) struct Words<'a> {
    class: &'a str,
    workload: &'a str,
    scopes: &'a [String],
    audiences: &'a [String],
    depth_left: u32,
}

impl<'a> Words<'a> {
    /// Of an admission.
    pub(in crate::registry) fn of(a: &'a record::Admitted) -> Words<'a> {
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

    fn read(&self) -> Result<Mandate, &'static str> {
        let class: ClassName = self.class.parse().map_err(|_| "class")?;
        let workload: Workload = self.workload.parse().map_err(|_| "workload")?;
        Ok(Mandate {
            class_subject: Target::Class(class.clone()).subject(),
            workload_subject: Target::Workload(workload.clone()).subject(),
            class,
            workload,
            scopes: self.scopes.to_vec(),
            audiences: self.audiences.to_vec(),
            depth_left: self.depth_left,
        })
    }
}

/// Mandates that are kept for those to come at most.
const MOST: usize = 4096;

/// The mandates of late, for those who are admitted alike.
#[derive(Clone, Default)]
pub(in crate::registry) struct Mandates {
    known: HashMap<u64, Arc<Mandate>>,
    hasher: RandomState,
}

// What is in here says nothing of a state: whatever counts of it, agents hold.
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
    /// The one that says this, if there is one.
    pub(in crate::registry) fn known(&self, words: &Words<'_>) -> Option<Arc<Mandate>> {
        self.known.get(&self.hasher.hash_one(words)).filter(|mandate| words.say(mandate)).map(Arc::clone)
    }

    /// The one that says this; or what is no name in it.
    pub(in crate::registry) fn share(&mut self, words: &Words<'_>) -> Result<Arc<Mandate>, &'static str> {
        if let Some(known) = self.known(words) {
            return Ok(known);
        }
        let mandate = Arc::new(words.read()?);
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(self.hasher.hash_one(words), Arc::clone(&mandate));
        Ok(mandate)
    }

    /// The same with other scopes and audiences.
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
