//! Leases that end later than they did: by whom, until when, and that everything that revokes an agent still reaches it until then.

use mayfly::caller::Caller;
use mayfly::clock::SECOND;
use mayfly::judge::{Admission, Proof};
use mayfly::state::Standing;
use mayfly_verify::Target;

use super::asks::{Outcome, Proposal};
use super::{House, caller_of, code, operator, user};

/// Renews and uses the new certificate, as a program does that lives.
fn go_on(house: &House, agent: &Admission) -> Admission {
    let next = house.renew(&caller_of(agent, house.revision())).unwrap();
    assert_eq!(code(house.ask(caller_of(&next, house.revision()), Proposal::Present)), "ok");
    next
}

fn extend(house: &House, caller: Caller, proof: Proof, lease: u64) -> Result<u64, &'static str> {
    match house.ask(caller, Proposal::Extend { proof, lease }) {
        Ok(Outcome::Extended { lease_ends_at, .. }) => Ok(lease_ends_at),
        other => Err(code(other)),
    }
}

/// A token of a user, issued now, that ends in so many seconds.
fn fresh(house: &House, sub: &str, n: u8, life: u64) -> Proof {
    let mut proof = house.proof(sub, n);
    if let Proof::Token { ends_at, .. } = &mut proof {
        *ends_at = house.seconds() + life;
    }
    proof
}

/// Lives for so many steps of ten minutes, extended every half hour.
fn live(house: &House, mut agent: Admission, steps: u64) -> Admission {
    for step in 1..=steps {
        house.pass(600);
        if step % 3 == 0 {
            let n = u8::try_from(100 + step).unwrap();
            extend(house, caller_of(&agent, house.revision()), fresh(house, "demo", n, 3600), 0).unwrap();
        }
        agent = go_on(house, &agent);
    }
    house.check();
    agent
}

#[test]
fn t163_a_lease_ends_no_later_than_token_class_and_parent_allow() {
    let house = House::new();
    let agent = house.admitted("demo", 1);
    let me = || caller_of(&agent, house.revision());
    let (lease, began) = (agent.agent().lease_ends_at, house.seconds());
    assert_eq!(lease, began + 3600, "that of the token");
    house.pass(600);
    // Not by another user, by a token that ends sooner, by one for other workloads, nor by more than it allows.
    assert_eq!(extend(&house, me(), fresh(&house, "guest", 2, 7200), 0), Err("USER_DIFFERS"));
    assert_eq!(extend(&house, me(), fresh(&house, "demo", 3, 60), 0), Err("LEASE_NOT_EXTENDED"));
    assert_eq!(extend(&house, me(), fresh(&house, "demo", 4, 7200), 7201), Err("EXCEEDS_AUTHORITY"));
    let mut other = fresh(&house, "demo", 5, 7200);
    if let Proof::Token { audience, .. } = &mut other {
        *audience = "another".into();
    }
    assert_eq!(extend(&house, me(), other, 0), Err("USER_TOKEN_AUDIENCE"));
    let mut narrow = fresh(&house, "demo", 6, 7200);
    if let Proof::Token { audience, .. } = &mut narrow {
        *audience = "limited".into();
    }
    assert_eq!(extend(&house, me(), narrow, 0), Err("EXCEEDS_AUTHORITY"));
    assert_eq!(extend(&house, house.caller.clone(), fresh(&house, "demo", 7, 7200), 0), Err("ROLE_NOT_ALLOWED"));
    assert_eq!(house.ledger.read(|state| state.agent(&agent.id().uuid).unwrap().lease_ends_at), lease);
    // By as much as is asked for, then by as much as there is; the same token once more changes nothing.
    assert_eq!(extend(&house, me(), fresh(&house, "demo", 8, 7200), 3600), Ok(house.seconds() + 3600));
    let token = fresh(&house, "demo", 9, 7200);
    let most = house.seconds() + 7200;
    assert_eq!(extend(&house, me(), token.clone(), 0), Ok(most));
    let before = house.revision();
    assert_eq!(extend(&house, me(), token, 0), Ok(most));
    assert_eq!(house.revision(), before, "nothing new is recorded");
    // A child lives no longer than its parent, and a class gives a day from the admission, whatever tokens say.
    let child = house.child(me(), "worker").unwrap();
    assert!(child.agent().lease_ends_at <= most);
    house.pass(200);
    let below = caller_of(&child, house.revision());
    assert_eq!(extend(&house, below, fresh(&house, "demo", 10, 86_400), 0), Err("LEASE_NOT_EXTENDED"), "its class: an hour");
    assert_eq!(extend(&house, me(), fresh(&house, "demo", 11, 2 * 86_400), 0), Ok(began + 24 * 3600));
    house.check();
}

#[test]
fn t163_whatever_revokes_an_agent_reaches_it_until_its_new_end_long_after_its_first_token() {
    for how in ["delegation", "user", "agent", "workload", "class", "everything"] {
        let house = House::new();
        let agent = house.admitted("demo", 1);
        let delegation = agent.binding().delegation.unwrap();
        // Four hours: the first token ended three hours ago, and what is over is forgotten after an hour.
        let agent = live(&house, agent, 24);
        let known = house.ledger.read(|state| mayfly::state::View::known_delegation(state, &delegation).is_some());
        assert!(known && house.standing(&agent) == Standing::Live, "{how}");
        let target = match how {
            "delegation" => Target::Delegation(delegation),
            "user" => Target::User(user("demo")),
            "agent" => Target::Agent(agent.id().uuid),
            "workload" => Target::Workload("orchestrator".parse().unwrap()),
            "class" => Target::Class("researcher".parse().unwrap()),
            _ => Target::TrustDomain,
        };
        let revoke = Proposal::Revoke { target, since: None, dry: false, reason: String::new(), allow_new: true };
        house.ask(operator(), revoke).unwrap();
        let me = caller_of(&agent, house.revision());
        let proof = fresh(&house, "demo", 200, 3600);
        assert!(extend(&house, me.clone(), proof, 0).is_err(), "{how}: nothing revives it");
        // Each record lets time take effect: it is never alive again, in the state and by the rows that are left.
        for _ in 0..12 {
            house.pass(600);
            house.ask(operator(), Proposal::Ticket { workload: "other".parse().unwrap(), hash: house.key(), ttl: 60 }).unwrap();
            house.check();
            let now = house.seconds() * SECOND;
            let standing = house.ledger.read(|state| state.agent(&agent.id().uuid).map(|agent| state.standing(agent, now)));
            assert!(standing.is_none_or(|standing| standing != Standing::Live), "{how}");
            assert_ne!(house.mint(&me), "ok", "{how}");
        }
    }
}

#[test]
fn t163_an_extended_agent_is_forgotten_with_its_delegation_when_its_time_has_come() {
    let house = House::new();
    let agent = house.admitted("demo", 1);
    let delegation = agent.binding().delegation.unwrap();
    let agent = live(&house, agent, 12);
    let known = || {
        house.ledger.read(|state| {
            let agent = state.agent(&agent.id().uuid).is_some();
            (agent, mayfly::state::View::known_delegation(state, &delegation).is_some())
        })
    };
    for _ in 0..4 {
        assert!(known().0 <= known().1, "an agent is never known without its delegation");
        house.pass(3600);
        house.ask(operator(), Proposal::Ticket { workload: "other".parse().unwrap(), hash: house.key(), ttl: 60 }).unwrap();
        house.check();
    }
    assert_eq!(known(), (false, false));
}
