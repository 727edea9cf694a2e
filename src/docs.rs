//! The manual: the pages that the README links.
//!
//! | page | for |
//! |---|---|
//! | [`operate`] | the issuer in production: configuration, joining, keys, federation, metrics, backup |
//! | [`revoke`] | who may revoke what, what it does, and what users can do themselves |
//! | [`people`] | users: how they see the agents that act for them, and stop them |
//! | [`approvals`] | one narrow approval by a person: typed actions, who answers, what the token says |
//! | [`history`] | what happened: reading, proving and exporting it, and what auditors can check |
//! | [`services`] | services that verify agents |
//! | [`systems`] | databases, clusters and clouds that do not use SPIFFE |
//! | [`mayfly_agent::docs::agents`] | programs that are agents or spawn them |
//! | [`security`] | what is promised and what is not; how to report a flaw |
//! | [`numbers`] | all measurements |
//! | [`develop`] | tests, fuzzing, benchmarks, documentation |
//! | [`hazards`], [`clauses`] | what the numbers in comments and tests mean |

/// One page. In the files, links lead to other files. Here the same labels are defined first, so that they lead to items of the
/// documentation.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = "[readme]: crate"]
        #[doc = "[operate]: crate::docs::operate"]
        #[doc = "[revoke]: crate::docs::revoke"]
        #[doc = "[people]: crate::docs::people"]
        #[doc = "[history]: crate::docs::history"]
        #[doc = "[explain]: crate::docs::explain"]
        #[doc = "[policy]: crate::docs::policy"]
        #[doc = "[services]: crate::docs::services"]
        #[doc = "[systems]: crate::docs::systems"]
        #[doc = "[approvals]: crate::docs::approvals"]
        #[doc = "[security]: crate::docs::security"]
        #[doc = "[develop]: crate::docs::develop"]
        #[doc = "[hazards]: crate::docs::hazards"]
        #[doc = "[clauses]: crate::docs::clauses"]
        #[doc = "[numbers]: crate::docs::numbers"]
        #[doc = "[run]: mod@super::run"]
        #[doc = "[workload]: mayfly_agent::workload"]
        #[doc = "[binding]: mayfly_verify::Binding"]
        #[doc = ""]
        #[doc = include_str!($file)]
        pub mod $name {}
    };
}

page!(operate, "docs/operate.md");
page!(revoke, "docs/revoke.md");
page!(people, "docs/people.md");
page!(approvals, "docs/approvals.md");
page!(history, "docs/history.md");
page!(explain, "docs/explain.md");
page!(policy, "docs/policy.md");
page!(services, "docs/services.md");
page!(systems, "docs/systems.md");
page!(security, "docs/security.md");
page!(develop, "docs/develop.md");
page!(hazards, "docs/hazards.md");
page!(clauses, "docs/clauses.md");
page!(numbers, "../loadtest/docs/numbers.md");
