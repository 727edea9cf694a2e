//! The manual, beside the API that it speaks of.
//!
//! | page | for |
//! |---|---|
//! | [`hazards`], [`clauses`] | what the numbers in comments and tests mean |

/// One page. In the files links name files; here the same labels are defined first, so that they lead to items.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = "[hazards]: crate::docs::hazards"]
        #[doc = "[clauses]: crate::docs::clauses"]
        #[doc = "[run]: mod@super::run"]
        #[doc = "[workload]: mayfly_agent::workload"]
        #[doc = ""]
        #[doc = include_str!($file)]
        pub mod $name {}
    };
}

page!(hazards, "docs/hazards.md");
page!(clauses, "docs/clauses.md");
