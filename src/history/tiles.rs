//! The tree as files, in the layout of C2SP tlog-tiles: `checkpoint`, `tile/<level>/<number>` and `tile/entries/<number>`.
//!
//! A full tile never changes. A partial one has its width in its name and is replaced by the full one. Everything here is written
//! before the checkpoint that needs it, and can be rebuilt from the segments, so no tile is synced on its own: at several
//! thousand entries a second that would be a hundred syncs a second, each of which delays the journal's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::tree::{self, Edge, Full, Hash, Tiles, WIDTH};
use crate::keys::keystore::{write_private, write_unsynced};

/// A folder of tiles.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of a history.
    pub fn new(dir: &Path) -> Folder {
        Folder(dir.to_owned())
    }

    /// Where a tile or bundle is. `kind` is a level or `entries`; a full one has no width in its name.
    pub fn path(&self, kind: &str, number: u64, width: u64) -> PathBuf {
        let path = self.0.join("tile").join(kind).join(numbered(number));
        if width == WIDTH {
            return path;
        }
        let mut partial = path.into_os_string();
        partial.push(format!(".p/{width}"));
        partial.into()
    }

    /// Writes full tiles, the partial tiles of an edge, and bundles of entries: each with its number and its bytes, 256 entries in
    /// a full one. They are durable after the next [`Folder::sync`].
    pub fn write(&self, full: &[Full], edge: &Edge, bundles: &[(u64, Vec<u8>)]) -> Result<(), String> {
        for tile in full {
            self.put(&tile.level.to_string(), tile.number, WIDTH, &tile.hashes.concat())?;
            self.drop_partial(&tile.level.to_string(), tile.number)?;
        }
        for (level, number, hashes) in edge.partial() {
            self.put(&level.to_string(), number, tree::width(edge.size(), level), &hashes.concat())?;
        }
        for (number, bytes) in bundles {
            let width = (edge.size() - number * WIDTH).min(WIDTH);
            self.put("entries", *number, width, bytes)?;
            if width == WIDTH {
                self.drop_partial("entries", *number)?;
            }
        }
        Ok(())
    }

    /// Makes everything that was written so far durable, in one call for the whole file system.
    pub fn sync(&self) -> Result<(), String> {
        #[cfg(target_os = "linux")]
        let synced = fs::File::open(&self.0).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
        #[cfg(not(target_os = "linux"))]
        let synced = {
            rustix::fs::sync();
            Ok::<_, std::io::Error>(())
        };
        synced.map_err(|e| format!("`{}`: {e}", self.0.display()))
    }

    /// Replaces the checkpoint. Durable on return.
    pub fn publish(&self, note: &str) -> Result<(), String> {
        write_private(&self.0.join("checkpoint"), note.as_bytes()).map_err(|e| e.to_string())
    }

    /// The checkpoint. `None` if there is none yet.
    pub fn checkpoint(&self) -> Result<Option<String>, String> {
        self.note("checkpoint")
    }

    fn note(&self, name: &str) -> Result<Option<String>, String> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("`{}`: {e}", path.display())),
        }
    }

    /// Replaces the newest checkpoint that the witness with this key id has cosigned. Durable on return.
    pub fn cosigned(&self, id: &str, note: &str) -> Result<(), String> {
        write_private(&self.0.join(format!("cosigned-{id}")), note.as_bytes()).map_err(|e| e.to_string())
    }

    /// The newest checkpoint that the witness with this key id has cosigned. `None` if there is none.
    pub fn read_cosigned(&self, id: &str) -> Result<Option<String>, String> {
        self.note(&format!("cosigned-{id}"))
    }

    /// The right edge of a tree of `size` entries.
    pub fn edge(&self, size: u64) -> Result<Edge, String> {
        let partial = (0..tree::levels(size)).map(|level| {
            let width = tree::width(size, level);
            if width == 0 { Ok(Vec::new()) } else { self.tile(level, size >> (8 * (level + 1)), width) }
        });
        let partial = partial.collect::<Result<Vec<_>, String>>()?;
        Edge::new(size, partial).ok_or_else(|| "the partial tiles do not fit the checkpoint".to_owned())
    }

    /// The entries of a bundle, of which `width` are wanted.
    pub fn bundle(&self, number: u64, width: u64) -> Result<Vec<Vec<u8>>, String> {
        let (bytes, path) = self.read("entries", number, width)?;
        unbundle(&bytes, width).ok_or_else(|| format!("`{}` is damaged", path.display()))
    }

    /// Removes full tiles and bundles whose entries all lie below `minimum`. Those below `before` were removed earlier.
    pub fn prune(&self, before: u64, minimum: u64) -> Result<(), String> {
        let remove = |kind: &str, number: u64| match fs::remove_file(self.path(kind, number, WIDTH)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e.to_string()),
            _ => Ok(()),
        };
        for number in before / WIDTH..minimum / WIDTH {
            remove("entries", number)?;
        }
        for level in 0..tree::levels(minimum) {
            let span = 8 * (level + 1);
            for number in before >> span..minimum >> span {
                remove(&level.to_string(), number)?;
            }
        }
        Ok(())
    }

    fn put(&self, kind: &str, number: u64, width: u64, bytes: &[u8]) -> Result<(), String> {
        let path = self.path(kind, number, width);
        let dir = path.parent().unwrap_or(&self.0);
        super::store::make(dir)?;
        write_unsynced(&path, bytes).map_err(|e| e.to_string())
    }

    fn drop_partial(&self, kind: &str, number: u64) -> Result<(), String> {
        let partial = self.path(kind, number, 1);
        match partial.parent().map(fs::remove_dir_all) {
            Some(Err(e)) if e.kind() != ErrorKind::NotFound => Err(e.to_string()),
            _ => Ok(()),
        }
    }

    /// The bytes of a tile, whole or at least as wide as wanted.
    fn read(&self, kind: &str, number: u64, width: u64) -> Result<(Vec<u8>, PathBuf), String> {
        let partial = self.path(kind, number, width);
        for path in [self.path(kind, number, WIDTH), partial.clone()] {
            match fs::read(&path) {
                Ok(bytes) => return Ok((bytes, path)),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(format!("`{}`: {e}", path.display())),
            }
        }
        Err(format!("`{}` is missing", partial.display()))
    }
}

impl Tiles for Folder {
    fn tile(&self, level: usize, number: u64, width: u64) -> Result<Vec<Hash>, String> {
        let (bytes, path) = self.read(&level.to_string(), number, width)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        let wanted = usize::try_from(width).unwrap_or(usize::MAX);
        match hashes.get(..wanted) {
            Some(hashes) if rest.is_empty() => Ok(hashes.to_vec()),
            _ => Err(format!("`{}` is damaged", path.display())),
        }
    }
}

/// A number in the path of a tile: `x001/x234/067`.
fn numbered(number: u64) -> PathBuf {
    let mut parts = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        parts.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    parts.iter().rev().collect()
}

/// Adds an entry to a bundle: its length in two bytes, then the entry.
pub fn bundle(to: &mut Vec<u8>, entry: &[u8]) {
    // Unwrap safety: sealing an entry bounds its length.
    to.extend_from_slice(&u16::try_from(entry.len()).unwrap_or(u16::MAX).to_be_bytes());
    to.extend_from_slice(entry);
}

fn unbundle(mut bytes: &[u8], width: u64) -> Option<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    for _ in 0..width {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry.to_vec());
        bytes = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::tree::{included, inclusion, leaf_hash};
    use super::*;

    #[test]
    fn paths_are_those_of_the_standard() {
        let folder = Folder::new(Path::new("h"));
        let path = |kind, number, width| folder.path(kind, number, width).display().to_string();
        assert_eq!(path("0", 1_234_067, 256), "h/tile/0/x001/x234/067");
        assert_eq!(path("1", 0, 256), "h/tile/1/000");
        assert_eq!(path("0", 273, 112), "h/tile/0/273.p/112");
        assert_eq!(path("entries", 1000, 256), "h/tile/entries/x001/000");
    }

    fn filled(dir: &Path, size: u64, steps: &[u64]) -> Edge {
        let (folder, mut edge, mut full) = (Folder::new(dir), Edge::default(), Vec::new());
        let (mut entries, mut begun) = (Vec::new(), 0);
        for n in 0..size {
            let entry = format!("entry {n}");
            full.extend(edge.push(leaf_hash(entry.as_bytes())));
            entries.push(entry);
            if steps.contains(&(n + 1)) || n + 1 == size {
                let numbers = begun / WIDTH..=n / WIDTH;
                let bundles = numbers.map(|number| {
                    let mut bytes = Vec::new();
                    let range = number * WIDTH..((number + 1) * WIDTH).min(n + 1);
                    range.for_each(|n| bundle(&mut bytes, entries.get(usize::try_from(n).unwrap()).unwrap().as_bytes()));
                    (number, bytes)
                });
                folder.write(&full, &edge, &bundles.collect::<Vec<_>>()).unwrap();
                full.clear();
                begun = n + 1;
            }
        }
        edge
    }

    #[test]
    fn what_was_written_in_steps_is_read_again_as_one_tree() {
        let dir = tempfile::tempdir().unwrap();
        let edge = filled(dir.path(), 700, &[1, 200, 256, 300, 512]);
        let folder = Folder::new(dir.path());
        assert_eq!(folder.edge(700).unwrap(), edge);
        let path = inclusion(&folder, 300, 700).unwrap();
        assert_eq!(included(leaf_hash(b"entry 300"), 300, 700, &path), Some(edge.root()));
        assert_eq!(folder.bundle(2, 188).unwrap().last().unwrap(), b"entry 699");
        // Partial tiles were replaced by full ones.
        assert!(!folder.path("0", 0, 200).exists() && folder.path("0", 0, 256).exists());
        assert!(folder.edge(701).is_err());
    }

    #[test]
    fn pruned_tiles_are_gone_and_later_entries_are_proved_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let edge = filled(dir.path(), 1000, &[]);
        let folder = Folder::new(dir.path());
        folder.prune(0, 600).unwrap();
        assert!(!folder.path("entries", 1, 256).exists() && folder.path("entries", 2, 256).exists());
        assert!(!folder.path("0", 1, 256).exists() && folder.path("0", 2, 256).exists());
        let path = inclusion(&folder, 700, 1000).unwrap();
        assert_eq!(included(leaf_hash(b"entry 700"), 700, 1000, &path), Some(edge.root()));
        assert!(inclusion(&folder, 3, 1000).is_err(), "the proof of what is gone needs what is gone");
        assert_eq!(folder.edge(1000).unwrap(), edge);
    }
}
