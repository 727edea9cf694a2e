//! Which sets are refused, and that evaluating a part of a set gives the same answer as the whole set.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use cedar_policy::{Authorizer, PolicySet};
use proptest::prelude::*;

use super::cases::Cases;
use super::set::schema;
use super::*;

fn set(text: &str) -> Result<Policies, Vec<String>> {
    Policies::of_texts(vec![("a.cedar".into(), text.into())])
}

fn policy(id: &str, rest: &str) -> String {
    format!("@id(\"{id}\") @owner(\"o\") @reason(\"r\")\n{rest}\n")
}

fn fault(text: &str) -> String {
    set(text).unwrap_err().join("\n")
}

fn spawn<'a>(scopes: &'a [String]) -> Ask<'a> {
    Ask {
        action: Action::Spawn,
        principal: Principal::Workload("orchestrator"),
        resource: Resource::Class("researcher", "team"),
        facts: Facts { at: 1_800_000_000, depth: 1, scopes, ..Facts::default() },
    }
}

#[test]
fn every_question_fits_the_schema() {
    let set = set(&policy("p", "forbid(principal, action, resource) when { context.depth > 99 };")).unwrap();
    let user = UserFacts { provider: "dev", sub: "demo", groups: &[] };
    let agent = AgentFacts {
        id: "spiffe://t/agent/worker/2",
        class: "worker",
        root: "orchestrator",
        ancestors: vec!["spiffe://t/agent/researcher/1".into()],
        depth: 2,
    };
    let (names, live) = (vec!["a".to_owned()], Live { user: 1, root: 2, class: 3, siblings: 4 });
    let facts = Facts {
        at: 1_800_000_000,
        user: Some(user),
        depth: 2,
        scopes: &names,
        audiences: &names,
        lease: 60,
        live,
        left: Some(3),
        budget: [Some(4), None, Some(5)],
        acr: Some("2"),
        sign_in_age: Some(9),
        first_use: Some(true),
    };
    let (class, audience, other) = (Resource::Class("worker", "team"), Resource::Audience("https://a"), Resource::Agent("x"));
    for (action, principal, resource) in [
        (Action::Spawn, Principal::Workload("orchestrator"), class),
        (Action::Spawn, Principal::Agent(agent.clone()), class),
        (Action::Mint, Principal::Agent(agent.clone()), audience),
        (Action::Exchange, Principal::Agent(agent.clone()), audience),
        (Action::Renew, Principal::Agent(agent.clone()), class),
        (Action::Extend, Principal::Agent(agent.clone()), class),
        (Action::Approve, Principal::User(user), class),
        (Action::Revoke, Principal::User(user), other),
        (Action::Revoke, Principal::Agent(agent.clone()), other),
        (Action::Revoke, Principal::Workload("orchestrator"), other),
    ] {
        for facts in [facts.clone(), Facts::default()] {
            let ask = Ask { action, principal: principal.clone(), resource, facts };
            assert!(set.decide_checked(&ask).unwrap().allowed, "{action:?}");
        }
    }
    // A question that does not conform to the schema is an error.
    let ask = Ask { action: Action::Mint, principal: Principal::Workload("w"), resource: class, facts };
    assert!(set.decide_checked(&ask).is_err());
}

#[test]
fn t176_a_policy_says_whose_it_is_or_the_whole_set_is_refused() {
    let text = "// first\n@id(\"a\") @reason(\"r\")\nforbid(principal, action, resource);\n";
    assert_eq!(fault(text), "a.cedar:2: the policy has no `@owner(\"…\")`: say who answers for it");
    assert!(fault(&text.replace("@id(\"a\")", "@id(\"a\") @owner(\"  \")")).contains("@owner"));
    assert!(fault("permit(principal, action, resource);").contains("@id"), "every annotation that is missing is told");
    let twice = policy("a", "forbid(principal, action, resource);").repeat(2);
    assert!(fault(&twice).contains("a.cedar:3: `a` is already the id of a policy in a.cedar"), "{}", fault(&twice));
    for (rest, part) in [
        ("forbid(principal, action, resource) when { context.dept > 2 };", "dept"),
        ("forbid(principal, action, resource) when { context.acr == \"2\" };", "acr"),
        ("forbid(principal, action == Action::\"spwan\", resource);", "spwan"),
        ("forbid(principal is Audience, action, resource);", "impossible"),
        ("forbid(principal, action == Action::\"approve\", resource);", "approve"),
        ("forbid(principal is Agent, action == Action::\"mint\", resource) when { principal.class.owner == \"x\" };", "level"),
        ("forbid(principal == ?principal, action, resource);", "template"),
        ("forbid(principal, action, resource)", ""),
        ("forbid(principal, action, resource) when { \"a\" == 1 };", ""),
    ] {
        let told = fault(&policy("p", rest));
        assert!(told.contains(part) && told.contains("a.cedar:1"), "{rest}: {told}");
    }
    let dated = policy("p", "forbid(principal, action, resource);").replace("@owner", "@review(\"soon\") @owner");
    assert!(fault(&dated).contains("2027-01-31"));
    let review = set(&dated.replace("soon", "2026-02-03")).unwrap();
    assert_eq!(review.notes("2026-02-02", |_, _| true).len(), 0);
    assert!(review.notes("2026-02-03", |_, _| true)[0].contains("due for a review"));
    let unknown = set(&policy("p", "forbid(principal, action, resource == Class::\"reseacher\");")).unwrap();
    assert!(unknown.notes("", |kind, name| (kind, name) == ("class", "researcher"))[0].contains("`reseacher`"));
}

#[test]
fn t175_a_policy_that_cannot_be_evaluated_is_a_no() {
    let overflow = "when { context.time.unix * 9223372036854775807 > 0 };";
    for effect in ["forbid", "permit"] {
        let text = policy("broken", &format!("{effect}(principal, action, resource) {overflow}"));
        let both = text + &policy("open", "permit(principal, action, resource);");
        let decision = set(&both).unwrap().decide(&spawn(&[]));
        assert!(!decision.allowed && decision.failed == [0], "{effect}: {decision:?}");
    }
}

#[test]
fn what_no_policy_forbids_is_permitted_unless_the_set_says_otherwise() {
    let forbids = policy("f", "forbid(principal, action == Action::\"spawn\", resource == Class::\"worker\");");
    let permits = policy("p", "permit(principal, action == Action::\"spawn\", resource);");
    let of = |toml: &str, text: &str| Policies::of_texts(vec![("a.cedar".into(), text.into()), (SET.into(), toml.into())]);
    let deny = "default = \"deny\"\nowner = \"security\"\nreason = \"listed\"";
    let worker = Ask { resource: Resource::Class("worker", ""), ..spawn(&[]) };
    let renew = Ask { action: Action::Renew, principal: Principal::Agent(AgentFacts::default()), ..spawn(&[]) };
    let allowed = |toml: &str, text: &str| {
        let set = of(toml, text).unwrap();
        [&spawn(&[]), &worker, &renew].map(|ask| set.decide(ask).allowed)
    };
    let both = format!("{forbids}{permits}");
    assert_eq!(allowed("default = \"permit\"", &forbids), [true, false, true]);
    assert_eq!(allowed(deny, &both), [true, false, false]);
    assert_eq!(allowed(deny, &forbids), [false; 3]);
    assert!(of("default = \"deny\"", &both).unwrap_err()[0].contains("owner"));
    assert!(of("defualt = \"deny\"", &both).is_err() && of("default = \"no\"", &both).is_err());
    assert!(set(&both).unwrap().notes("", |_, _| true)[0].contains("`p` permits what is permitted without it"));
    assert_ne!(of(deny, &both).unwrap().digest(), of("default = \"permit\"", &both).unwrap().digest());
}

#[test]
fn the_example_is_a_set_whose_tests_pass_and_reach_every_policy() {
    let set = set(EXAMPLE).unwrap();
    let cases = Cases::parse(EXAMPLE_TESTS).unwrap();
    let outcomes: Vec<_> = cases.tests.iter().map(|case| case.run(&set)).collect();
    assert!(outcomes.iter().all(|outcome| outcome.failure.is_none()), "{outcomes:?}");
    let reached = |policy: &Policy| outcomes.iter().any(|outcome| outcome.policies.contains(&policy.id));
    assert!(set.all().iter().all(reached));
    // A test that expects the other answer, or another policy, fails.
    for (from, to) in [("expect = \"allow\"", "expect = \"deny\""), ("policy = \"no-mail", "policy = \"no-mails")] {
        let wrong = Cases::parse(&EXAMPLE_TESTS.replace(from, to)).unwrap();
        assert_eq!(wrong.tests.iter().filter(|case| case.run(&set).failure.is_some()).count(), 1, "{to}");
    }
    assert!(Cases::parse("[[tests]]\nname = \"x\"\nexpectt = \"deny\"").is_err());
}

const SCOPED: [&str; 5] = [
    "principal",
    "principal is Agent",
    "principal == Workload::\"w\"",
    "principal in Agent::\"a\"",
    "principal in Class::\"worker\"",
];
const ACTIONS: [&str; 3] = ["action", "action == Action::\"spawn\"", "action in [Action::\"mint\", Action::\"renew\"]"];
const RESOURCES: [&str; 4] = ["resource", "resource == Class::\"worker\"", "resource == Audience::\"x\"", "resource is Class"];
const CONDITIONS: [&str; 7] = [
    "true",
    "context.depth > 1",
    "context has acr && context.acr == \"2\"",
    "context.scopes.contains(Scope::\"s\")",
    "context has user && context.user.sub == \"u\"",
    "context.time.hour < 12",
    "context.depth * 9223372036854775807 > 0",
];

fn any_policy() -> impl Strategy<Value = String> {
    (any::<bool>(), 0..SCOPED.len(), 0..ACTIONS.len(), 0..RESOURCES.len(), 0..CONDITIONS.len(), any::<bool>()).prop_map(
        |(forbid, p, a, r, c, unless)| {
            let (effect, word) = (if forbid { "forbid" } else { "permit" }, if unless { "unless" } else { "when" });
            format!("{effect}({}, {}, {}) {word} {{ {} }};", SCOPED[p], ACTIONS[a], RESOURCES[r], CONDITIONS[c])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Dividing a set and leaving out unused attributes changes no answer: Cedar on the whole set and the whole question agrees.
    #[test]
    fn a_part_of_the_set_answers_as_the_whole_does(
        texts in proptest::collection::vec(any_policy(), 1..8), action in 0usize..3, agent in any::<bool>(),
        ancestor in any::<bool>(), worker in any::<bool>(), depth in 0u32..4, acr in any::<bool>(), scoped in any::<bool>(),
        user in any::<bool>(), hour in 0u64..24, first_lifted in 0usize..8,
    ) {
        let numbered: String = texts.iter().enumerate().map(|(n, text)| policy(&format!("p{n}"), text)).collect();
        // A set with a policy that can never apply is refused, so there is nothing to compare.
        let Ok(set) = set(&numbered) else { return Ok(()) };
        let scopes = if scoped { vec!["s".to_owned()] } else { Vec::new() };
        let class = if worker { "worker" } else { "researcher" };
        let ancestors = if ancestor { vec!["a".to_owned()] } else { Vec::new() };
        let itself = AgentFacts { id: "me", class, root: "w", ancestors, depth };
        let user = user.then_some(UserFacts { provider: "p", sub: "u", groups: &[] });
        let acr = acr.then_some("2");
        let facts = Facts { at: hour * 3600, depth, scopes: &scopes, user, acr, ..Facts::default() };
        let (action, resource) = [
            (Action::Spawn, Resource::Class(class, "")), (Action::Mint, Resource::Audience("x")), (Action::Renew, Resource::Class(class, "")),
        ][action];
        let principal = if action == Action::Spawn && !agent { Principal::Workload("w") } else { Principal::Agent(itself) };
        let ask = Ask { action, principal, resource, facts };
        let decision = set.decide(&ask);
        let asked = ask.translate(&Mentions::everything(), Some(schema())).unwrap_or_else(|e| panic!("{e}"));
        let whole = PolicySet::from_policies(set.parts.values().flat_map(|part| part.policies().cloned().collect::<Vec<_>>())
            .map(|policy| (policy.id().to_string(), policy)).collect::<std::collections::BTreeMap<_, _>>().into_values()).unwrap();
        let answer = Authorizer::new().is_authorized(&asked.request, &whole, &asked.entities);
        let ids = |of: &[usize]| of.iter().map(|n| set.all()[*n].id.clone()).collect::<std::collections::BTreeSet<_>>();
        let reasons: std::collections::BTreeSet<String> = answer.diagnostics().reason().map(ToString::to_string).collect();
        prop_assert_eq!(ids(&decision.policies), reasons);
        prop_assert_eq!(decision.failed.is_empty(), answer.diagnostics().errors().next().is_none());
        let forbidden = answer.decision() == cedar_policy::Decision::Deny && answer.diagnostics().reason().next().is_some();
        prop_assert_eq!(decision.allowed, !forbidden && decision.failed.is_empty());
        prop_assert_eq!(&set.decide_checked(&ask).unwrap(), &decision);
        // T322: a set without one of its policies answers as a set that never had it.
        let lifted = first_lifted % texts.len();
        let rest: String = texts.iter().enumerate().filter(|(n, _)| *n != lifted)
            .map(|(n, text)| policy(&format!("p{n}"), text)).collect();
        let never = Policies::of_texts(vec![("a.cedar".into(), rest)]).unwrap().decide(&ask);
        let without = set.without(lifted).decide(&ask);
        prop_assert_eq!((without.allowed, without.failed.is_empty()), (never.allowed, never.failed.is_empty()));
        prop_assert!(!without.policies.contains(&lifted) && !without.failed.contains(&lifted));
    }
}

/// T179: a thread of the runtime has a stack of 2 MiB.
/// What policies add to a spawn: nothing but this question is asked for them.
#[test]
#[ignore = "long, and prints figures: cargo test --release --lib -- --ignored --nocapture hundred_policies"]
fn what_a_hundred_policies_add_to_a_spawn() {
    const TIMES: u32 = 20_000;
    let names = ["search:read".to_owned(), "mail:send".to_owned()];
    for classes in [1, 20, 100] {
        let one = |n: usize| {
            let when = format!("context.scopes.contains(Scope::\"s{n}:read\") && (context.time.hour < 5 || context.depth > 3)");
            let head = format!("forbid(principal, action == Action::\"spawn\", resource == Class::\"c{}\")", n % classes);
            policy(&format!("p{n}"), &format!("{head} when {{ {when} }};"))
        };
        let set = set(&(0..100).map(one).collect::<String>()).unwrap();
        let facts = Facts { at: 1_800_000_000, depth: 1, scopes: &names, ..Facts::default() };
        let resource = Resource::Class("c0", "team");
        let ask = Ask { action: Action::Spawn, principal: Principal::Workload("orchestrator"), resource, facts };
        assert!(set.decide(&ask).allowed);
        let began = std::time::Instant::now();
        (0..TIMES).for_each(|_| drop(std::hint::black_box(set.decide(std::hint::black_box(&ask)))));
        println!("100 policies, {} of them about the class: {:?} for each spawn", 100 / classes, began.elapsed() / TIMES);
    }
}

#[test]
fn t179_a_policy_that_goes_too_deep_is_refused_and_no_thread_runs_out_of_stack() {
    let deep = |n: usize| {
        [
            format!("{}true{}", "(".repeat(n), ")".repeat(n)),
            format!("{}true", "!".repeat(n)),
            format!("{}1 == 1", "-".repeat(n)),
            format!("true{}", " && true".repeat(n / 2)),
            format!("true{}", " || true".repeat(n / 2)),
            format!("1{} == 1", " + 1".repeat(n)),
            format!("{}true{}", "if true then ".repeat(n), " else true".repeat(n)),
            format!("{}true{}", "if true then ".repeat(n / 21), " else true".repeat(n / 21)),
            format!("{}{} == []", "[".repeat(n), "]".repeat(n)),
            format!("{}1{} == {{}}", "{a: ".repeat(n), "}".repeat(n)),
            format!("context{}", ".scopes".repeat(n)),
        ]
    };
    let text = |expression: &str| policy("p", &format!("forbid(principal, action, resource) when {{ {expression} }};"));
    for expression in deep(500).into_iter().chain(deep(40_000)) {
        let told = fault(&text(&expression));
        assert!(told.contains("a.cedar:1: the policy has more than 300 brackets"), "{}", &told[..told.len().min(200)]);
    }
    let ask = move || {
        for expression in deep(280) {
            // The set is validated or refused, and evaluated if it is valid.
            if let Ok(set) = set(&text(&expression)) {
                let ask = Ask {
                    action: Action::Mint,
                    principal: Principal::Workload("w"),
                    resource: Resource::Audience("x"),
                    facts: Facts::default(),
                };
                drop(set.decide(&ask));
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(ask).unwrap().join().unwrap();
}
