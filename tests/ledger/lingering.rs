//! Authority that must not linger: past certificates, and providers that are gone.

use mayfly_verify::Target;

use super::asks::Proposal;
use super::{House, caller_of, code, open_by, operator, rules};

/// T108: a thief connects after the certificate was replaced, keeps silent until the next renewal was used, and calls then.
#[test]
fn t108_a_silent_connection_is_judged_by_what_its_certificate_was_when_it_was_opened() {
    let house = House::new();
    let first = house.admitted("demo", 1);
    let honest = caller_of(&first, house.revision());
    let second = house.renew(&honest).unwrap();
    let present = |caller| code(house.ask(caller, Proposal::Present));
    assert_eq!(present(caller_of(&second, house.revision())), "ok", "the renewed certificate is used");
    // Opened now, with the first certificate, and silent.
    let silent = caller_of(&first, house.revision());
    let third = house.renew(&caller_of(&second, house.revision())).unwrap();
    assert_eq!(present(caller_of(&third, house.revision())), "ok");
    // A pooled connection from before the first renewal finishes what it has begun, and gets nothing new.
    assert_eq!(present(honest.clone()), "ok");
    assert_eq!(house.mint(&honest), "GENERATION_PAST");
    assert_eq!(house.child(honest.clone(), "worker").unwrap_err(), "GENERATION_PAST");
    assert_eq!(house.renew(&honest).unwrap_err(), "GENERATION_PAST");
    assert_eq!(house.mint(&caller_of(&third, house.revision())), "ok");
    house.check();
    assert_eq!(present(silent), "CREDENTIAL_REUSED");
    assert_eq!(present(caller_of(&third, house.revision())), "AGENT_REVOKED", "nobody can tell who of them is the thief");
    house.check();
}

/// T109: a provider that left the configuration proves nothing more, and what it has proved ends.
#[test]
fn t109_a_provider_that_is_gone_lets_nobody_act() {
    let house = House::new();
    let parent = house.admitted("demo", 1);
    let delegation = parent.binding().delegation.unwrap();
    let (mut fewer, now) = (rules(vec![], &[], 10_000), house.now.clone());
    fewer.issuers.clear();
    let (ledger, _) = open_by(&house.disk, &now, fewer);
    let ask = |caller, proposal| {
        let ask = super::asks::Ask { caller, proposal };
        code(super::asks::commit(&ledger, vec![ask]).pop().unwrap())
    };
    let gone = "USER_TOKEN_ISSUER_UNKNOWN";
    let as_parent = || caller_of(&parent, house.revision());
    let under = |proof| house.spawning(proof, None);
    assert_eq!(ask(house.caller.clone(), under(mayfly::judge::Proof::Recorded([1; 32]))), gone);
    assert_eq!(ask(house.caller.clone(), under(mayfly::judge::Proof::Delegation(delegation))), gone);
    let mint = Proposal::Mint { audiences: vec!["https://search.example".into()], request: None, for_agent: None };
    assert_eq!(ask(as_parent(), mint), gone);
    assert_eq!(ask(as_parent(), Proposal::Renew { key: [55; 32] }), gone);
    let mut child = under(house.proof("demo", 1));
    if let Proposal::Spawn(spawn) = &mut child {
        (spawn.class, spawn.proof) = ("worker".parse().unwrap(), None);
    }
    assert_eq!(ask(as_parent(), child), gone);
    // It can still be revoked, and end.
    let target = Target::Delegation(delegation);
    let revoke = Proposal::Revoke { target, since: None, dry: false, reason: String::new(), allow_new: false };
    assert_eq!(ask(operator(), revoke), "ok");
}
