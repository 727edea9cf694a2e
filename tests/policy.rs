//! Policies beside classes and limits, with the real binary.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use support::Dev;

const POLICIES: &str = r#"
@id("no-mail")
@owner("security@example.org")
@reason("nobody reads the answers")
@contact("https://chat.example.org/security")
forbid (principal is Workload, action == Action::"spawn", resource == Class::"researcher")
when { context.scopes.contains(Scope::"mail:send") };

@id("two-workers")
@owner("research@example.org")
@reason("two are enough")
forbid (principal is Agent, action == Action::"spawn", resource == Class::"worker")
when { context.live.siblings >= 2 };

@id("not-files")
@owner("files@example.org")
@reason("files are read by people")
forbid (principal in Class::"worker", action in [Action::"mint", Action::"exchange"], resource == Audience::"https://files.example");
"#;
const SHADOW: &str = r#"
@id("never")
@owner("security@example.org")
@reason("a candidate")
forbid (principal, action == Action::"renew", resource);
"#;

fn dev(policies: &str) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    for (folder, text) in [("policies", policies), ("shadow", SHADOW)] {
        fs::create_dir(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("a.cedar"), text).unwrap();
    }
    fs::write(dir.path().join("extra.toml"), "[policy]\ndir = \"policies\"\nshadow = \"shadow\"\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev
}

/// The output of a command that must succeed.
fn ok(dev: &Dev, line: &str) -> String {
    let out = dev.run(line);
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn metrics(dev: &Dev) -> String {
    let mut stream = TcpStream::connect(dev.text("http")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_policy_forbids_what_its_class_allows_and_says_whose_it_is() {
    let dev = dev(POLICIES);
    let told = dev.fails("spawn --class researcher --user-token demo.jwt --out no", 3);
    for part in ["POLICY_DENIED", "no-mail", "security@example.org", "nobody reads the answers"] {
        assert!(told.contains(part), "{part} not in {told}");
    }
    // T322: what would turn it names the policy, its place and its owner; a request for less would do as well.
    let told = {
        let out = dev.run("explain -o json -- spawn --class researcher --user-token demo.jwt");
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    assert_eq!((&told["outcome"], &told["reason"]), (&"denied".into(), &"POLICY_DENIED".into()), "{told}");
    assert_eq!(told["policies"][0]["id"], "no-mail");
    let lifted: Vec<_> = told["flip"].as_array().unwrap().iter().filter(|set| set["changes"][0]["change"] == "policy").collect();
    let change = &lifted[0]["changes"][0];
    assert_eq!((lifted.len(), lifted[0]["changes"].as_array().unwrap().len()), (1, 1), "{told}");
    assert_eq!(
        (&change["owner"], &change["where"]),
        (&"security@example.org".into(), &"policy no-mail".into()),
        "a workload hears no files"
    );
    assert!(change["do"].as_str().unwrap().contains("lift policy `no-mail` of security@example.org"), "{change}");
    ok(&dev, "spawn --class researcher --user-token demo.jwt --scope search:read --scope files:read --out a1");
    // Counted where the order is decided.
    for n in 1..=2 {
        ok(&dev, &format!("spawn --as a1 --class worker --out w{n}"));
    }
    assert!(dev.fails("spawn --as a1 --class worker --out w3", 3).contains("two-workers"));
    // The parent is no worker, and a worker may have tokens for other audiences.
    ok(&dev, "mint --as a1 --audience https://files.example");
    ok(&dev, "mint --as w1 --audience https://search.example");
    assert!(dev.fails("mint --as w1 --audience https://files.example", 3).contains("not-files"));
    ok(&dev, "renew --as w1");

    let shown = dev.json("policy show");
    assert_eq!(shown["in_force"]["policies"][0]["where"], "a.cedar:2");
    assert_eq!(shown["in_force"]["policies"][2]["owner"], "files@example.org");
    assert_eq!(shown["shadow"]["policies"][0]["id"], "never");
    // The shadow set decided nothing, and what it would have decided is counted.
    let metrics = metrics(&dev);
    assert!(metrics.contains("mayfly_policy_shadow_differs_total{action=\"renew\",outcome=\"denied\"} 1"), "{metrics}");

    // The other way round: the candidate set would stop every renewal, and let the worker read files.
    let diff = dev.json("policy diff shadow");
    let changes = diff["changes"].as_array().unwrap();
    let of = |action: &str, then: &str| changes.iter().filter(|c| c["action"] == action && c["then"] == then).count();
    assert_eq!((of("renew", "deny"), of("mint", "allow"), of("exchange", "allow")), (3, 2, 2), "{diff}");
    assert_eq!(diff["agents"], 3);
    let renewal = changes.iter().find(|c| c["action"] == "renew").unwrap();
    assert_eq!((renewal["policy"]["id"].as_str(), renewal["policy"]["where"].as_str()), (Some("never"), Some("a.cedar:2")));
    // What it would have changed of the decisions until now: the renewal, and the worker's token for files that was refused is no spawn.
    let decided = &diff["decisions"];
    let changed: Vec<_> = decided["changes"].as_array().unwrap().iter().map(|c| c["action"].as_str().unwrap()).collect();
    assert_eq!(decided["different"].as_u64().unwrap(), u64::try_from(changed.len()).unwrap());
    assert_eq!(changed.iter().filter(|action| **action == "renew").count(), 1, "{diff}");
    let renewed = decided["changes"].as_array().unwrap().iter().find(|c| c["action"] == "renew").unwrap();
    assert!(renewed["then"].as_str().unwrap().starts_with("a certificate with"), "{renewed}");
    assert!(renewed["now"].as_str().unwrap().contains("policy `never` of security@example.org"), "{renewed}");
    // The same of all living agents at a revision, by the issuer: none could be renewed.
    let taken = dev.json("what-if policy shadow");
    assert_eq!((&taken["exact"], &taken["agents"], &taken["would_starve"]), (&true.into(), &3.into(), &serde_json::json!([])));
    let end = taken["would_end"].as_array().unwrap();
    assert_eq!(end.len(), 3, "{taken}");
    assert!(end.iter().all(|one| one["policy"] == "never"
        && one["owner"] == "security@example.org"
        && one["where"] == "a.cedar:2 policy never"));
    fs::create_dir(dev.path("starve")).unwrap();
    let starve = SHADOW.replace(
        "action == Action::\"renew\", resource",
        "action == Action::\"exchange\", resource == Audience::\"https://search.example\"",
    );
    fs::write(dev.path("starve/a.cedar"), starve).unwrap();
    let taken = dev.json("what-if policy starve");
    assert_eq!(taken["would_end"], serde_json::json!([]));
    let starved = taken["would_starve"].as_array().unwrap();
    assert!(
        !starved.is_empty()
            && starved.iter().all(|one| one["action"] == "exchange" && one["audience"] == "https://search.example")
    );
    // A set with a fault is told so, by the command and by the issuer, and an agent hears nothing of others.
    fs::write(dev.path("starve/b.cedar"), "forbid (principal, action, resource);").unwrap();
    assert!(dev.fails("what-if policy starve", 1).contains("@owner"));
    assert!(dev.fails("what-if policy shadow --as a1", 3).contains("ROLE_NOT_ALLOWED"));
    // An agent whose renewal is forbidden is told so, and what would turn it.
    fs::write(dev.path("policies/b.cedar"), SHADOW).unwrap();
    ok(&dev, "reload");
    let told = dev.json("explain a1");
    assert_eq!((&told["outcome"], &told["policies"][0]["id"]), (&"denied".into(), &"never".into()), "{told}");
    assert_eq!(told["flip"][0]["changes"][0]["do"], "lift policy `never` of security@example.org", "{told}");
    fs::remove_file(dev.path("policies/b.cedar")).unwrap();
    ok(&dev, "reload");
    assert_eq!(dev.json("explain a1")["outcome"], "allowed");
    // The history says which set decided.
    let digest = shown["in_force"]["digest"].as_str().unwrap();
    assert!(ok(&dev, "history --kind configuration -o json").contains(digest));
}

#[test]
fn what_is_left_of_a_budget_decides() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    let policy = r#"
@id("keep-some")
@owner("finance@example.org")
@reason("the last tokens are for the answer")
forbid (principal in Class::"reader", action in [Action::"spawn", Action::"mint"], resource)
when { context.budget has tokens && context.budget.tokens < 50 };
"#;
    fs::write(dir.path().join("policies/a.cedar"), policy).unwrap();
    let config = "[policy]\ndir = \"policies\"\n[[classes]]\nname = \"reader\"\nowner = \"r\"\nscopes = [\"a:read\"]\n\
                  audiences = [\"https://a.example\"]\nmax_depth = 1\nbudget = { tokens = 100 }\n\
                  spawners = [\"workload/orchestrator\", \"class/reader\"]\n";
    fs::write(dir.path().join("extra.toml"), config).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class reader --user-token demo.jwt --out a1");
    dev.json("spawn --as a1 --class reader --out a2");
    dev.json("mint --as a2 --audience https://a.example");
    // The child has 100 of its own, and 49 of its parent's.
    dev.json("budget spend --as a1 --unit tokens 51");
    let told = dev.fails("mint --as a2 --audience https://a.example", 3);
    assert!(told.contains("POLICY_DENIED") && told.contains("finance@example.org"), "{told}");
    assert!(dev.fails("spawn --as a1 --class reader --out a3", 3).contains("keep-some"));
    // A workload's new agent would have a budget of its own.
    dev.json("spawn --class reader --user-token demo.jwt --out b1");
}

#[test]
fn t262_t263_the_first_token_of_an_agent_for_an_audience_is_told_from_later_ones() {
    let policy = r#"
@id("nowhere-new")
@owner("security@example.org")
@reason("an agent that has spent most goes where it has been")
forbid (principal in Class::"reader", action in [Action::"mint", Action::"exchange"], resource)
when { context has first_use && context.first_use && context.budget has ops && context.budget.ops < 5 };

@id("not-b")
@owner("b@example.org")
@reason("writers stay away")
forbid (principal in Class::"writer", action == Action::"mint", resource == Audience::"https://b.example");
"#;
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("policies/a.cedar"), policy).unwrap();
    let class = |name: &str| {
        format!(
            "[[classes]]\nname = \"{name}\"\nowner = \"r\"\nscopes = [\"a:read\"]\naudiences = [\"https://a.example\", \"https://b.example\"]\n\
             budget = {{ ops = 10 }}\nspawners = [\"workload/orchestrator\"]\n"
        )
    };
    let config = format!("[policy]\ndir = \"policies\"\n{}{}", class("reader"), class("writer"));
    fs::write(dir.path().join("extra.toml"), config).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class reader --user-token demo.jwt --out a1");
    dev.json("spawn --class reader --user-token demo.jwt --audience https://b.example --out a2");
    dev.json("mint --as a1 --audience https://a.example");
    for agent in ["a1", "a2"] {
        dev.json(&format!("budget spend --as {agent} --unit ops 6"));
    }
    let holds = |dev: &Dev| {
        // Where it has been it goes on, by either kind of token; nowhere else.
        dev.json("mint --as a1 --audience https://a.example");
        dev.json("exchange --as a1 --audience https://a.example");
        for way in ["mint", "exchange"] {
            let told = dev.fails(&format!("{way} --as a1 --audience https://b.example"), 3);
            assert!(told.contains("nowhere-new") && told.contains("security@example.org"), "{told}");
        }
        // The token that came with the spawn was the first one.
        dev.json("mint --as a2 --audience https://b.example");
    };
    holds(&dev);
    // T262: a first token with the spawn is a mint.
    let told = dev.fails("spawn --class writer --user-token demo.jwt --audience https://b.example --out w1", 3);
    assert!(told.contains("not-b") && told.contains("b@example.org"), "{told}");
    dev.json("spawn --class writer --user-token demo.jwt --audience https://a.example --out w1");
    // As it was recorded, after a restart too.
    let dev = Dev::start_args(dev.kill(), &["--config", "extra.toml"], &[]);
    holds(&dev);
    assert_eq!(dev.json("policy diff policies")["unknown"], serde_json::json!(["budget", "first_use"]));
}

#[test]
fn t255_the_groups_of_the_user_decide_and_are_recorded_with_the_delegation() {
    let policy = r#"
@id("guests-read")
@owner("security@example.org")
@reason("guests ask somebody")
forbid (principal, action == Action::"spawn", resource == Class::"researcher")
when { context has user && context.user in Group::"dev/guests" };

@id("guests-no-files")
@owner("files@example.org")
@reason("files are for the team")
forbid (principal in Group::"dev/guests", action in [Action::"mint", Action::"exchange"], resource == Audience::"https://files.example");

@id("another-provider")
@owner("security@example.org")
@reason("a group of the same name elsewhere is another group")
forbid (principal in Group::"corp/eng", action, resource);
"#;
    let dev = dev(policy);
    dev.token("guest", "guest.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out d1");
    dev.json("spawn --class worker --user-token demo.jwt --scope files:read --out d2");
    let told = dev.fails("spawn --class researcher --user-token guest.jwt --out g1", 3);
    assert!(told.contains("POLICY_DENIED") && told.contains("guests-read"), "{told}");
    dev.json("spawn --class worker --user-token guest.jwt --scope files:read --out g2");
    dev.json("mint --as d2 --audience https://files.example");
    assert!(dev.fails("mint --as g2 --audience https://files.example", 3).contains("guests-no-files"));
    // As it was recorded, after a restart too; and decided again the same.
    let dev = Dev::start_args(dev.kill(), &["--config", "extra.toml"], &[]);
    dev.json("mint --as d2 --audience https://files.example");
    assert!(dev.fails("mint --as g2 --audience https://files.example", 3).contains("guests-no-files"));
    let replayed = dev.json("replay --since 1h");
    let number = |name: &str| replayed[name].as_u64().unwrap();
    assert_eq!((number("decided") - number("denied"), number("tokens"), number("different")), (5, 2, 0), "{replayed}");
}

#[test]
fn t253_admissions_are_decided_again_by_the_policies_of_their_time() {
    let dev = dev(POLICIES);
    dev.json("spawn --class researcher --user-token demo.jwt --scope search:read --out a1");
    dev.json("spawn --as a1 --class worker --out w1");
    // From now on nobody spawns researchers.
    let later = POLICIES.replace("when { context.scopes.contains(Scope::\"mail:send\") }", "");
    fs::write(dev.path("policies/a.cedar"), later).unwrap();
    dev.json("reload");
    assert!(dev.fails("spawn --class researcher --user-token demo.jwt --scope search:read --out a2", 3).contains("no-mail"));
    let replayed = dev.json("replay --since 1h");
    // Beside the denial, which stands in the history a moment after its answer.
    let number = |of: &serde_json::Value, name: &str| of[name].as_u64().unwrap();
    let told = |of: &serde_json::Value| {
        (number(of, "decided") - number(of, "denied"), number(of, "different"), number(of, "policies_lost"))
    };
    assert_eq!(told(&replayed), (2, 0, 0), "{replayed}");
    // Without their texts they are decided by those of today, and that is told.
    for entry in fs::read_dir(dev.path(".mayfly/policies")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let out = dev.run("replay --since 1h -o json");
    assert_eq!(out.status.code(), Some(1));
    let replayed: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(told(&replayed), (2, 1, 2), "{replayed}");
}

#[test]
fn t323_governance_names_policies_that_are_due_for_review_and_owners_who_are_closed() {
    let text = r#"
@id("old") @owner("dev/guest") @reason("r") @review("2020-01-31")
forbid (principal, action, resource) when { context.depth > 9 };
@id("new") @owner("o") @reason("r") @review("2999-01-31")
forbid (principal, action, resource) when { context.depth > 9 };
@id("never") @owner("o") @reason("r")
forbid (principal, action, resource) when { context.depth > 9 };
"#;
    let dev = dev(text);
    let report = dev.json("governance");
    let reviews: Vec<_> = report["reviews"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["policy"].as_str().unwrap(), r["review"].as_str().unwrap()))
        .collect();
    assert_eq!(reviews, [("old", "2020-01-31"), ("never", "")]);
    assert_eq!(
        (&report["reviews"][0]["where"], &report["reviews"][0]["owner"]),
        (&"a.cedar:2 policy old".into(), &"dev/guest".into())
    );
    assert_eq!((&report["closed_owners"], &report["approvals"]), (&serde_json::json!([]), &serde_json::json!([])));
    dev.json("revoke --user dev/guest");
    let report = dev.json("governance");
    assert_eq!(report["closed_owners"][0]["where"], "a.cedar:2 policy old", "{report}");
    let told = ok(&dev, "governance");
    assert!(
        told.contains("policy old was due for review on 2020-01-31") && told.contains("policy never names no date"),
        "{told}"
    );
}

#[test]
fn t175_a_policy_that_cannot_be_evaluated_denies() {
    let broken = POLICIES.replace("context.scopes.contains(Scope::\"mail:send\")", "context.time.unix * 9223372036854775807 > 0");
    let dev = dev(&broken);
    let told = dev.fails("spawn --class researcher --user-token demo.jwt --scope search:read --out no", 3);
    assert!(told.contains("POLICY_FAILED") && told.contains("no-mail") && told.contains("security@example.org"), "{told}");
    // It is about no other class.
    ok(&dev, "spawn --class worker --user-token demo.jwt --out w1");
}

/// How the user signed in is that of the delegation, also for what is asked for later.
#[test]
fn the_age_of_the_sign_in_and_the_lineage_decide() {
    let text = r#"
@id("fresh") @owner("o") @reason("sign in again")
forbid (principal is Agent, action in [Action::"mint", Action::"renew"], resource)
unless { context has sign_in_age && context.sign_in_age < 3600 && !(context has acr) };
@id("long-ago") @owner("o") @reason("the user has signed in")
forbid (principal is Workload, action == Action::"spawn", resource == Class::"worker")
when { context has sign_in_age && context.sign_in_age >= 0 };
@id("tree") @owner("o") @reason("this tree exchanges nothing")
forbid (principal in Workload::"orchestrator", action == Action::"exchange", resource);
"#;
    let dev = dev(text);
    assert!(dev.fails("spawn --class worker --user-token demo.jwt --out no", 3).contains("long-ago"));
    ok(&dev, "spawn --class researcher --user-token demo.jwt --out a1");
    ok(&dev, "spawn --as a1 --class worker --out w1");
    ok(&dev, "mint --as w1 --audience https://search.example");
    ok(&dev, "renew --as a1");
    assert!(dev.fails("exchange --as w1 --audience https://search.example", 3).contains("tree"));
    // What is not known where sets are compared is told.
    let diff = dev.json("policy diff policies");
    assert_eq!(diff["unknown"], serde_json::json!(["acr", "sign_in_age"]));
}

#[test]
fn t176_nothing_starts_with_a_part_of_its_policies() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    let config = dir.path().join("mayfly.toml");
    let text =
        "trust_domain = \"t.example\"\n[policy]\ndir = \"DIR\"\n".replace("DIR", dir.path().join("policies").to_str().unwrap());
    fs::write(&config, text).unwrap();
    let check = || mayfly::config::Config::load(&config).map(drop).map_err(|faults| faults.to_string());
    assert!(check().unwrap_err().contains(".cedar"), "an empty folder is a mistake");
    fs::write(dir.path().join("policies/a.cedar"), POLICIES).unwrap();
    check().unwrap();
    fs::write(dir.path().join("policies/b.cedar"), SHADOW.replace("@owner(\"security@example.org\")", "")).unwrap();
    let told = check().unwrap_err();
    assert!(told.contains("policy.dir") && told.contains("b.cedar:2") && told.contains("@owner"), "{told}");
}
