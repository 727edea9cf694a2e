//! Where a request came from and what it asked for, for the history. No decision depends on it.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use mayfly_verify::User;

use super::Caller;

tokio::task_local! {
    /// The origin of the request that this task answers.
    static ORIGIN: Arc<Origin>;
}

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// An address, over TLS.
    Address(IpAddr),
    /// A process of this machine, over the operator socket, with its uid.
    Socket(u32),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Address(address) => write!(f, "{}", address.to_canonical()),
            From::Socket(uid) => write!(f, "operator socket, uid {uid}"),
        }
    }
}

/// What a request asked for, as it was read from the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The class of a new agent; empty if the request names none.
    pub class: String,
    /// Scopes; empty if the request names none.
    pub scopes: Vec<String>,
    /// Audiences; empty if the request names none.
    pub audiences: Vec<String>,
}

/// Where a request came from. Each field is filled in when it is known, and once.
#[derive(Debug, Default)]
pub struct Origin {
    /// `Service/Method`.
    pub method: &'static str,
    /// The other end of its connection. `None` for an act of the issuer itself.
    pub from: Option<From>,
    /// The caller, as soon as it is authenticated.
    pub caller: OnceLock<Caller>,
    /// The SPIFFE ID of a chain that verified, though its holder may not call.
    pub claimed: OnceLock<String>,
    /// The request id that the client gave.
    pub request_id: OnceLock<Box<str>>,
    /// The user whose token came with the request.
    pub user: OnceLock<User>,
    /// What it asked for.
    pub asked: OnceLock<Asked>,
    /// The request in a form in which it can be decided again. It is written out only for a denial.
    pub question: OnceLock<Box<dyn Question>>,
    /// Set for a later page of a read that is already in the history.
    pub continues: OnceLock<()>,
}

/// A request that can be decided again.
pub trait Question: fmt::Debug + Send + Sync {
    /// As the history keeps it. Empty if it cannot be kept.
    fn text(&self) -> String;
}

impl Origin {
    /// The origin of a request of `method`.
    pub fn new(method: &'static str, from: Option<From>) -> Origin {
        Origin { method, from, ..Origin::default() }
    }

    /// Runs `work` as the answer to the request of this origin.
    pub async fn scope<T>(self: Arc<Origin>, work: impl Future<Output = T>) -> T {
        ORIGIN.scope(self, work).await
    }

    /// The origin of the request that this task answers. Returns `None` if the issuer acts by itself.
    pub fn current() -> Option<Arc<Origin>> {
        ORIGIN.try_with(Arc::clone).ok()
    }

    /// Lets `fill` set fields of the origin of the request that this task answers.
    pub fn note(fill: impl FnOnce(&Origin)) {
        let _ = ORIGIN.try_with(|origin| fill(origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_origin_is_known_within_its_request_alone() {
        assert!(Origin::current().is_none());
        let origin = Arc::new(Origin::new("Identities/Spawn", Some(From::Socket(7))));
        let within = async {
            Origin::note(|origin| drop(origin.request_id.set("r-1".into())));
            Origin::current().is_some_and(|o| o.request_id.get().is_some_and(|id| &**id == "r-1"))
        };
        assert!(origin.scope(within).await);
        assert!(Origin::current().is_none());
        let mapped = From::Address("::ffff:192.0.2.1".parse().unwrap_or(IpAddr::from([0, 0, 0, 0])));
        assert_eq!(mapped.to_string(), "192.0.2.1");
    }
}
