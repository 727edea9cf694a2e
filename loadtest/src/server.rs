//! A server under load: whose CPU counts, what it is to do nothing, and how it stands.

use crate::load::Call;
use crate::machine::Process;

/// A server under load.
pub(crate) trait Server {
    /// Whose CPU and memory is counted; none when it runs elsewhere.
    fn process(&self) -> Option<Process>;

    /// Calls that do nothing, over a connection of their own, with requests as large as one for a certificate.
    async fn empty(&self) -> Result<Call, String>;

    /// How it stands now.
    async fn standing(&self) -> Standing;
}

/// How a server stands, as far as it says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Agents that it knows.
    pub(crate) live: Option<u64>,
    /// The journal's head.
    pub(crate) revision: Option<u64>,
}
