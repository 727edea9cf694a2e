//! Examples at the end of each command's help. A test parses each of them.

use clap::Command;

/// A command by its path, and example lines. They work as they are if `mayfly dev` runs, or with other names filled in.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("", &["mayfly dev", "mayfly serve --config mayfly.toml"]),
    ("dev", &["mayfly dev", "mayfly dev --config more.toml"]),
    ("serve", &["mayfly serve --config /etc/mayfly/mayfly.toml"]),
    ("login", &["mayfly login", "mayfly login --device", "mayfly login --context prod"]),
    (
        "context",
        &["mayfly context add prod --server mayfly.example.org:8443 --bundle bundle.pem --as id", "mayfly context use prod"],
    ),
    ("context list", &["mayfly context list", "mayfly context list -o json"]),
    (
        "context add",
        &[
            "mayfly context add prod --server mayfly.example.org:8443 --bundle bundle.pem --login https://login.example.org --client mayfly-operators",
            "mayfly context add desk --as id",
        ],
    ),
    ("context use", &["mayfly context use prod"]),
    ("context remove", &["mayfly context remove prod"]),
    ("context show", &["mayfly context show", "mayfly context show prod -o json"]),
    ("config", &["mayfly config check mayfly.toml"]),
    ("config check", &["mayfly config check mayfly.toml"]),
    ("config diff", &["mayfly config diff new.toml", "mayfly config diff new.toml --against mayfly.toml"]),
    ("config example", &["mayfly config example > mayfly.toml"]),
    ("reload", &["mayfly reload", "mayfly reload -o json"]),
    ("join", &["mayfly join orchestrator > ticket", "mayfly join --attest token.jwt --out id --server mayfly.example.org:8443"]),
    ("redeem", &["mayfly redeem --ticket-file ticket --out id"]),
    ("renew", &["mayfly renew --as id"]),
    ("keep", &["mayfly keep id", "mayfly keep id a1 --once"]),
    (
        "spawn",
        &[
            "mayfly spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1",
            "mayfly spawn --as a1 --class worker --lease 30m --out a2",
            "mayfly spawn --as a1 --class worker --keyless",
            "mayfly spawn --class worker --user-token demo.jwt --count 100 --out many",
        ],
    ),
    (
        "run",
        &[
            "mayfly run --class researcher --user-token demo.jwt -- python agent.py",
            "mayfly run --ticket ticket --as id -- ./search-service",
        ],
    ),
    (
        "mint",
        &[
            "mayfly mint --as a1 --audience https://mail.example --out mail.jwt",
            "mayfly mint --as a1 --for 019a21a8-7c95-7000-8000-000000000000 --audience https://mail.example",
        ],
    ),
    ("exchange", &["mayfly exchange --as a1 --audience https://search.example --scope search:read"]),
    ("introspect", &["mayfly introspect --token-file token.jwt"]),
    (
        "ask",
        &[
            "mayfly ask --as a1 --audience https://bank.example --action '{\"type\":\"payment\",\"amount\":\"10.00\",\"currency\":\"EUR\"}' --wait",
        ],
    ),
    ("approve", &["mayfly approve 019a21a8-7c95-7000-8000-000000000000 --user-token me.jwt"]),
    ("deny", &["mayfly deny 019a21a8-7c95-7000-8000-000000000000 --user-token me.jwt"]),
    ("approvals", &["mayfly approvals list --user-token me.jwt"]),
    ("approvals list", &["mayfly approvals list --user-token me.jwt -o json"]),
    ("approvals show", &["mayfly approvals show 019a21a8-7c95-7000-8000-000000000000 --as a1"]),
    ("end", &["mayfly end --as a1", "mayfly end spiffe://dev.mayfly.test/agent/worker/019a21a8-7c95-7000-8000-000000000000"]),
    ("extend", &["mayfly extend --as a1 --user-token fresh.jwt", "mayfly extend --as a1 --user-token fresh.jwt --lease 2h"]),
    ("whoami", &["mayfly whoami --as a1"]),
    ("status", &["mayfly status", "mayfly status -o json"]),
    ("agents", &["mayfly agents list"]),
    ("agents list", &["mayfly agents list", "mayfly agents list --all -o json"]),
    ("agents tree", &["mayfly agents tree"]),
    ("agents show", &["mayfly agents show 019a21a8"]),
    ("budget", &["mayfly budget show 019a21a8"]),
    ("budget show", &["mayfly budget show 019a21a8 -o json"]),
    (
        "budget spend",
        &["mayfly budget spend --as a1 --unit tokens 1200", "mayfly budget spend --as a1 --unit usd 0.02 --reservation 17"],
    ),
    ("budget reserve", &["mayfly budget reserve --as a1 --unit usd 0.50 --life 60"]),
    ("budget release", &["mayfly budget release --as a1 17"]),
    (
        "revoke",
        &[
            "mayfly revoke --user dev/demo --reason 'lost laptop' --dry-run",
            "mayfly revoke --class worker",
            "mayfly revoke --before 2026-11-27T09:00:00Z",
        ],
    ),
    ("reopen", &["mayfly reopen --user dev/demo"]),
    ("cuts", &["mayfly cuts list"]),
    ("cuts list", &["mayfly cuts list -o json"]),
    ("crl", &["mayfly crl --out crl.pem"]),
    ("explain", &["mayfly explain a1", "mayfly explain -- spawn --class researcher --user-token demo.jwt --scope mail:delete"]),
    ("who-can", &["mayfly who-can search:read", "mayfly who-can mail:send --user dev/demo"]),
    ("what-if", &["mayfly what-if revoke --class worker", "mayfly what-if limit live-per-user 50"]),
    ("what-if revoke", &["mayfly what-if revoke --user dev/demo -o json"]),
    ("what-if limit", &["mayfly what-if limit live-per-user 50"]),
    ("what-if policy", &["mayfly what-if policy policies -o json"]),
    ("replay", &["mayfly replay --since 1h"]),
    ("governance", &["mayfly governance --since 30d -o json"]),
    ("history", &["mayfly history --since 1h", "mayfly history --user dev/demo -o json", "mayfly history --follow"]),
    ("history show", &["mayfly history show r12"]),
    ("history export", &["mayfly history export --format jsonl > history.jsonl"]),
    ("history prove", &["mayfly history prove r12"]),
    ("history verify", &["mayfly history verify"]),
    ("delegations", &["mayfly delegations list"]),
    ("delegations list", &["mayfly delegations list -o json"]),
    ("workloads", &["mayfly workloads list"]),
    ("workloads list", &["mayfly workloads list -o json"]),
    ("classes", &["mayfly classes list"]),
    ("classes list", &["mayfly classes list -o json"]),
    ("my", &["mayfly my agents --user-token me.jwt", "mayfly my stop --all --user-token me.jwt"]),
    ("watch", &["mayfly watch", "mayfly watch -o json"]),
    ("relay", &["mayfly relay --as id --listen 127.0.0.1:9000"]),
    ("guard", &["mayfly guard --as id --listen unix:/run/mayfly/guard.sock"]),
    (
        "deploy",
        &[
            "mayfly deploy systemd > mayfly.service",
            "mayfly deploy nginx --scope search:read > nginx.conf",
            "mayfly deploy postgres --class researcher > postgres.conf",
        ],
    ),
    ("authority", &["mayfly authority list"]),
    ("authority list", &["mayfly authority list -o json"]),
    ("authority prepare", &["mayfly authority prepare jwt"]),
    ("authority activate", &["mayfly authority activate jwt"]),
    ("authority rotate", &["mayfly authority rotate x509", "mayfly authority rotate x509 --now"]),
    ("authority retire", &["mayfly authority retire 3f1c"]),
    ("authority taint", &["mayfly authority taint 3f1c"]),
    ("policy", &["mayfly policy check policies", "mayfly policy example > policies/example.cedar"]),
    ("policy check", &["mayfly policy check policies"]),
    ("policy test", &["mayfly policy test policies", "mayfly policy test policies --cases more.toml"]),
    ("policy show", &["mayfly policy show"]),
    ("policy diff", &["mayfly policy diff policies"]),
    ("policy example", &["mayfly policy example > policies/example.cedar"]),
    ("policy schema", &["mayfly policy schema"]),
    ("bundle", &["mayfly bundle --format pem > bundle.pem"]),
    (
        "verify",
        &[
            "mayfly verify a1/svid.pem",
            "mayfly verify a1/svid.jwt --audience https://search.example",
            "mayfly verify a1/svid.pem --live",
        ],
    ),
    ("token", &["mayfly token demo > demo.jwt"]),
    ("backup", &["mayfly backup", "mayfly backup --out copy.db"]),
    ("backup restore", &["mayfly backup restore copy.db --config mayfly.toml"]),
    ("journal", &["mayfly journal check --config mayfly.toml"]),
    ("journal check", &["mayfly journal check --config mayfly.toml"]),
    ("journal repair-time", &["mayfly journal repair-time --config mayfly.toml"]),
    ("completion", &["mayfly completion bash > /etc/bash_completion.d/mayfly", "mayfly completion fish | source"]),
    ("man", &["mayfly man man1"]),
];

/// The command with its examples, and those of the commands below it.
pub(super) fn add(command: Command) -> Command {
    add_below(command, "")
}

fn add_below(mut command: Command, path: &str) -> Command {
    if let Some((_, lines)) = EXAMPLES.iter().find(|(listed, _)| *listed == path) {
        let title = if lines.len() == 1 { "Example:" } else { "Examples:" };
        command = command.after_help(format!("{title}\n  {}", lines.join("\n  ")));
    }
    let below: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in below {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(&name, |sub| add_below(sub, &path));
    }
    command
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// The arguments of a line, up to the first operator of the shell.
    fn words(line: &str) -> Vec<String> {
        let mine = line.split(['>', '|']).next().unwrap();
        let mut words = Vec::new();
        for (n, part) in mine.split('\'').enumerate() {
            if n % 2 == 1 { words.push(part.to_owned()) } else { words.extend(part.split_whitespace().map(str::to_owned)) }
        }
        words
    }

    #[test]
    fn each_example_is_a_command_of_the_help_that_it_stands_in() {
        for (path, lines) in EXAMPLES {
            for line in *lines {
                Cli::command().try_get_matches_from(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(line.starts_with(format!("mayfly {path}").trim_end()) || path.split(' ').count() == 1, "{path}: {line}");
            }
        }
    }

    #[test]
    fn each_command_that_is_listed_shows_an_example() {
        for sub in add(Cli::command()).get_subcommands() {
            assert!(sub.get_after_help().is_some(), "`{}` has no example", sub.get_name());
        }
    }
}
