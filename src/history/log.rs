//! The growing tree: entries are added at its edge, and about once a second its tiles are written and its head is signed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::entry::Sealed;
use super::note::{Checkpoint, Signer};
use super::read::{Range, Reader};
use super::tiles::{Folder, bundle};
use super::tree::{Edge, Full, WIDTH, leaf_hash};
use crate::keys::keystore::write_private;

/// The tree, with the parts that are not on disk yet.
pub(super) struct Log {
    folder: Folder,
    signer: Signer,
    /// The file of the last checkpoint outside the folder, by which an older copy of the folder is noticed.
    outside: PathBuf,
    edge: Edge,
    full: Vec<Full>,
    // The bundles that are not written yet, and the partial one.
    bundles: BTreeMap<u64, Vec<u8>>,
    signed: u64,
    pruned: u64,
}

impl Log {
    /// Opens the tree of a folder over the entries of `reader`. Fails if the history is behind its last signed checkpoint, or
    /// differs from it.
    pub(super) fn open(dir: &Path, outside: &Path, signer: Signer, reader: &Reader) -> Result<Log, String> {
        let folder = Folder::new(dir);
        let inside = folder.checkpoint()?.map(|note| signer.verifier().open(&note)).transpose();
        let inside = inside.map_err(|e| format!("`{}`: {e}", dir.join("checkpoint").display()))?;
        let last = match std::fs::read_to_string(outside) {
            Ok(note) => Some(signer.verifier().open(&note).map_err(|e| format!("`{}`: {e}", outside.display()))?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(format!("`{}`: {e}", outside.display())),
        };
        let (minimum, end) = reader.places();
        let wanted = [&inside, &last].into_iter().flatten().map(|checkpoint| checkpoint.size).max().unwrap_or(0);
        if end < wanted {
            return Err(format!(
                "the history in `{}` holds {end} entries and its last signed checkpoint says {wanted}: somebody put an older copy \
                 in its place. Put the newer one back. To begin another history, move it away with `{}` and the key `history.key`",
                dir.display(),
                outside.display()
            ));
        }
        let size = inside.as_ref().map_or(0, |checkpoint| checkpoint.size);
        if size < minimum {
            return Err(format!("`{}`: the tiles before entry {minimum} are missing", dir.display()));
        }
        let edge = folder.edge(size)?;
        let mut bundles = BTreeMap::new();
        if !size.is_multiple_of(WIDTH) {
            let mut bytes = Vec::new();
            folder.bundle(size / WIDTH, size % WIDTH)?.iter().for_each(|entry| bundle(&mut bytes, entry));
            bundles.insert(size / WIDTH, bytes);
        }
        let outside = outside.to_owned();
        let mut log = Log { folder, signer, outside, edge, full: Vec::new(), bundles, signed: size, pruned: minimum };
        let known: Vec<Checkpoint> = inside.into_iter().chain(last).collect();
        let mut wrong = log.differs(&known);
        reader.each(Range { from: size, ..Range::default() }, |_, sealed| {
            log.push(sealed);
            wrong = wrong.take().or_else(|| log.differs(&known));
            if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match wrong {
            Some(size) => Err(format!(
                "the history in `{}` is not the one whose {size} entries this issuer has signed: `mayfly history verify` names the \
                 first entry that differs",
                dir.display()
            )),
            None => Ok(log),
        }
    }

    /// The size of a signed checkpoint that the tree does not match. `None` if it matches all of them.
    fn differs(&self, known: &[Checkpoint]) -> Option<u64> {
        let same = |checkpoint: &&Checkpoint| checkpoint.size == self.edge.size() && checkpoint.root != self.edge.root();
        known.iter().find(same).map(|checkpoint| checkpoint.size)
    }

    /// Adds an entry, which is durable in the store.
    pub(super) fn push(&mut self, sealed: &Sealed) {
        let number = self.edge.size() / WIDTH;
        bundle(self.bundles.entry(number).or_default(), sealed.leaf.as_bytes());
        self.full.extend(self.edge.push(leaf_hash(sealed.leaf.as_bytes())));
    }

    /// Entries that no checkpoint covers yet.
    pub(super) fn is_ahead(&self) -> bool {
        self.edge.size() > self.signed
    }

    /// Number of entries that the last checkpoint covers.
    pub(super) fn signed(&self) -> u64 {
        self.signed
    }

    /// Writes the tiles and signs the head of the tree. Everything in it is durable on return.
    pub(super) fn publish(&mut self) -> Result<(), String> {
        let size = self.edge.size();
        let note = self.signer.sign(size, &self.edge.root());
        let bundles: Vec<_> = self.bundles.iter().map(|(number, bytes)| (*number, bytes.clone())).collect();
        self.folder.write(&self.full, &self.edge, &bundles)?;
        self.full.clear();
        self.bundles.retain(|number, _| *number == size / WIDTH);
        // ORDER: the checkpoint outside of the folder first. If only one of the two is written it is this one, and the entries that
        // it covers are durable.
        write_private(&self.outside, note.as_bytes()).map_err(|e| e.to_string())?;
        self.folder.publish(&note)?;
        self.signed = size;
        Ok(())
    }

    /// Removes tiles whose entries all lie before the first entry that is kept.
    pub(super) fn prune(&mut self, minimum: u64) -> Result<(), String> {
        if minimum > self.pruned {
            self.folder.prune(self.pruned, minimum)?;
            self.pruned = minimum;
        }
        Ok(())
    }
}
