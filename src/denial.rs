//! The two kinds of refusal: a denial, whose reason the caller gets, and a fault of the issuer, which the caller sees as an
//! internal error.

pub mod near;

use std::fmt;

pub use mayfly_agent::reason::Kind;

/// A refusal with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What kind.
    pub kind: Kind,
    /// Stable reason, in upper case: the `reason` of google.rpc.ErrorInfo.
    pub code: &'static str,
    /// What the caller reads: what was wrong and what to do.
    pub message: String,
    /// Facts for the caller, as ErrorInfo metadata; never about others.
    pub facts: Vec<(&'static str, String)>,
    /// Microseconds after which asking again may help, where that is known.
    pub retry: Option<u64>,
}

impl Denial {
    /// A denial without facts.
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Denial {
        Denial { kind, code, message: message.into(), facts: Vec::new(), retry: None }
    }

    /// INVALID_ARGUMENT.
    pub fn malformed(code: &'static str, message: impl Into<String>) -> Denial {
        Denial::new(Kind::Malformed, code, message)
    }

    /// PERMISSION_DENIED.
    pub fn denied(code: &'static str, message: impl Into<String>) -> Denial {
        Denial::new(Kind::Denied, code, message)
    }

    /// The same, with the time after which to retry.
    pub fn retry_after(mut self, retry: Option<u64>) -> Denial {
        self.retry = retry;
        self
    }

    /// The same with one more fact.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Denial {
        self.facts.push((name, value.into()));
        self
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// A failure of the issuer itself. The caller is told "internal"; the cause is logged.
#[derive(Debug, thiserror::Error)]
#[error("{during}: {cause}")]
pub struct Fault {
    /// What was being done.
    pub during: &'static str,
    /// Why it failed.
    pub cause: String,
}

impl Fault {
    /// A fault with its cause.
    pub fn new(during: &'static str, cause: impl fmt::Display) -> Fault {
        Fault { during, cause: cause.to_string() }
    }
}

/// A refusal of either kind.
#[derive(Debug, thiserror::Error)]
pub enum No {
    /// Told to the caller.
    #[error("{0}")]
    Denial(Denial),
    /// Kept.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<Denial> for No {
    fn from(denial: Denial) -> No {
        No::Denial(denial)
    }
}
