//! A server under load: its process, a call that does nothing, and its memory and agents.

use crate::load::Call;
use crate::machine::Process;

/// A server under load.
pub(crate) trait Server {
    /// The process whose CPU and memory are measured. `None` if it runs on another machine.
    fn process(&self) -> Option<Process>;

    /// Calls that do nothing, over a connection of their own, with requests as large as one for a certificate.
    async fn empty(&self) -> Result<Call, String>;

    /// How it stands now.
    async fn standing(&self) -> Standing;
}

/// Memory and live agents of a server, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Agents that it knows.
    pub(crate) live: Option<u64>,
    /// The journal's head.
    pub(crate) revision: Option<u64>,
}
