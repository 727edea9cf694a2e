//! Verifies a copy of a history without anything else: the checkpoint by its key, each tile by the one above it, each entry by its
//! tile, and each opening by its entry.

use std::ops::ControlFlow;
use std::path::Path;

use super::entry::{Leaf, Sealed};
use super::note::{Checkpoint, Verifier};
use super::read::{Range, Reader};
use super::tiles::Folder;
use super::tree::{self, Hash, Tiles as _, WIDTH, leaf_hash};
use super::witness::{self, Cosigner};

/// A history that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What its checkpoint says.
    pub checkpoint: Checkpoint,
    /// Index of the first entry that is kept.
    pub first: u64,
    /// Entries that were opened: those in segments that the checkpoint covers. 0 for a copy of the public part.
    pub opened: u64,
    /// Entries that no checkpoint covers yet.
    pub unsigned: u64,
}

/// The first fault: the index of the first entry that it affects, and a description.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Damage(u64, String);

/// Verifies the folder of a history. `vkey` is the key that is trusted; without one, that of the folder itself. Blocks.
pub fn verify(dir: &Path, vkey: Option<&str>) -> Result<Verified, String> {
    let folder = Folder::new(dir);
    let note = folder.checkpoint()?.ok_or_else(|| format!("`{}` has no checkpoint", dir.display()))?;
    let checkpoint = trusted(dir, vkey)?.open(&note)?;
    let segments = dir.join("segments");
    let reader = if segments.is_dir() { Some(Reader::offline(&segments)?) } else { None };
    let size = checkpoint.size;
    let first = match &reader {
        Some(reader) => reader.places().0,
        None => (0..size / WIDTH).find(|number| folder.path("entries", *number, WIDTH).exists()).map_or(0, |n| n * WIDTH),
    };
    let mut damage = tiles(&folder, &checkpoint, first);
    if damage.is_none() {
        damage = first_of(damage, entries(&folder, size, first));
    }
    let (mut opened, mut unsigned) = (0, 0);
    if let Some(reader) = &reader
        && damage.is_none()
    {
        let (found, counts) = openings(reader, &folder, size)?;
        (opened, unsigned) = counts;
        damage = found;
        if damage.is_none() && opened + first < size {
            damage = Some(Damage(first + opened, format!("entry {} is missing: the checkpoint says {size}", first + opened)));
        }
    }
    match damage {
        Some(Damage(_, what)) => Err(what),
        None => Ok(Verified { checkpoint, first, opened, unsigned }),
    }
}

/// The key that is trusted, or that of the folder itself.
fn trusted(dir: &Path, vkey: Option<&str>) -> Result<Verifier, String> {
    match vkey {
        Some(vkey) => Verifier::read(vkey),
        None => {
            let file = dir.join("vkey");
            Verifier::read(&std::fs::read_to_string(&file).map_err(|e| format!("`{}`: {e}", file.display()))?)
        }
    }
}

/// How many entries of a history that holds a witness has cosigned, and when (Unix seconds). `vkey` is as for [`verify`].
pub fn cosigned(dir: &Path, vkey: Option<&str>, verified: &Verified, witness: &Cosigner) -> Result<(u64, u64), String> {
    witness::verify(&Folder::new(dir), &trusted(dir, vkey)?, &verified.checkpoint, witness)
}

fn first_of(a: Option<Damage>, b: Option<Damage>) -> Option<Damage> {
    a.into_iter().chain(b).min_by_key(|damage| damage.0)
}

/// The right edge by the signed root, then every full tile by the hash of it in the tile above.
fn tiles(folder: &Folder, checkpoint: &Checkpoint, first: u64) -> Option<Damage> {
    let size = checkpoint.size;
    match folder.edge(size) {
        Ok(edge) if edge.root() == checkpoint.root => {}
        Ok(_) => return Some(Damage(0, "the tiles at the right edge are not those that were signed".into())),
        Err(e) => return Some(Damage(0, e)),
    }
    let mut damage = None;
    for level in (0..tree::levels(size).saturating_sub(1)).rev() {
        let span = 8 * (level + 1);
        let numbers = first >> span..size >> span;
        let bad = numbers.clone().find_map(|number| {
            let covers = number << span;
            let tile = folder.tile(level, number, WIDTH).and_then(|hashes| {
                let above = above(folder, size, level, number)?;
                if tree::root(&hashes) == above { Ok(()) } else { Err(format!("tile {level}/{number} is damaged")) }
            });
            let last = covers + (1 << span) - 1;
            tile.err().map(|e| Damage(covers, format!("{e}: it covers entries {covers} to {last}")))
        });
        damage = first_of(damage, bad);
        if damage.is_some() {
            // Tiles below a damaged one cannot be checked against it.
            return damage;
        }
    }
    damage
}

/// The hash of a full tile in the tile above it.
fn above(folder: &Folder, size: u64, level: usize, number: u64) -> Result<Hash, String> {
    hash(folder, size, level + 1, number)
}

/// One hash of a level of tiles.
fn hash(folder: &Folder, size: u64, level: usize, place: u64) -> Result<Hash, String> {
    let (number, within) = (place / WIDTH, place % WIDTH);
    let width = ((size >> (8 * level)) - number * WIDTH).min(WIDTH);
    let hashes = folder.tile(level, number, width)?;
    let found = hashes.get(usize::try_from(within).unwrap_or(usize::MAX)).copied();
    found.ok_or_else(|| format!("tile {level}/{number} is too short"))
}

/// Every bundle of entries by the hashes of its tile.
fn entries(folder: &Folder, size: u64, first: u64) -> Option<Damage> {
    (first / WIDTH..size.div_ceil(WIDTH)).find_map(|number| {
        let begins = number * WIDTH;
        let width = (size - begins).min(WIDTH);
        let both = folder.bundle(number, width).and_then(|entries| Ok((entries, folder.tile(0, number, width)?)));
        match both {
            Err(e) => Some(Damage(begins, e)),
            Ok((entries, hashes)) => {
                let wrong = (begins..).zip(entries.iter().zip(&hashes)).find(|(_, (entry, hash))| leaf_hash(entry) != **hash);
                wrong.map(|(index, _)| Damage(index, format!("entry {index} is damaged: it is not the one that was signed")))
            }
        }
    })
}

/// Every entry of the segments by the tree, and its opening by the entry. Returns how many the checkpoint covers, and how many it
/// does not.
fn openings(reader: &Reader, folder: &Folder, size: u64) -> Result<(Option<Damage>, (u64, u64)), String> {
    let (mut damage, mut opened, mut unsigned) = (None, 0, 0);
    let mut tile: Option<(u64, Vec<Hash>)> = None;
    let mut head: Option<u64> = None;
    reader.each(Range::default(), |index, sealed| {
        let wrong = if index < size { wrong(folder, size, index, sealed, &mut tile) } else { None };
        let wrong = wrong.or_else(|| is_open(index, sealed, &mut head));
        if let Some(what) = wrong {
            damage = Some(Damage(index, format!("entry {index} is damaged: {what}")));
            return ControlFlow::Break(());
        }
        if index < size {
            opened += 1;
        } else {
            unsigned += 1;
        }
        ControlFlow::Continue(())
    })?;
    Ok((damage, (opened, unsigned)))
}

fn wrong(folder: &Folder, size: u64, index: u64, sealed: &Sealed, tile: &mut Option<(u64, Vec<Hash>)>) -> Option<&'static str> {
    let number = index / WIDTH;
    if tile.as_ref().is_none_or(|(of, _)| *of != number) {
        let hashes = folder.tile(0, number, (size - number * WIDTH).min(WIDTH)).unwrap_or_default();
        *tile = Some((number, hashes));
    }
    let within = usize::try_from(index % WIDTH).unwrap_or(usize::MAX);
    let hash = tile.as_ref().and_then(|(_, hashes)| hashes.get(within));
    if hash != Some(&leaf_hash(sealed.leaf.as_bytes())) {
        return Some("it is not the one that was signed");
    }
    None
}

/// Checks that a line fits its leaf: its index, its opening, and its revision of the journal. Returns the fault.
fn is_open(index: u64, sealed: &Sealed, head: &mut Option<u64>) -> Option<&'static str> {
    let leaf: Option<Leaf> = serde_json::from_str(&sealed.leaf).ok();
    match leaf {
        Some(leaf) if leaf.index != index => Some("it is of another place"),
        Some(leaf) => {
            let before = if index == 0 { Some(0) } else { *head };
            *head = Some(sealed.head);
            let fits = before.map_or(sealed.head >= leaf.revision, |before| sealed.head == before.max(leaf.revision));
            match (fits, sealed.is_committed()) {
                (true, true) => None,
                (false, _) => Some("what it says of the journal does not fit"),
                (_, false) => Some("its opening is not the one that it commits to"),
            }
        }
        None => Some("it cannot be read"),
    }
}
