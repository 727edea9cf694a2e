//! The configured rules: what judging knows besides the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mayfly_verify::{ClassName, TrustDomain, User, Workload, WorkloadName};

use super::action::Catalogue;
use super::approval::Waiting;
use super::assignment::Assignment;
use super::audience::Audience;
use super::limits::Limit;
use super::policy::Class;
use crate::policies::Policies;

/// The rules from the configuration. A reload replaces them as a whole.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The trust domain of this issuer.
    pub trust_domain: TrustDomain,
    /// Counts the reloads of this process. Evidence that was verified under another number is verified again.
    pub number: u64,
    /// Every configured class.
    pub classes: BTreeMap<ClassName, Class>,
    /// The catalogue of audiences.
    pub audiences: BTreeMap<String, Audience>,
    /// Every configured workload.
    pub workloads: Vec<WorkloadName>,
    /// `iss` of every configured provider of users, and the operator's name for it.
    pub issuers: BTreeMap<String, String>,
    /// The audiences of user tokens, by `iss` and `aud`.
    pub tokens: BTreeMap<String, BTreeMap<String, Ceiling>>,
    /// The audience of JWT-SVIDs by which agents prove themselves at the OAuth endpoints of this issuer: its URL. `None` if there are
    /// none.
    pub client_audience: Option<String>,
    /// The audiences that each workload serves: it may introspect access tokens that are for them.
    pub serves: BTreeMap<WorkloadName, BTreeSet<String>>,
    /// The workloads that may spend the budgets of any agent.
    pub gateways: Vec<WorkloadName>,
    /// The workloads that are operators too.
    pub operators: Vec<WorkloadName>,
    /// The workloads that are auditors too.
    pub auditors: Vec<WorkloadName>,
    /// The people who are operators or auditors.
    pub assignments: Vec<Assignment>,
    /// Number of agents below one agent that may be ended or revoked one by one. If one more is revoked, that agent is revoked too.
    pub taken_back: usize,
    /// The configured types of actions.
    pub actions: Catalogue,
    /// How many questions to people may wait.
    pub waiting: Waiting,
    /// Every configured limit.
    pub limits: Vec<Limit>,
    /// The policies in force. `None` means that there are none. A new set replaces this as a whole, together with the other rules,
    /// so an act is judged by one set, at its commit.
    pub policies: Option<Arc<Policies>>,
    /// A candidate set. It is evaluated too, but decides nothing.
    pub shadow: Option<Arc<Policies>>,
    /// Lifetime of a workload's certificate, in seconds.
    pub workload_ttl: u64,
    /// Default lifetime of a JWT-SVID, in seconds.
    pub jwt_ttl: u64,
    /// How long a JWT authority is published before it signs, in seconds (BU-9).
    pub publish_ahead: u64,
}

/// The most that a user token for one audience allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// The workloads that may present it.
    pub workloads: Vec<Workload>,
    /// Ceiling of scopes. `None` means no ceiling.
    pub scopes: Option<Vec<String>>,
    /// Longest delegation, in seconds.
    pub longest: u64,
}

impl Rules {
    /// Leaves out one policy of the set in force, given by its index.
    pub fn lift(&mut self, policy: usize) {
        self.policies = self.policies.as_ref().map(|set| Arc::new(set.without(policy)));
    }

    /// A user as operators write one: the configured name of the provider, or its URL if it is not configured, and the subject.
    pub fn user_name(&self, user: &User) -> String {
        format!("{}/{}", self.issuers.get(&user.iss).unwrap_or(&user.iss), user.sub)
    }

    /// The longest lifetime of any certificate, in seconds.
    pub fn x509_life(&self) -> u64 {
        self.longest_svid().max(self.workload_ttl)
    }

    /// The longest lifetime of an agent's certificate or token, in seconds.
    pub(crate) fn longest_credential(&self) -> u64 {
        // Agents that have ended may still hold certificates, so the longest lifetime of any class counts.
        self.longest_svid().max(self.jwt_life())
    }

    /// The longest lease of any class, in seconds.
    pub(crate) fn longest_lease(&self) -> u64 {
        self.classes.values().map(|class| class.max_lease).max().unwrap_or(0)
    }

    fn longest_svid(&self) -> u64 {
        self.classes.values().map(|class| class.svid_ttl).max().unwrap_or(0)
    }
}
