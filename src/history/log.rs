//! The growing tree: entries are added at its edge, and about once a second its tiles are written and its head is signed.
//!
//! Tiles are not durable when the checkpoint over them is: the entries are, and the tiles follow from them. From time to time
//! everything is synced at once, and the edge of that moment is kept outside the folder. A start adds the entries after it again,
//! so it writes whatever tile a power loss may have taken away.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Place;
use super::entry::Sealed;
use super::note::{Checkpoint, Signer};
use super::read::{Range, Reader};
use super::tiles::{Folder, bundle};
use super::tree::{self, Edge, Full, Hash, WIDTH, leaf_hash};
use crate::keys::keystore::write_private;

/// Most entries whose tiles are not durable, and so most that a start adds again.
const AGAIN: u64 = 16_384;
/// The longest time for which tiles are not durable while entries arrive.
const SYNC: Duration = Duration::from_secs(60);

/// The tree, with the parts that are not on disk yet.
pub(super) struct Log {
    folder: Folder,
    signer: Signer,
    /// The file of the last checkpoint outside the folder, by which an older copy of the folder is noticed.
    outside: PathBuf,
    kept: Kept,
    edge: Edge,
    full: Vec<Full>,
    // The bundles that are not written yet, and the partial one.
    bundles: BTreeMap<u64, Vec<u8>>,
    signed: u64,
    pruned: u64,
}

/// The file of the edge from which a start adds entries again.
struct Kept {
    path: PathBuf,
    /// Number of entries before that edge.
    size: u64,
    /// Number of entries whose tiles are durable.
    synced: u64,
    at: Instant,
    /// Whether a sync has failed. What it was for may be lost, and the system may say so only once.
    unsure: bool,
}

/// The file of an edge: the hashes of its partial tiles, from the lowest level on, in hex.
#[derive(Serialize, Deserialize)]
struct EdgeFile {
    size: u64,
    partial: Vec<String>,
}

impl Log {
    /// Opens the tree of a place over the entries of `reader`. Fails if the history is behind its last signed checkpoint, or
    /// differs from it.
    pub(super) fn open(place: &Place, signer: Signer, reader: &Reader) -> Result<Log, String> {
        let Place { dir, checkpoint: outside, edge: kept } = place;
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
        let known: Vec<Checkpoint> = inside.into_iter().chain(last).collect();
        let mut log = Log {
            folder,
            signer,
            outside: outside.clone(),
            kept: Kept { path: kept.clone(), size: 0, synced: 0, at: Instant::now(), unsure: false },
            edge: Edge::default(),
            full: Vec::new(),
            bundles: BTreeMap::new(),
            signed: size,
            pruned: minimum,
        };
        // An edge that was kept for another history, or a copy without one: the tiles of the checkpoint are taken as they are.
        let durable = read_edge(kept).filter(|edge| (minimum..=size).contains(&edge.size()));
        if let Some(edge) = durable
            && log.grow(edge, &known, reader)?.is_none()
        {
            return Ok(log);
        }
        match log.grow(log.folder.edge(size)?, &known, reader)? {
            Some(size) => Err(format!(
                "the history in `{}` is not the one whose {size} entries this issuer has signed: `mayfly history verify` names the \
                 first entry that differs",
                dir.display()
            )),
            None => Ok(log),
        }
    }

    /// Begins at an edge and adds all later entries. Returns the size of a known checkpoint that the tree does not match, or `None`
    /// if it matches all of them.
    fn grow(&mut self, edge: Edge, known: &[Checkpoint], reader: &Reader) -> Result<Option<u64>, String> {
        let from = edge.size();
        (self.full, self.bundles) = (Vec::new(), BTreeMap::new());
        if !from.is_multiple_of(WIDTH) {
            let mut bytes = Vec::new();
            self.folder.bundle(from / WIDTH, from % WIDTH)?.iter().for_each(|entry| bundle(&mut bytes, entry));
            self.bundles.insert(from / WIDTH, bytes);
        }
        (self.edge, self.signed) = (edge, from);
        (self.kept.size, self.kept.synced) = (from, from);
        let mut wrong = self.differs(known);
        reader.each(Range { from, ..Range::default() }, |_, sealed| {
            self.push(sealed);
            wrong = wrong.take().or_else(|| self.differs(known));
            if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(wrong)
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

    /// Number of entries whose tiles are durable.
    pub(super) fn durable(&self) -> u64 {
        self.kept.synced
    }

    /// Makes the tiles durable that are not, if that is `due` or they have waited for long enough.
    pub(super) fn settle(&mut self, due: bool) -> Result<(), String> {
        // The edge that is kept must be one whose tiles are written.
        let waits = !self.is_ahead() && self.signed > self.kept.synced;
        if waits && (due || self.kept.at.elapsed() >= SYNC) { self.sync() } else { Ok(()) }
    }

    /// Writes the tiles and signs the head of the tree. The checkpoint is durable on return; the tiles are too if enough of them
    /// were not, or if the entries that a start would add again are no longer kept.
    pub(super) fn publish(&mut self) -> Result<(), String> {
        let size = self.edge.size();
        let note = self.signer.sign(size, &self.edge.root());
        let bundles: Vec<_> = self.bundles.iter().map(|(number, bytes)| (*number, bytes.clone())).collect();
        self.folder.write(&self.full, &self.edge, &bundles)?;
        self.full.clear();
        self.bundles.retain(|number, _| *number == size / WIDTH);
        if size - self.kept.size >= AGAIN || size / WIDTH * WIDTH < self.pruned {
            self.sync()?;
        }
        // ORDER: the checkpoint outside of the folder first. If only one of the two is written it is this one, and the entries that
        // it covers are durable.
        write_private(&self.outside, note.as_bytes()).map_err(|e| e.to_string())?;
        self.folder.publish(&note)?;
        self.signed = size;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        // As for the journal: after a failure it is unknown what is on the disk. The next start adds all entries since then again.
        if self.kept.unsure {
            return Ok(());
        }
        // ORDER: the tiles before the edge that says that they are durable.
        self.folder.sync().inspect_err(|_| self.kept.unsure = true)?;
        let edge = self.edge.of_full_tiles();
        let mut partial = vec![String::new(); tree::levels(edge.size())];
        for (level, _, hashes) in edge.partial() {
            if let Some(text) = partial.get_mut(level) {
                *text = hex::encode(hashes.concat());
            }
        }
        let text = serde_json::to_vec(&EdgeFile { size: edge.size(), partial }).map_err(|e| e.to_string())?;
        write_private(&self.kept.path, &text).map_err(|e| e.to_string())?;
        self.kept.at = Instant::now();
        (self.kept.size, self.kept.synced) = (edge.size(), self.edge.size());
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

/// The edge in a file. Returns `None` if there is none, or none that makes sense: the tiles are then read.
fn read_edge(path: &Path) -> Option<Edge> {
    let EdgeFile { size, partial } = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let hashes = |text: &String| {
        let bytes = hex::decode(text).ok()?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        rest.is_empty().then(|| hashes.to_vec())
    };
    Edge::new(size, partial.iter().map(hashes).collect::<Option<Vec<Vec<Hash>>>>()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::entry::{Draft, Kind, Outcome};
    use super::super::store::{Keep, Store};
    use super::*;
    use std::fs;

    struct World {
        home: tempfile::TempDir,
        key: String,
        store: Store,
    }

    impl World {
        fn new() -> World {
            let home = tempfile::tempdir().unwrap();
            let place = Place::of(home.path());
            let store = Store::open(&place.segments(), Keep { time: u64::MAX / 2, bytes: None }).unwrap();
            World { home, key: Signer::generate("test").unwrap().encoded().to_owned(), store }
        }

        fn open(&self) -> Result<Log, String> {
            Log::open(&Place::of(self.home.path()), Signer::read(&self.key).unwrap(), &self.store.reader())
        }

        fn add(&mut self, log: &mut Log, count: u64) {
            let first = self.store.next();
            let seal = |n| Sealed::seal(Draft::new(Kind::Mint, n, Outcome::Recorded), n, n + 1, [1; 32]).unwrap();
            let some: Vec<_> = (first..first + count).map(|n| (n, seal(n))).collect();
            self.store.append(&some).unwrap();
            some.iter().for_each(|(_, sealed)| log.push(sealed));
        }

        /// The content of each tile.
        fn tiles(&self) -> BTreeMap<PathBuf, Vec<u8>> {
            let mut found = BTreeMap::new();
            let mut open = vec![Place::of(self.home.path()).dir.join("tile")];
            while let Some(dir) = open.pop() {
                for entry in fs::read_dir(dir).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() { open.push(path) } else { drop(found.insert(path.clone(), fs::read(path).unwrap())) }
                }
            }
            found
        }
    }

    #[test]
    fn t315_tiles_that_a_power_loss_took_away_are_written_again() {
        let mut world = World::new();
        let mut log = world.open().unwrap();
        world.add(&mut log, AGAIN + 300);
        log.publish().unwrap();
        assert_eq!(log.durable(), AGAIN + 300);
        let durable = world.tiles();
        for count in [1, 700, 80, 5000] {
            world.add(&mut log, count);
            log.publish().unwrap();
        }
        let (size, root, whole) = (log.edge.size(), log.edge.root(), world.tiles());
        assert_eq!(log.durable(), AGAIN + 300);
        drop(log);
        // Each tile that was not synced is lost in one of the ways of a power loss.
        let later: Vec<_> = whole.keys().filter(|path| !durable.contains_key(*path)).collect();
        assert!(later.len() > 40);
        for (n, path) in later.iter().enumerate() {
            if n % 2 == 0 { fs::remove_file(path).unwrap() } else { fs::write(path, b"").unwrap() }
        }
        let mut log = world.open().unwrap();
        assert_eq!((log.edge.size(), log.edge.root()), (size, root));
        assert!(log.is_ahead(), "the next checkpoint writes them");
        log.publish().unwrap();
        // Partial tiles of checkpoints in between are not needed.
        let again = world.tiles();
        let full = |path: &&PathBuf| !path.to_string_lossy().contains(".p/");
        assert!(whole.iter().filter(|(path, _)| full(path)).all(|(path, bytes)| again.get(path) == Some(bytes)));
        assert_eq!(Folder::new(&Place::of(world.home.path()).dir).edge(size).unwrap(), log.edge);
    }

    #[test]
    fn an_edge_of_another_history_or_none_makes_no_difference() {
        let mut world = World::new();
        let mut log = world.open().unwrap();
        world.add(&mut log, 1000);
        log.publish().unwrap();
        log.settle(true).unwrap();
        let (root, place) = (log.edge.root(), Place::of(world.home.path()));
        assert_eq!(log.durable(), 1000);
        drop(log);
        let kept = fs::read(&place.edge).unwrap();
        for (other, from) in
            [(kept.clone(), 768), (b"".to_vec(), 1000), (b"{\"size\":256,\"partial\":[\"\",\"\"]}".to_vec(), 1000)]
        {
            fs::write(&place.edge, &other).unwrap();
            let log = world.open().unwrap();
            assert_eq!((log.edge.root(), log.durable()), (root, from));
        }
        // Another history with an edge that makes sense.
        let text = String::from_utf8(kept).unwrap();
        let other = text.replacen('a', "b", 1);
        assert_ne!(other, text);
        fs::write(&place.edge, other).unwrap();
        let log = world.open().unwrap();
        assert_eq!((log.edge.root(), log.durable()), (root, 1000));
        drop(log);
        fs::remove_file(&place.edge).unwrap();
        assert_eq!(world.open().unwrap().edge.root(), root);
    }
}
