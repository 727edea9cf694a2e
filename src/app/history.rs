//! The history of a home, and its place among those who observe the ledger.

use crate::config::Config;
use crate::history::{Inbox, Opened, Place, inbox};
use crate::home::Home;
use crate::keys::keystore::Keystore;
use crate::ledger::{Head, Noted, Observer};
use crate::publish::feed;
use crate::state::CutMade;

/// Opens the history of a home, or begins it; with the inbox through which it will follow the ledger.
pub(super) fn open(config: &Config, home: &Home, keystore: &Keystore) -> Result<(Opened, Inbox), String> {
    let opened = Opened::open(Place::of(&home.dir), config.history, keystore, &config.trust_domain)?;
    Ok((opened, inbox()))
}

/// Those who observe the ledger: the feed, which hears of cuts, and the history, which copies records.
pub(super) struct Observers {
    pub(super) feed: feed::Told,
    pub(super) history: Inbox,
}

impl Observer for Observers {
    fn committed(&mut self, head: Head, cuts: Vec<CutMade>) {
        self.feed.committed(head, cuts);
    }

    fn recorded(&mut self, records: Vec<Noted>) {
        self.history.record(records);
    }

    fn copied(&self) -> u64 {
        self.history.copied()
    }
}
