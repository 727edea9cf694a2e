//! The Merkle tree over the leaves (RFC 6962): its right edge as tiles (C2SP tlog-tiles), its root, and proofs.
//!
//! A tile holds 256 hashes of one level of tiles; level 0 has the hashes of the leaves, and each hash of a level above is the root of
//! one full tile below. The tree is held by the hashes of its last, partial tile of each level: a few kilobytes, however large it is.

use mayfly_verify::sha256;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: u64 = 256;

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut bytes = Vec::with_capacity(leaf.len() + 1);
    bytes.push(0);
    bytes.extend_from_slice(leaf);
    sha256(&bytes)
}

/// The hash of a node above two others.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1u8; 65];
    let (head, tail) = bytes.split_at_mut(33);
    head.iter_mut().skip(1).zip(left).for_each(|(to, from)| *to = *from);
    tail.copy_from_slice(right);
    sha256(&bytes)
}

/// A full tile, which never changes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Its level of tiles.
    pub level: usize,
    /// Its number in the level.
    pub number: u64,
    /// 256 hashes.
    pub hashes: Vec<Hash>,
}

/// The right edge of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    // The hashes of the last tile of each level, fewer than 256 of each.
    partial: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves, with the hashes of its partial tiles from the lowest level on. Returns `None` if their
    /// widths do not match the size.
    pub fn new(size: u64, partial: Vec<Vec<Hash>>) -> Option<Edge> {
        let fits = |(level, hashes): (usize, &Vec<Hash>)| u64::try_from(hashes.len()).ok() == Some(width(size, level));
        let levels = levels(size);
        (partial.len() == levels && partial.iter().enumerate().all(fits)).then_some(Edge { size, partial })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The edge as it was when the last tile of leaves was full.
    pub fn of_full_tiles(&self) -> Edge {
        let size = self.size / WIDTH * WIDTH;
        let above = self.partial.iter().skip(1).take(levels(size).saturating_sub(1)).cloned();
        let partial = if size == 0 { Vec::new() } else { std::iter::once(Vec::new()).chain(above).collect() };
        Edge { size, partial }
    }

    /// For each level whose last tile is not full, the hashes of that tile.
    pub fn partial(&self) -> impl Iterator<Item = (usize, u64, &[Hash])> {
        let tile = |(level, hashes): (usize, &'_ Vec<Hash>)| (level, self.size >> (8 * (level + 1)), hashes.len());
        self.partial.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(move |(level, hashes)| {
            let (level, number, _) = tile((level, hashes));
            (level, number, hashes.as_slice())
        })
    }

    /// Adds the hash of a leaf. Returns the tiles that are full now, from the lowest level on.
    pub fn push(&mut self, hash: Hash) -> Vec<Full> {
        let (mut full, mut next) = (Vec::new(), hash);
        self.size += 1;
        for level in 0.. {
            if self.partial.len() == level {
                self.partial.push(Vec::new());
            }
            let Some(hashes) = self.partial.get_mut(level) else { break };
            hashes.push(next);
            if u64::try_from(hashes.len()).unwrap_or(0) < WIDTH {
                break;
            }
            let hashes = std::mem::take(hashes);
            next = root(&hashes);
            full.push(Full { level, number: (self.size >> (8 * (level + 1))) - 1, hashes });
        }
        full
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // From the right: the perfect trees of each partial tile, the smallest first.
        for hashes in &self.partial {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (before, last) = rest.split_at(rest.len() - (1 << rest.len().trailing_zeros()));
                let last = self::root(last);
                root = Some(root.map_or(last, |right| node_hash(&last, &right)));
                rest = before;
            }
        }
        root.unwrap_or_else(|| sha256(&[]))
    }
}

/// Hashes in the last tile of a level if it is not full, in a tree of `size` leaves.
pub fn width(size: u64, level: usize) -> u64 {
    (size >> (8 * level)) % WIDTH
}

/// Levels of tiles of a tree of `size` leaves.
pub fn levels(size: u64) -> usize {
    let mut levels = 0;
    while size >> (8 * levels) > 0 {
        levels += 1;
    }
    levels
}

/// The root over some hashes of one level.
pub fn root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => sha256(&[]),
        [one] => *one,
        _ => {
            let half = hashes.len().next_power_of_two() / 2;
            let (left, right) = hashes.split_at(half);
            node_hash(&root(left), &root(right))
        }
    }
}

/// Reads one tile: its level, its number, and how many of its hashes are wanted.
pub trait Tiles {
    /// The first `width` hashes of a tile.
    fn tile(&self, level: usize, number: u64, width: u64) -> Result<Vec<Hash>, String>;
}

/// The root of the leaves from `from` to `to` in a tree of `size` leaves; `from` is a multiple of the largest power of two that is
/// not above their number.
pub fn subtree(tiles: &dyn Tiles, size: u64, from: u64, to: u64) -> Result<Hash, String> {
    let count = to - from;
    if count == 0 {
        return Ok(sha256(&[]));
    }
    if !count.is_power_of_two() {
        let half = count.next_power_of_two() / 2;
        let (left, right) = (subtree(tiles, size, from, from + half)?, subtree(tiles, size, from + half, to)?);
        return Ok(node_hash(&left, &right));
    }
    // A perfect tree: a power of two of hashes of one level of tiles.
    let bits = count.trailing_zeros();
    let level = usize::try_from(bits / 8).unwrap_or(0);
    let (first, many) = (from >> (8 * level), 1u64 << (bits % 8));
    let (number, within) = (first / WIDTH, first % WIDTH);
    let wide = ((size >> (8 * level)) - number * WIDTH).min(WIDTH);
    let hashes = tiles.tile(level, number, wide)?;
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let some = hashes.get(at(within)..at(within + many)).ok_or_else(|| format!("tile {level}/{number} is too short"))?;
    Ok(root(some))
}

/// The inclusion proof of a leaf in a tree of `size` leaves (RFC 6962, 2.1.1).
pub fn inclusion(tiles: &dyn Tiles, index: u64, size: u64) -> Result<Vec<Hash>, String> {
    if index >= size {
        return Err(format!("entry {index} is not below a checkpoint of {size} entries"));
    }
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let half = from + (to - from).next_power_of_two() / 2;
        if index < half {
            path.push(subtree(tiles, size, half, to)?);
            to = half;
        } else {
            path.push(subtree(tiles, size, from, half)?);
            from = half;
        }
    }
    path.reverse();
    Ok(path)
}

/// The consistency proof between a tree of `old` leaves and one of `size` (RFC 6962, 2.1.2). It is empty where one of them says nothing of the
/// other: for none, and for all.
pub fn consistency(tiles: &dyn Tiles, old: u64, size: u64) -> Result<Vec<Hash>, String> {
    if old > size {
        return Err(format!("{old} entries are more than the {size} of the checkpoint"));
    }
    let (mut from, mut to, mut path, mut whole) = (0, size, Vec::new(), true);
    while old > 0 && old < to {
        let half = from + (to - from).next_power_of_two() / 2;
        if old <= half {
            path.push(subtree(tiles, size, half, to)?);
            to = half;
        } else {
            path.push(subtree(tiles, size, from, half)?);
            (from, whole) = (half, false);
        }
    }
    if old > 0 && !whole {
        path.push(subtree(tiles, size, from, to)?);
    }
    path.reverse();
    Ok(path)
}

/// The root that an inclusion proof leads to. Returns `None` if its length does not fit the index.
pub fn included(hash: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let (mut from, mut to, mut sides) = (0, size, Vec::new());
    if index >= size {
        return None;
    }
    while to - from > 1 {
        let half = from + (to - from).next_power_of_two() / 2;
        sides.push(index < half);
        (from, to) = if index < half { (from, half) } else { (half, to) };
    }
    if sides.len() != path.len() {
        return None;
    }
    let steps = sides.into_iter().rev().zip(path);
    Some(steps.fold(hash, |below, (left, beside)| if left { node_hash(&below, beside) } else { node_hash(beside, &below) }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::collections::HashMap;

    use super::*;

    fn leaf(n: u64) -> Hash {
        leaf_hash(&n.to_be_bytes())
    }

    /// The definition of RFC 6962.
    fn by_definition(hashes: &[Hash]) -> Hash {
        match hashes.len() {
            0 => sha256(&[]),
            1 => hashes[0],
            n => {
                let mut k = 1;
                while k * 2 < n {
                    k *= 2;
                }
                node_hash(&by_definition(&hashes[..k]), &by_definition(&hashes[k..]))
            }
        }
    }

    struct Held(HashMap<(usize, u64), Vec<Hash>>);

    impl Tiles for Held {
        fn tile(&self, level: usize, number: u64, width: u64) -> Result<Vec<Hash>, String> {
            let tile = self.0.get(&(level, number)).ok_or(format!("no tile {level}/{number}"))?;
            Ok(tile[..usize::try_from(width).unwrap()].to_vec())
        }
    }

    fn held(size: u64) -> (Edge, Held) {
        let (mut edge, mut tiles) = (Edge::default(), HashMap::new());
        for n in 0..size {
            for full in edge.push(leaf(n)) {
                tiles.insert((full.level, full.number), full.hashes);
            }
        }
        for (level, number, hashes) in edge.partial() {
            tiles.insert((level, number), hashes.to_vec());
        }
        (edge, Held(tiles))
    }

    #[test]
    fn the_root_is_that_of_the_definition_at_every_size() {
        let hashes: Vec<Hash> = (0..600).map(leaf).collect();
        let mut edge = Edge::default();
        assert_eq!(edge.root(), by_definition(&[]));
        for n in 0..600 {
            edge.push(hashes[n]);
            assert_eq!(edge.root(), by_definition(&hashes[..=n]), "{n}");
            let again = Edge::new(edge.size(), edge.partial.clone());
            assert_eq!(again.as_ref(), Some(&edge));
        }
        assert_eq!(Edge::new(601, edge.partial.clone()), None);
    }

    #[test]
    fn the_tiles_are_those_of_the_example_of_the_standard() {
        // 70,000: 273 full tiles at level 0 and one of 112, one full tile at level 1 and one of 17, one of 1 at level 2.
        let (edge, Held(tiles)) = held(70_000);
        let of = |level| tiles.keys().filter(move |(l, _)| *l == level).count();
        assert_eq!([of(0), of(1), of(2)], [274, 2, 1]);
        let partial: Vec<_> = edge.partial().map(|(level, number, hashes)| (level, number, hashes.len())).collect();
        assert_eq!(partial, [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
        assert_eq!((width(70_000, 0), width(70_000, 1), width(70_000, 2), levels(70_000)), (112, 17, 1, 3));
    }

    #[test]
    fn every_leaf_is_proved_and_another_leaf_or_place_is_not() {
        for size in [1, 2, 3, 7, 8, 255, 256, 257, 700] {
            let (edge, tiles) = held(size);
            let root = edge.root();
            assert_eq!(subtree(&tiles, size, 0, size), Ok(root), "{size}");
            for index in (0..size).step_by(if size > 300 { 13 } else { 1 }) {
                let path = inclusion(&tiles, index, size).unwrap();
                assert_eq!(included(leaf(index), index, size, &path), Some(root), "{index} of {size}");
                assert_ne!(included(leaf(index + 1), index, size, &path), Some(root));
                if let Some(other) = (index + 1 < size).then_some(index + 1) {
                    assert_ne!(included(leaf(index), other, size, &path), Some(root));
                }
            }
            assert!(inclusion(&tiles, size, size).is_err());
        }
    }

    /// RFC 9162, 2.1.4.2: whether a proof leads from the one root to the other.
    fn is_consistent(old: u64, size: u64, (first, second): (Hash, Hash), path: &[Hash]) -> bool {
        if old == size {
            return first == second && path.is_empty();
        }
        let mut path: Vec<Hash> = path.to_vec();
        if old.is_power_of_two() {
            path.insert(0, first);
        }
        let (mut fn_, mut sn) = (old - 1, size - 1);
        while fn_ & 1 == 1 {
            (fn_, sn) = (fn_ >> 1, sn >> 1);
        }
        let Some((seed, rest)) = path.split_first() else { return false };
        let (mut fr, mut sr) = (*seed, *seed);
        for hash in rest {
            if sn == 0 {
                return false;
            }
            if fn_ & 1 == 1 || fn_ == sn {
                (fr, sr) = (node_hash(hash, &fr), node_hash(hash, &sr));
                while fn_ & 1 == 0 && fn_ != 0 {
                    (fn_, sn) = (fn_ >> 1, sn >> 1);
                }
            } else {
                sr = node_hash(&sr, hash);
            }
            (fn_, sn) = (fn_ >> 1, sn >> 1);
        }
        fr == first && sr == second && sn == 0
    }

    #[test]
    fn a_consistency_proof_leads_from_each_tree_to_each_later_one_and_to_no_other() {
        struct Flat(Vec<Hash>);
        impl Tiles for Flat {
            fn tile(&self, level: usize, number: u64, width: u64) -> Result<Vec<Hash>, String> {
                assert_eq!((level, number), (0, 0), "small trees have one tile");
                Ok(self.0[..usize::try_from(width).unwrap()].to_vec())
            }
        }
        let leaves: Vec<Hash> = (0..40).map(leaf).collect();
        for size in 1..=40u64 {
            let tiles = Flat(leaves.clone());
            for old in 1..=size {
                let at = |n: u64| root(&leaves[..usize::try_from(n).unwrap()]);
                let proof = consistency(&tiles, old, size).unwrap();
                assert!(is_consistent(old, size, (at(old), at(size)), &proof), "{old} to {size}");
                assert!(old == size || !is_consistent(old, size, ([9; 32], at(size)), &proof), "{old} to {size}: another past");
            }
            assert!(consistency(&tiles, 0, size).unwrap().is_empty() && consistency(&tiles, size + 1, size).is_err());
        }
    }
}
