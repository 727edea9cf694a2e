//! Asks the witnesses at the start what they have seen of this issuer. The whole home may have been replaced by an older copy,
//! whose watermark fits its journal.

use std::net::SocketAddr;

use mayfly_verify::feed::{Heartbeat, heartbeat_message};
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::config::Config;
use crate::home::Mark;
use crate::journal::sqlite::Sqlite;
use crate::state::State;
use crate::witness;

/// What the witnesses said.
#[derive(Default)]
pub(super) struct Seen(Vec<(SocketAddr, Heartbeat)>);

/// Asks every witness, all at once. Fails if too few of them answer.
pub(super) async fn ask(config: &Config) -> Result<Seen, String> {
    let mut asked = JoinSet::new();
    for address in config.witnesses.iter().copied() {
        asked.spawn(async move { (address, witness::ask(address).await) });
    }
    let (mut seen, mut silent, mut answers) = (Seen::default(), Vec::new(), 0);
    while let Some(answer) = asked.join_next().await {
        match answer.map_err(|e| e.to_string())? {
            (address, Ok(heartbeat)) => {
                answers += 1;
                seen.0.extend(heartbeat.map(|heartbeat| (address, heartbeat)));
            }
            (address, Err(cause)) => {
                tracing::warn!(witness = %address, %cause, "a witness does not say what it has seen of this issuer");
                silent.push(format!("{address}: {cause}"));
            }
        }
    }
    if answers >= config.witnesses_needed {
        return Ok(seen);
    }
    Err(format!(
        "{answers} of the witnesses answer, and `journal.witnesses_needed` is {} ({}): nobody says whether this home was put back to an \
         older copy. Start a relay or guard that has followed this issuer, or start once with --without-witnesses",
        config.witnesses_needed,
        silent.join("; ")
    ))
}

impl Seen {
    /// Refuses a journal that is behind what a witness has seen, or that differs from it (T201).
    pub(super) fn check(&self, authority: &Authority, journal: &Sqlite, state: &State) -> Result<(), String> {
        self.0.iter().try_for_each(|(address, heartbeat)| {
            let own = heartbeat.trust_domain.as_str() == state.trust_domain()
                && authority.is_heartbeat(&heartbeat_message(heartbeat), &heartbeat.signature);
            if !own {
                return Err(format!(
                    "the witness {address} shows a heartbeat that this issuer has not signed: it follows another issuer, or the keys in \
                     this home are others than before. Mend `journal.witnesses`, or start once with --without-witnesses"
                ));
            }
            // A restored journal begins a new epoch, so heartbeats of earlier epochs do not apply to it.
            if state.incarnation != heartbeat.incarnation && state.began_at > heartbeat.as_of {
                return Ok(());
            }
            let mark = Mark {
                incarnation: heartbeat.incarnation,
                head: heartbeat.head,
                as_of: heartbeat.as_of,
                chain: heartbeat.chain,
            };
            mark.check(journal, state).map_err(|cause| format!("the witness {address} has seen more of this issuer: {cause}"))
        })
    }
}
