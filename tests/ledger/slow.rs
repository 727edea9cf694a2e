//! A journal whose syncs take long: what waits for one shares the next, and revocations go before everything else in it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mayfly::ledger::{InLane, Lane, Pending};
use mayfly_verify::Target;

use super::asks::{Ask, Outcome, Proposal, commit};
use super::{House, operator, user};

/// Acts that wait for the first sync.
const ACTS: usize = 48;

#[test]
fn t235_what_waits_for_a_sync_shares_the_next_one_and_revocations_go_first() {
    let house = House::new();
    house.spawn("demo", 1).map(drop).unwrap();
    let disk = &house.disk;
    let before = disk.syncs.load(Ordering::SeqCst);
    disk.hangs.store(true, Ordering::SeqCst);
    let wait_for = |groups: usize| {
        while house.ledger.waiting() < groups {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let spawn = || {
        let ask = Ask { caller: house.caller.clone(), proposal: house.spawning(house.proof("demo", 1), None) };
        match commit(&house.ledger, vec![ask]).pop().unwrap().unwrap() {
            Outcome::Spawned(admission, _) => admission.binding().revision,
            other => panic!("{other:?}"),
        }
    };
    let (spawned, revoked) = std::thread::scope(|scope| {
        // The first of them is in the sync under way.
        let spawns: Vec<_> = (0..=ACTS).map(|_| scope.spawn(spawn)).collect();
        wait_for(ACTS);
        let revoke = scope.spawn(|| {
            let target = Target::User(user("nobody"));
            let revoke = Proposal::Revoke { target, since: None, dry: false, reason: String::new(), allow_new: true };
            let pending = Pending::new(operator(), revoke, mayfly::pipeline::chance().unwrap());
            match house.ledger.commit(InLane(Lane::Revocation, vec![pending])).1.pop().unwrap().take().unwrap().spend() {
                Outcome::Revoked { revision, .. } => revision,
                other => panic!("{other:?}"),
            }
        });
        wait_for(ACTS + 1);
        disk.hangs.store(false, Ordering::SeqCst);
        (spawns.into_iter().map(|spawn| spawn.join().unwrap()).collect::<Vec<_>>(), revoke.join().unwrap())
    });
    assert_eq!(disk.syncs.load(Ordering::SeqCst) - before, 2, "the one under way, and one for all that waited");
    assert_eq!(
        spawned.iter().filter(|spawned| **spawned < revoked).count(),
        1,
        "{revoked} goes before all that waited: {spawned:?}"
    );
    house.check();
}
