//! Finds the smallest sets of changes that turn a denial into a permit. Each set is proved by judging again with it.

use std::collections::BTreeSet;

/// Most changes in one set.
pub const MOST: usize = 3;

/// The sets that turn a denial into a permit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turning {
    /// Sets of indices of changes, sorted; the smaller ones first. None of them contains another.
    pub sets: Vec<Vec<usize>>,
    /// Whether every set of at most [`MOST`] changes that could change the answer was judged.
    pub complete: bool,
}

/// Finds every set of at most [`MOST`] of `count` changes that turns the denial `first` into a permit, if no proper subset of it
/// does.
///
/// `matters` says whether a change can affect a denial. It may return `true` too often, but never `false` wrongly. With each proper
/// subset of a smallest set there is still a denial, and some further change of the set must affect that denial. So a search that
/// only adds changes that matter reaches every smallest set. `judge` judges with a set of changes; at most `budget` sets are
/// judged.
pub fn smallest<D>(
    count: usize,
    first: D,
    budget: usize,
    matters: impl Fn(usize, &D) -> bool,
    mut judge: impl FnMut(&[usize]) -> Result<(), D>,
) -> Turning {
    let mut turning = Turning { sets: Vec::new(), complete: true };
    let mut denied = vec![(Vec::new(), first)];
    let mut judged = 0;
    for _ in 0..MOST {
        let mut tried = BTreeSet::new();
        let mut next = Vec::new();
        for (set, denial) in &denied {
            for change in (0..count).filter(|change| !set.contains(change) && matters(*change, denial)) {
                let mut wider = set.clone();
                wider.push(change);
                wider.sort_unstable();
                let turned = |smaller: &Vec<usize>| smaller.iter().all(|change| wider.contains(change));
                if turning.sets.iter().any(turned) || !tried.insert(wider.clone()) {
                    continue;
                }
                if judged == budget {
                    turning.complete = false;
                    return turning;
                }
                judged += 1;
                match judge(&wider) {
                    Ok(()) => turning.sets.push(wider),
                    Err(denial) => next.push((wider, denial)),
                }
            }
        }
        denied = next;
    }
    turning
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_found_whole_and_never_with_something_that_does_not_help() {
        // The answer changes with 1 and 3 together, or with 4.
        let judge = |set: &[usize]| if set.contains(&4) || [1, 3].iter().all(|n| set.contains(n)) { Ok(()) } else { Err(()) };
        let found = smallest(5, (), 1000, |_, ()| true, judge);
        assert_eq!(found, Turning { sets: vec![vec![4], vec![1, 3]], complete: true });
        let short = smallest(5, (), 3, |_, ()| true, judge);
        assert!(!short.complete && short.sets.is_empty(), "a search that was cut short says so");
    }
}
