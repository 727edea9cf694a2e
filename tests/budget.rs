//! Budgets, with the real binary: exact under races and restarts, and nothing stays held for who is gone.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::budgets_client::BudgetsClient;
use mayfly_agent::identity::{Identity, IdentityError, Issuer};
use mayfly_verify::TrustDomain;
use serde_json::Value;
use support::{Dev, ORCHESTRATOR, channel};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const CONFIG: &str = r#"
[writes]
spend = { caller = "10000/s", root = "10000/s" }

[[workloads]]
name = "mail-service"
gateway = true

[[classes]]
name = "researcher"
owner = "research"
scopes = ["search:read"]
audiences = ["https://search.example"]
max_depth = 2
budget = { tokens = 1000, ops = 5, usd = "0.50" }
spawners = ["workload/orchestrator"]

[[classes]]
name = "worker"
owner = "work"
scopes = ["search:read"]
audiences = ["https://search.example"]
budget = { tokens = 400 }
spawners = ["class/researcher"]

[[classes]]
name = "short"
owner = "work"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "10s"
spawners = ["class/researcher"]
"#;

fn dev() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev
}

/// Spent, reserved and left of a unit in an agent's own account.
fn account(dev: &Dev, agent: &str, unit: &str) -> (u64, u64, Value) {
    let shown = dev.json(&format!("budget show {agent}"));
    let line = shown["budgets"].as_array().unwrap().iter().find(|line| line["unit"] == unit).unwrap().clone();
    assert_eq!(line["agent_id"], agent);
    (line["spent"].as_u64().unwrap(), line["reserved"].as_u64().unwrap(), line["left"].clone())
}

fn id(dev: &Dev, dir: &str) -> String {
    dev.json(&format!("whoami --as {dir}"))["spiffe_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_spend_is_taken_from_everybody_above_and_a_refusal_says_whose_budget_it_is() {
    let dev = dev();
    let top = id(&dev, "a1");
    dev.json("spawn --as a1 --class worker --out w1");
    let below = id(&dev, "w1");
    assert_eq!(dev.json("budget spend --as a1 --unit tokens 500")["left"], 500);
    assert_eq!(dev.json("budget spend --as w1 --unit tokens 300")["left"], 100);
    assert_eq!(account(&dev, &top, "tokens"), (800, 0, 200.into()));
    // Its own class first, then the agent above it.
    let told = dev.fails("budget spend --as w1 --unit tokens 101", 3);
    for part in ["BUDGET_EXHAUSTED", &below, "100 left of 400", "class `worker` of work"] {
        assert!(told.contains(part), "{part} not in {told}");
    }
    dev.json("budget spend --as a1 --unit tokens 150");
    let told = dev.fails("budget spend --as w1 --unit tokens 60", 3);
    assert!(told.contains(&top) && told.contains("50 left of 1000") && told.contains("class `researcher` of research"), "{told}");
    // A unit that no class of the agent's limits is counted, and its parent's limit holds.
    for _ in 0..5 {
        dev.json("budget spend --as w1 --unit ops 1");
    }
    assert!(dev.fails("budget spend --as w1 --unit ops 1", 3).contains(&top));
    // Dollars are exact.
    dev.json("budget spend --as a1 --unit usd 0.499999");
    dev.json("budget spend --as a1 --unit usd 0.000001");
    assert!(dev.fails("budget spend --as a1 --unit usd 0.000001", 3).contains("BUDGET_EXHAUSTED"));
    // The spawner and a gateway spend for an agent; nobody spends for its parent, and an operator only looks.
    assert_eq!(dev.json(&format!("budget spend --as {ORCHESTRATOR} --agent {below} --unit tokens 1"))["agent_id"], below);
    dev.json(&format!("budget spend --as .mayfly/workloads/mail-service --agent {below} --unit tokens 1"));
    assert!(dev.fails(&format!("budget spend --as w1 --agent {top} --unit tokens 1"), 3).contains("AGENT_UNKNOWN"));
    dev.fails("budget spend --as a1 --unit tokens 0", 2);
    dev.fails("budget spend --as a1 --unit tokens 1.5", 2);
    // A retry is the same spend; another one under its id is refused.
    let retry = "budget spend --as a1 --unit tokens 10 --request-id r1";
    assert_eq!(dev.json(retry)["left"], dev.json(retry)["left"]);
    assert!(dev.fails(&retry.replace("10", "11"), 3).contains("REQUEST_ID_REUSED"));
    assert_eq!(account(&dev, &top, "tokens"), (962, 0, 38.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_spends_reserves_and_releases_and_hears_whose_budget_is_exhausted() {
    let dev = dev();
    let issuer = Issuer {
        address: dev.text("grpc"),
        trust_domain: TrustDomain::new("dev.mayfly.test").unwrap(),
        connect_timeout: Duration::from_secs(10),
    };
    let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file("demo.jwt"), ..Default::default() };
    let identity = Identity::spawn(channel(&dev, Some(ORCHESTRATOR)).await, issuer, request).await.unwrap();
    let tokens = v1::BudgetUnit::Tokens;
    assert_eq!(identity.spend(tokens, 400).await.unwrap().left, Some(600));
    let held = identity.reserve(tokens, 500, Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(held.left, Some(100));
    let spent = identity.spend_reserved(held.reservation, tokens, 200).await.unwrap();
    assert_eq!((spent.left, spent.reservation_left), (Some(100), 300));
    let refused = identity.spend(tokens, 101).await.unwrap_err();
    let IdentityError::Exhausted(why) = &refused else { panic!("{refused}") };
    let current = identity.current();
    let told = (why.budget.as_str(), why.agent.as_str(), why.owner.as_str(), why.left);
    assert_eq!(told, ("budget.tokens", current.spiffe_id(), "research", 100));
    assert!(!refused.is_transient(), "asking again changes nothing");
    assert_eq!(identity.release(held.reservation).await.unwrap().left, Some(400));
    assert!(matches!(identity.release(held.reservation).await, Err(IdentityError::Denied { .. })));
    assert_eq!(identity.spend(tokens, 400).await.unwrap().left, Some(0));
}

#[test]
fn t202_what_is_held_comes_back_when_its_agent_is_gone() {
    let dev = dev();
    let top = id(&dev, "a1");
    let workers: Vec<String> = ["w1", "w2", "w3", "w4"]
        .iter()
        .map(|out| {
            dev.json(&format!("spawn --as a1 --class worker --out {out}"));
            id(&dev, out)
        })
        .collect();
    dev.json("spawn --as a1 --class short --out s1");
    let short = id(&dev, "s1");
    let reserve = |agent: &str, amount: u64, life: u64| {
        dev.json(&format!("budget reserve --as a1 --agent {agent} --unit tokens {amount} --life {life}"))["reservation"]
            .as_u64()
            .unwrap()
    };
    let ids: Vec<u64> = workers.iter().map(|agent| reserve(agent, 200, 600)).collect();
    reserve(&short, 100, 600);
    assert_eq!(account(&dev, &top, "tokens"), (0, 900, 100.into()));
    assert!(dev.fails("budget spend --as a1 --unit tokens 101", 3).contains("BUDGET_EXHAUSTED"));
    // What is held for the worker is there for it, and for nobody else.
    assert!(
        dev.fails(&format!("budget spend --as w2 --unit tokens 5 --reservation {}", ids[0]), 3).contains("RESERVATION_UNKNOWN")
    );
    let spent = dev.json(&format!("budget spend --as w1 --unit tokens 150 --reservation {}", ids[0]));
    assert_eq!((spent["reservation_left"].as_u64(), spent["left"].as_u64()), (Some(50), Some(100)));
    assert!(dev.fails(&format!("budget spend --as w1 --unit tokens 51 --reservation {}", ids[0]), 3).contains("50 left"));
    assert_eq!(account(&dev, &top, "tokens"), (150, 750, 100.into()));

    // It ends, is revoked, or lets go; a restart in between changes nothing.
    assert!(dev.run("end --as w1").status.success());
    assert_eq!(account(&dev, &top, "tokens"), (150, 700, 150.into()));
    assert!(dev.run(&format!("revoke --agent {}", workers[1])).status.success());
    assert_eq!(account(&dev, &top, "tokens"), (150, 500, 350.into()));
    let dev = Dev::start_args(dev.kill(), &["--config", "extra.toml"], &[]);
    assert_eq!(account(&dev, &top, "tokens"), (150, 500, 350.into()));
    dev.json(&format!("budget release --as a1 {}", ids[2]));
    assert!(dev.fails(&format!("budget release --as a1 {}", ids[2]), 3).contains("RESERVATION_UNKNOWN"));
    assert_eq!(account(&dev, &top, "tokens"), (150, 300, 550.into()));
    dev.json(&format!("budget reserve --as a1 --agent {} --unit tokens 50 --life 1", workers[3]));
    // Time passes for the last ones: a reservation's own, and the certificate of the agent for which one is held.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while account(&dev, &top, "tokens") != (150, 200, 650.into()) {
        assert!(std::time::Instant::now() < deadline, "{:?}", account(&dev, &top, "tokens"));
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn what_is_no_amount_is_refused_and_a_reservation_asked_for_twice_is_one() {
    let dev = dev();
    let top = id(&dev, "a1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let code = |status: &Status| status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    runtime.block_on(async {
        let mut client = BudgetsClient::new(channel(&dev, Some("a1")).await);
        for (unit, amount, life_seconds) in
            [(2, 0, 0), (2, (1 << 53) + 1, 0), (2, u64::MAX, 0), (0, 1, 0), (99, 1, 0), (-1, 1, 0), (2, 1, 3601)]
        {
            let told = client.reserve(v1::ReserveRequest { unit, amount, life_seconds, ..Default::default() }).await.unwrap_err();
            assert_eq!((told.code(), code(&told).as_str()), (Code::InvalidArgument, "AMOUNT_MALFORMED"), "{unit} {amount}");
            if life_seconds == 0 {
                let told = client.spend(v1::SpendRequest { unit, amount, ..Default::default() }).await.unwrap_err();
                assert_eq!(code(&told), "AMOUNT_MALFORMED", "{unit} {amount}");
            }
        }
        for reservation in [0, 1, u64::MAX] {
            let told = client.release(v1::ReleaseRequest { reservation }).await.unwrap_err();
            assert_eq!(code(&told), "RESERVATION_UNKNOWN");
        }
        // A retry is the same reservation, and the same id with other words is refused.
        let request = v1::ReserveRequest { unit: 2, amount: 300, request_id: "r".into(), ..Default::default() };
        let held = client.reserve(request.clone()).await.unwrap().into_inner();
        let again = client.reserve(request.clone()).await.unwrap().into_inner();
        assert_eq!((held.reservation, held.left), (again.reservation, again.left));
        let other = v1::ReserveRequest { amount: 301, ..request.clone() };
        assert_eq!(code(&client.reserve(other).await.unwrap_err()), "REQUEST_ID_REUSED");
        // It is of its unit.
        let wrong = v1::SpendRequest { unit: 1, amount: 1, reservation: held.reservation, ..Default::default() };
        assert_eq!(code(&client.spend(wrong).await.unwrap_err()), "AMOUNT_MALFORMED");
        // A spend that is asked for twice is one, from a reservation too.
        let part = v1::SpendRequest {
            unit: 2,
            amount: 100,
            reservation: held.reservation,
            request_id: "s".into(),
            ..Default::default()
        };
        for _ in 0..2 {
            let told = client.spend(part.clone()).await.unwrap().into_inner();
            assert_eq!((told.left, told.reservation_left), (Some(700), 200));
        }
    });
    assert_eq!(account(&dev, &top, "tokens"), (100, 200, 700.into()));
}

#[test]
fn t203_reservations_of_a_tree_are_bounded_and_those_of_agents_that_are_gone_make_room() {
    let dev = dev();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    dev.json("spawn --as a1 --class worker --out w1");
    dev.json("spawn --as a1 --class worker --out w2");
    let (gone, top) = (id(&dev, "w1"), id(&dev, "a1"));
    runtime.block_on(async {
        let mut client = BudgetsClient::new(channel(&dev, Some("a1")).await);
        let hold = |agent: &str| v1::ReserveRequest { unit: 2, amount: 1, agent: agent.into(), ..Default::default() };
        // What is spent whole takes no place.
        for _ in 0..300 {
            let held = client.reserve(hold("")).await.unwrap().into_inner().reservation;
            let whole = v1::SpendRequest { unit: 2, amount: 1, reservation: held, ..Default::default() };
            client.spend(whole).await.unwrap();
        }
        for _ in 0..56 {
            client.reserve(hold(&gone)).await.unwrap();
        }
        for _ in 0..200 {
            client.reserve(hold("")).await.unwrap();
        }
        for agent in ["", &gone] {
            let told = client.reserve(hold(agent)).await.unwrap_err();
            assert_eq!(told.get_details_error_info().map(|info| info.reason).as_deref(), Some("RESERVATIONS_FULL"), "{told}");
            assert_eq!(told.code(), Code::ResourceExhausted);
        }
        assert!(dev.run("end --as w1").status.success());
        // Every place of the worker that ended comes back, also to its parent.
        for _ in 0..56 {
            client.reserve(hold("")).await.unwrap();
        }
        assert_eq!(client.reserve(hold("")).await.unwrap_err().code(), Code::ResourceExhausted);
    });
    assert_eq!(account(&dev, &top, "tokens"), (300, 256, 444.into()));
}

/// What a thread of the race was told.
#[derive(Default)]
struct Told {
    spent: u64,
    /// The answer never came: it is spent, or it is not.
    unknown: u64,
    refused: u64,
}

#[test]
fn t178_a_budget_is_never_overspent_by_one_in_a_race_with_restarts() {
    let mut dev = dev();
    let top = id(&dev, "a1");
    for out in ["w1", "w2", "w3"] {
        dev.json(&format!("spawn --as a1 --class worker --out {out}"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut all = Told::default();
    for round in 0..4 {
        let tasks = runtime.block_on(async {
            let mut tasks = Vec::new();
            for n in 0..64u64 {
                let dir = ["a1", "w1", "w2", "w3"][usize::try_from(n % 4).unwrap()];
                let client = BudgetsClient::new(channel(&dev, Some(dir)).await);
                tasks.push(tokio::spawn(race(client, n)));
            }
            tasks
        });
        if round < 3 {
            // In the middle of it.
            std::thread::sleep(Duration::from_millis(60));
            dev = Dev::start_args(dev.kill(), &["--config", "extra.toml"], &[]);
        }
        for task in tasks {
            let told = runtime.block_on(task).unwrap();
            all.spent += told.spent;
            all.unknown += told.unknown;
            all.refused += told.refused;
        }
    }
    // What a lost answer or a lost release left behind.
    let shown = dev.json(&format!("budget show {top}"));
    for reservation in shown["reservations"].as_array().unwrap() {
        dev.json(&format!("budget release --as a1 {}", reservation["reservation"]));
    }
    let (spent, held, left) = account(&dev, &top, "tokens");
    assert!(spent <= 1000 && held == 0, "{spent} spent, {held} held");
    assert!(
        all.spent <= spent && spent <= all.spent + all.unknown,
        "{} told, {} unknown, {spent} recorded",
        all.spent,
        all.unknown
    );
    assert_eq!(left, 1000 - spent);
    assert!(all.refused > 0, "the budget was reached");
    // What is left can be spent to the last one.
    if spent < 1000 {
        dev.json(&format!("budget spend --as a1 --unit tokens {}", 1000 - spent));
    }
    assert!(dev.fails("budget spend --as a1 --unit tokens 1", 3).contains("0 left of 1000"));
}

/// Spends, reserves and releases until the issuer is gone or nothing is left.
async fn race(mut client: BudgetsClient<tonic::transport::Channel>, n: u64) -> Told {
    let (mut told, unit) = (Told::default(), v1::BudgetUnit::Tokens.into());
    for step in 0..12 {
        let amount = (n + step) % 5 + 1;
        if !(n + step).is_multiple_of(3) {
            let request = v1::SpendRequest { unit, amount, ..Default::default() };
            match client.spend(request).await {
                Ok(_) => told.spent += amount,
                Err(e) if exhausted(&e) => told.refused += 1,
                Err(_) => {
                    told.unknown += amount;
                    return told;
                }
            }
            continue;
        }
        let held = match client.reserve(v1::ReserveRequest { unit, amount, ..Default::default() }).await {
            Ok(held) => held.into_inner(),
            Err(e) if exhausted(&e) => {
                told.refused += 1;
                continue;
            }
            Err(_) => return told,
        };
        let (reservation, part) = (held.reservation, amount.div_ceil(2));
        match client.spend(v1::SpendRequest { unit, amount: part, reservation, ..Default::default() }).await {
            Ok(_) => told.spent += part,
            Err(e) if exhausted(&e) => panic!("what is held is there: {e}"),
            Err(_) => {
                told.unknown += part;
                return told;
            }
        }
        if client.release(v1::ReleaseRequest { reservation }).await.is_err_and(|e| e.code() == Code::Unavailable) {
            return told;
        }
    }
    told
}

fn exhausted(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
        && status.get_details_error_info().is_some_and(|info| info.reason == "BUDGET_EXHAUSTED")
}
