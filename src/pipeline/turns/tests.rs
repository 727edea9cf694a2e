//! The rules of turns, also under random loads.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashMap;

use super::*;

const SLICE: usize = 64;

fn turn(root: u64, part: u64) -> Turn {
    Turn { root: root + 10, part }
}

fn all<T>(turns: &mut Turns<T>) -> Vec<T> {
    std::iter::from_fn(|| turns.pop(usize::MAX)).map(|(_, item)| item).collect()
}

/// A generator of pseudo-random numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn t98_a_lone_caller_waits_for_one_turn_of_each_other_and_not_for_their_queues() {
    let mut turns = Turns::default();
    (0..4000).for_each(|_| turns.push(STRANGERS, 1, "flood"));
    (0..4000).for_each(|n| turns.push(turn(1, n), 1, "flood"));
    turns.push(turn(2, 0), 1, "lone");
    let before = all(&mut turns).iter().position(|item| *item == "lone").unwrap();
    assert!(before <= 2 * QUANTUM, "{before} went before");
}

#[test]
fn t98_a_root_with_many_users_has_no_more_turns_than_one_with_few() {
    let mut turns = Turns::default();
    (0..1000).for_each(|n| turns.push(turn(1, n), 1, 1));
    (0..1000).for_each(|_| turns.push(turn(2, 0), 1, 2));
    let first: Vec<i32> = all(&mut turns).into_iter().take(200).collect();
    let of_two = first.iter().filter(|root| **root == 2).count();
    assert!((90..=110).contains(&of_two), "{of_two}");
}

#[test]
fn t98_users_of_one_root_take_turns() {
    let mut turns = Turns::default();
    (0..4000).for_each(|_| turns.push(turn(1, 1), 1, "flood"));
    turns.push(turn(1, 2), 1, "lone");
    assert!(all(&mut turns).iter().position(|item| *item == "lone").unwrap() <= QUANTUM);
}

#[test]
fn operators_go_first() {
    let mut turns = Turns::default();
    (0..100).for_each(|n| turns.push(turn(n, 0), 1, "others"));
    (0..3).for_each(|_| turns.push(OPERATORS, 1, "operator"));
    assert_eq!(all(&mut turns)[..3], ["operator"; 3]);
}

#[test]
fn t98_others_get_in_between_the_slices_of_a_batch() {
    let mut turns = Turns::default();
    (0..16).for_each(|_| turns.push(turn(1, 1), SLICE, "slice"));
    (0..64).for_each(|_| turns.push(turn(1, 2), 1, "single"));
    let order = all(&mut turns);
    // As many acts as a slice has go before each slice, as long as there are some.
    assert_eq!(order.iter().take(QUANTUM).filter(|item| **item == "single").count(), QUANTUM);
    assert!(order.iter().take(SLICE + 2).filter(|item| **item == "slice").count() <= 2);
}

#[test]
fn what_costs_more_than_is_left_stays_at_its_place() {
    let mut turns = Turns::default();
    turns.push(turn(1, 0), SLICE, "slice");
    assert_eq!((turns.pop(SLICE - 1), turns.len()), (None, 1));
    assert_eq!((turns.pop(SLICE), turns.len()), (Some((SLICE, "slice")), 0));
    assert_eq!(turns.pop(usize::MAX), None);
}

#[test]
fn under_any_load_everybody_gets_their_share_in_order_and_nothing_is_kept_of_who_left() {
    let mut numbers = Numbers(7);
    for _ in 0..200 {
        let mut turns = Turns::default();
        let (mut pushed, mut taken): (HashMap<Turn, usize>, HashMap<Turn, usize>) = Default::default();
        let mut served: HashMap<u64, usize> = HashMap::new();
        let roots = 1 + numbers.below(6);
        // Every root has more than enough from the start, and more comes while it is taken.
        let mut push = |turns: &mut Turns<(Turn, usize)>, numbers: &mut Numbers, root: u64| {
            let turn = turn(root, numbers.below(3));
            let n = pushed.entry(turn).or_default();
            let cost = if numbers.below(8) == 0 { SLICE } else { 1 };
            turns.push(turn, cost, (turn, *n));
            *n += 1;
        };
        (0..roots).for_each(|root| (0..300).for_each(|_| push(&mut turns, &mut numbers, root)));
        for _ in 0..250 {
            let root = numbers.below(roots);
            push(&mut turns, &mut numbers, root);
            let (cost, (turn, n)) = turns.pop(usize::MAX).unwrap();
            let expected = taken.entry(turn).or_default();
            assert_eq!(n, *expected, "in order");
            *expected += 1;
            *served.entry(turn.root).or_default() += cost;
            // While all have items waiting, none is ahead of another by more than one slice and a turn.
            let of = |root: u64| served.get(&(root + 10)).copied().unwrap_or(0);
            let (least, most) = ((0..roots).map(of).min().unwrap(), (0..roots).map(of).max().unwrap());
            assert!(most - least <= 2 * (SLICE + QUANTUM), "{served:?}");
        }
        let left = turns.len();
        assert_eq!(all(&mut turns).len(), left);
        assert!(turns.roots.shares.is_empty() && turns.roots.order.is_empty());
    }
}
