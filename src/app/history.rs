//! Opens the history of a home, and connects it to the ledger as an observer.

use crate::config::Config;
use crate::history::{Inbox, Opened, Place, inbox};
use crate::home::Home;
use crate::keys::keystore::Keystore;
use crate::ledger::{Head, Noted, Observer};
use crate::publish::feed;
use crate::state::CutMade;

/// Opens or creates the history of a home. Also returns the inbox through which it will follow the ledger.
pub(super) fn open(config: &Config, home: &Home, keystore: &Keystore) -> Result<(Opened, Inbox), String> {
    let opened = Opened::open(Place::of(&home.dir), config.history, keystore, &config.trust_domain)?;
    Ok((opened, inbox()))
}

/// The observers of the ledger: the feed, which is notified of cuts, and the history, which copies records.
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
