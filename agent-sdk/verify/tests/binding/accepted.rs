//! Bindings as issuers write them, from the plainest to the largest.

use mayfly_verify::{Binding, ClassName, DelegationId, MAX_CHAIN, MAX_CLAIM, MAX_DER, Mode, Stamp, Subject, Target, User};
use uuid::Uuid;

const ROOT: &str = "spiffe://td.example/workload/orchestrator";

/// An agent directly below a workload, for a user.
pub(crate) fn delegated() -> Binding {
    let user = User { iss: "https://idp.example".into(), sub: "demo".into() };
    let class: ClassName = "worker".parse().unwrap();
    let delegation = DelegationId([9; 32]);
    let on = |target: Target, since| Stamp { subject: target.unsalted(), since };
    Binding {
        incarnation: Uuid::from_u128(0x0190_aaaa_0000_7000_8000_0000_0000_0001),
        revision: 12,
        stamps: vec![
            on(Target::TrustDomain, 3),
            on(Target::User(user.clone()), 3),
            on(Target::Delegation(delegation), 3),
            on(Target::Workload("orchestrator".parse().unwrap()), 12),
            on(Target::Class(class), 12),
            on(Target::Agent(Uuid::from_u128(5)), 12),
        ],
        delegation: Some(delegation),
        user: Some(user),
        chain: vec![ROOT.into()],
        mode: Mode::Delegated,
        scopes: vec!["files:read".into(), "mail:send".into()],
        lease_expires_at: 1_800_000_000,
    }
}

/// An agent for nobody: the optional fields are absent.
pub(crate) fn autonomous() -> Binding {
    Binding { delegation: None, user: None, mode: Mode::Autonomous, scopes: vec![], ..delegated() }
}

/// `agents` agents between it and its root workload.
pub(crate) fn below(agents: usize) -> Vec<String> {
    let id = |n| format!("spiffe://td.example/agent/worker/{}", Uuid::from_u128(0x0190_aaaa_bbbb_7ccc_8ddd_0000_0000_0000 + n));
    let mut chain: Vec<String> = (0..agents).map(|n| id(u128::try_from(n).unwrap())).collect();
    chain.push(ROOT.into());
    chain
}

pub(crate) fn bindings() -> Vec<(&'static str, Binding)> {
    let user = |sub: &str| Some(User { iss: "https://idp.example".into(), sub: sub.into() });
    vec![
        ("delegated", delegated()),
        ("autonomous", autonomous()),
        ("child", Binding { chain: below(1), ..delegated() }),
        ("deepest chain", Binding { chain: below(MAX_CHAIN - 1), ..delegated() }),
        ("foreign root", Binding { chain: vec!["spiffe://spire.example.org/ns/agents/sa/Orch_1.x".into()], ..delegated() }),
        ("longest trust domain", Binding { chain: vec![format!("spiffe://{}/x", "t".repeat(255))], ..delegated() }),
        ("pseudonym", Binding { user: user("p-3vT0yq8mYl2kXc9dRzJfNw"), ..delegated() }),
        ("name outside of ASCII", Binding { user: user("zo\u{eb} \u{2028}\"\\/<&>\n\u{1}\u{7f} \u{1f41d}"), ..delegated() }),
        (
            "scopes in the order of their bytes",
            Binding { scopes: ["", "A", "a", "a:", "\u{e4}"].map(String::from).into(), ..delegated() },
        ),
        ("elements about 128 and 256 octets long", lengths()),
        ("integers", integers()),
        ("nothing but zeroes", zeroes()),
        ("largest certificate extension", largest_der()),
        ("largest claim", largest_claim()),
    ]
}

/// Where a length takes an octet more.
fn lengths() -> Binding {
    let scopes = [("a", 127), ("b", 128), ("c", 255), ("d", 256)].map(|(letter, length)| letter.repeat(length));
    Binding { scopes: scopes.into(), ..delegated() }
}

/// Where the length of an INTEGER changes, and its leading zero.
fn integers() -> Binding {
    let edges = [0, 1, 127, 128, 255, 256, 32_767, 32_768, (1 << 53) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, u64::MAX];
    let stamps = edges.iter().zip(1..).map(|(since, n)| Stamp { subject: Subject([n; 16]), since: *since }).collect();
    Binding { revision: u64::MAX, lease_expires_at: u64::MAX, stamps, ..delegated() }
}

fn zeroes() -> Binding {
    let stamps = vec![Stamp { subject: Subject([0; 16]), since: 0 }];
    Binding { incarnation: Uuid::nil(), revision: 0, lease_expires_at: 0, stamps, ..autonomous() }
}

/// To the octet as long as an extension may be.
pub(crate) fn largest_der() -> Binding {
    let of = |length: usize| Binding { scopes: vec!["s".repeat(length)], chain: below(8), ..delegated() };
    (0..MAX_DER).map(of).take_while(|b| b.to_der().is_ok()).last().unwrap()
}

/// To the byte as long as a claim may be: JSON writes a control character as six.
pub(crate) fn largest_claim() -> Binding {
    let of = |control: usize, plain: usize| Binding {
        user: Some(User { iss: "https://idp.example".into(), sub: format!("{} {}", "\u{1}".repeat(control), "s".repeat(plain)) }),
        ..delegated()
    };
    let control = (0..MAX_CLAIM).take_while(|n| of(*n, 0).to_claim().is_ok()).last().unwrap();
    (0..6).map(|plain| of(control, plain)).take_while(|b| b.to_claim().is_ok()).last().unwrap()
}
