//! The house rules that no compiler holds: arrows between rooms, floors and bans of dependencies, docs that follow the code.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A module, and the modules of this crate that it may use. Rooms are listed from the bottom up: a room uses the ones it is built
/// on, so there is no circle.
const ARROWS: &[(&str, &[&str])] = &[
    ("process", &[]),
    ("lenient", &[]),
    ("clock", &[]),
    ("claims", &[]),
    ("denial", &[]),
    ("journal", &[]),
    ("caller", &["denial"]),
    ("https", &[]),
    ("jose", &[]),
    ("keys", &["denial"]),
    // Files are written in one way: whole, and readable by their owner alone.
    ("assertion", &["claims", "https", "jose", "keys"]),
    ("csr", &["denial"]),
    ("state", &["clock", "journal"]),
    ("policies", &[]),
    ("judge", &["caller", "claims", "clock", "denial", "journal", "policies", "state"]),
    ("ledger", &["caller", "clock", "denial", "journal", "judge", "process", "state"]),
    ("svid", &["csr", "denial", "judge", "ledger"]),
    ("authority", &["clock", "csr", "denial", "judge", "keys", "ledger", "state", "svid"]),
    ("history", &["caller", "clock", "denial", "https", "journal", "keys", "ledger", "process", "state"]),
    ("pipeline", &["authority", "caller", "denial", "judge", "ledger", "process", "state"]),
    ("publish", &["authority", "clock", "denial", "ledger", "process", "state"]),
    ("foreign", &["clock", "https", "keys", "process"]),
    ("notify", &["https", "process"]),
    ("login", &["https", "keys"]),
    // People are asked by the same clients of their providers with which they sign in.
    (
        "acts",
        &[
            "assertion",
            "authority",
            "caller",
            "clock",
            "csr",
            "denial",
            "foreign",
            "history",
            "journal",
            "judge",
            "ledger",
            "login",
            "notify",
            "pipeline",
            "policies",
            "process",
            "publish",
            "state",
        ],
    ),
    ("why", &["acts", "caller", "clock", "denial", "history", "journal", "judge", "ledger", "policies", "state"]),
    // People sign in at the page as `mayfly login` signs them in.
    (
        "doors",
        &["acts", "authority", "caller", "clock", "denial", "history", "judge", "login", "policies", "publish", "state", "why"],
    ),
    ("listen", &["acts", "caller", "clock", "denial", "doors", "judge", "lenient", "process"]),
    ("envoy", &[]),
    ("sds", &["envoy"]),
    ("witness", &[]),
    ("guard", &["envoy", "lenient", "process", "sds", "witness"]),
    ("deploy", &[]),
    ("run", &["authority", "lenient", "process", "sds"]),
    ("dev", &["https", "process"]),
    ("folder", &[]),
    ("context", &["keys", "login"]),
    ("follow", &["folder", "process"]),
    ("home", &["authority", "clock", "journal", "keys", "ledger", "process", "state"]),
    ("config", &["assertion", "authority", "denial", "foreign", "history", "judge", "listen", "notify", "policies", "state"]),
    ("telemetry", &["config"]),
    (
        "app",
        &[
            "acts",
            "assertion",
            "authority",
            "caller",
            "clock",
            "config",
            "denial",
            "dev",
            "doors",
            "folder",
            "foreign",
            "history",
            "home",
            "journal",
            "keys",
            "ledger",
            "listen",
            "notify",
            "pipeline",
            "process",
            "publish",
            "state",
            "telemetry",
            "witness",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "authority",
            "clock",
            "config",
            "context",
            "deploy",
            "dev",
            "doors",
            "folder",
            "follow",
            "guard",
            "history",
            "home",
            "journal",
            "keys",
            "ledger",
            "listen",
            "login",
            "policies",
            "process",
            "publish",
            "run",
            "sds",
            "telemetry",
        ],
    ),
    ("main", &["cli"]),
    ("docs", &[]),
    ("lib", &[]),
];

/// Without its tests, which stand in modules; a module in a file of its own, wherever it is named, hides nothing.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut parts = text.split("#[cfg(test)]");
    code.push_str(parts.next().unwrap_or_default());
    for part in parts {
        // Past the item: to its semicolon, or to the brace that closes it.
        let (semicolon, brace) = (part.find(';').unwrap_or(usize::MAX), part.find('{').unwrap_or(usize::MAX));
        if semicolon < brace {
            code.push_str(&part[semicolon + 1..]);
            continue;
        }
        let mut depth = 0;
        let end = part.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            *c == '}' && depth == 0
        });
        code.push_str(end.map_or("", |(at, _)| &part[at + 1..]));
    }
    code
}

#[test]
fn tests_are_told_from_code() {
    let text = "use a;\n#[cfg(test)]\nmod t;\nuse b;\n#[cfg(test)]\nmod tests { fn x() { y() } }\nuse c;";
    let code = without_tests(text);
    assert!(["use a;", "use b;", "use c;"].iter().all(|kept| code.contains(kept)) && !code.contains("y()"), "{code}");
}

#[test]
fn rooms_use_only_what_they_may() {
    let mut used_arrows = BTreeSet::new();
    for (file, text) in sources(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        let module = file.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        let allowed = ARROWS.iter().find(|(m, _)| *m == module).map(|(_, to)| *to);
        let allowed = allowed.unwrap_or_else(|| panic!("`{module}` is not in the list of arrows"));
        let code = without_tests(&text);
        let used = code.split("crate::").skip(1).chain(code.split("mayfly::").skip(1).filter(|_| module == "main"));
        for used in used {
            let to: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if to.is_empty() {
                continue; // A constant of the root.
            }
            assert!(to == module || allowed.contains(&to.as_str()), "{file}: `{module}` may not use `{to}`");
            used_arrows.insert((module.clone(), to));
        }
    }
    for (module, allowed) in ARROWS {
        for to in *allowed {
            let used = used_arrows.contains(&((*module).to_owned(), (*to).to_owned()));
            assert!(used, "`{module}` does not use `{to}`: take the arrow off the list");
        }
    }
}

#[test]
fn there_is_no_circle_between_rooms() {
    // Every room uses only rooms that were listed before it, so the list is an order.
    let mut before = BTreeSet::new();
    for (module, allowed) in ARROWS {
        for to in *allowed {
            assert!(before.contains(to), "`{module}` uses `{to}`, which is listed after it");
        }
        before.insert(*module);
    }
}

/// Bounds of the house: files that one can read in one go, and no room that holds half of it.
#[test]
fn no_file_is_long_and_no_room_is_large() {
    let lines = |text: &str| text.lines().count();
    for root in ["src", "agent-sdk", "loadtest"] {
        for (file, text) in sources(Path::new(root)) {
            let generated = file.starts_with("agent-sdk/src/api/") || file.contains("/target/");
            let count = lines(&text);
            assert!(is_test(&file) || generated || count <= 400, "{file} has {count} lines");
        }
    }
    let mut rooms = std::collections::BTreeMap::<String, usize>::new();
    for (file, text) in sources(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        let room = file.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        *rooms.entry(room).or_default() += lines(&text);
    }
    let all: usize = rooms.values().sum();
    for (room, count) in &rooms {
        // The commands are wide and not deep: a file for each.
        assert!(count * 100 < all * 14, "`{room}` has {count} of {all} lines");
    }
}

/// Where threads and tasks are started that do not last as long as the process, or where a panic ends nothing else.
const SHORT_LIVED: &[(&str, &str)] = &[
    ("src/assertion/oidc.rs", "one attempt to fetch the keys of a provider"),
    ("src/cli/bounded.rs", "one reading of files, which ends with its command"),
    ("src/dev/provider.rs", "the development provider, which other commands replace"),
    ("src/doors/grpc.rs", "one request, whose caller hears of a panic"),
    ("src/doors/grpc/batches.rs", "the answers of one request"),
    ("src/doors/grpc/bundles.rs", "one subscriber"),
    ("src/doors/grpc/revocations.rs", "one subscriber"),
    ("src/ledger/replay.rs", "a part of the start, which fails with it"),
    ("src/pipeline.rs", "a part of one group, and its answers"),
    ("src/policies/set.rs", "a part of reading a set, which fails with it"),
    ("src/run.rs", "another program: it ends with its command"),
    ("src/run/command.rs", "another program: it ends with its command"),
    ("src/run/workload.rs", "one subscriber"),
    ("src/sds/stream.rs", "one subscriber"),
];

#[test]
fn t92_what_lasts_as_long_as_the_process_is_started_in_one_place() {
    let mut starting = BTreeSet::new();
    for (file, text) in sources(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        let code = without_tests(&text);
        let starts = ["tokio::spawn(", "thread::spawn(", "thread::Builder", "thread::scope(", "runtime.spawn("];
        if starts.iter().any(|start| code.contains(start)) && file != "src/process/vital.rs" {
            assert!(SHORT_LIVED.iter().any(|(listed, _)| *listed == file), "{file}: start it with `process::thread` or `task`");
            starting.insert(file);
        }
    }
    for (file, why) in SHORT_LIVED {
        assert!(starting.contains(*file), "{file} starts nothing any more ({why}): take it off the list");
    }
}

/// Rooms whose tables are parts of the configuration, of one request, or of one command.
const NO_TABLES: &[&str] = &["cli", "config", "dev", "home", "judge", "policies", "svid", "why"];

/// The files with tables that live as long as the process. What bounds each of them is a word of that file, for what callers choose.
const TABLES: &[(&str, &str, &str)] = &[
    ("src/acts.rs", "Providers", "as many as are configured"),
    ("src/acts/client.rs", "USES", "uses of JWT-SVIDs, until those expire"),
    ("src/acts/ping.rs", "MOST", "tokens, until their approvals are answered or end"),
    ("src/acts/poll.rs", "POLLS", "polls, for ten minutes"),
    ("src/acts/revoke.rs", "Reach", "of one dry run, of which there is one at a time"),
    ("src/acts/throttle.rs", "READINGS", "readings, until they say nothing"),
    ("src/app/joined.rs", "WORKLOADS", "as many as development has"),
    ("src/authority.rs", "keystore", "as many as there are signing keys"),
    ("src/doors/page/begun.rs", "MOST", "sign-ins that were answered, for ten minutes, some for each network"),
    ("src/doors/page/session.rs", "MOST", "sessions, which end by themselves, some for each person"),
    ("src/doors/peer.rs", "Guarded", "as many as there are connections, which have places"),
    ("src/foreign.rs", "Domain", "as many as are configured"),
    ("src/guard/lists.rs", "Written", "the lists of the issuer's authorities, while they are written"),
    ("src/history/flood.rs", "fixed sets", "as many as there are reason codes"),
    ("src/history/inbox.rs", "OTHERS", "what waits to be written"),
    ("src/history/log.rs", "bundles", "what is not written yet"),
    ("src/ledger/lane.rs", "pop", "as many as there are places in the pipeline"),
    ("src/ledger/repair.rs", "Found", "of one command"),
    ("src/listen/budget.rs", "remove", "as many as there are requests, which pay"),
    ("src/listen/places.rs", "one_less", "as many as there are places"),
    ("src/listen/turns.rs", "is_closed", "as many as there are handshakes, which have places"),
    ("src/pipeline/places.rs", "give_back", "as many as there are places"),
    ("src/pipeline/turns.rs", "remove", "as many as there are places in the pipeline"),
    ("src/publish/feed/ring.rs", "pop_front", "the last ticks"),
    ("src/publish/feed/set.rs", "expire", "cuts, until the last credential that they kill has ended"),
    ("src/publish/feed/subscribers.rs", "Drop for Joined", "as many as there are streams"),
    ("src/run/files.rs", "PLAIN", "the files of one identity"),
    ("src/run/folder.rs", "LINKS", "the parts of one path"),
    ("src/sds/secrets.rs", "NAMES", "as many as there are bundles"),
    ("src/state.rs", "expiry", "everything that a record makes has an end in `src/state/expiry.rs`"),
    ("src/state/agent.rs", "taken_back", "`writes.taken_back_below`"),
    ("src/state/budget.rs", "forgotten", "until the agent is forgotten"),
    ("src/state/mandate.rs", "MOST", "a cache"),
    ("src/state/overlay.rs", "run_out", "of one batch"),
];

/// A table that callers fill and nothing empties is a way to end the process (T231).
#[test]
fn t231_every_table_that_lives_as_long_as_the_process_says_what_bounds_it() {
    let kinds = ["HashMap<", "BTreeMap<", "HashSet<", "BTreeSet<", "VecDeque<"];
    let mut found = BTreeSet::new();
    for (file, text) in sources(Path::new("src")).into_iter().filter(|(file, _)| !is_test(file)) {
        let room = file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        if NO_TABLES.contains(&room) {
            continue;
        }
        let (code, mut inside) = (without_tests(&text), false);
        for line in code.lines() {
            let begins = line.starts_with("struct ") || line.starts_with("pub") && line.contains("struct ");
            let holds = !line.trim_start().starts_with("//") && kinds.iter().any(|kind| line.contains(kind));
            if holds && (inside || begins) {
                found.insert(file.clone());
            }
            inside = (inside || begins && line.ends_with('{')) && line != "}";
        }
        if found.contains(&file) {
            let listed = TABLES.iter().find(|(of, ..)| *of == file);
            let (_, bound, _) =
                listed.unwrap_or_else(|| panic!("{file} has a table: say in the list of this test what bounds it"));
            assert!(text.contains(bound), "{file}: its table was bounded by `{bound}`, which is gone");
        }
    }
    for (file, _, why) in TABLES {
        assert!(found.contains(*file), "{file} has no table any more ({why}): take it off the list");
    }
}

/// The compiler holds this: [`mayfly::ledger::Recorded`] has no public constructor, and the seal takes nothing else. What types
/// cannot say is that nobody goes around the seal.
#[test]
fn t11_only_recorded_permits_reach_a_signature() {
    let mut callers = BTreeSet::new();
    for (file, text) in sources(Path::new("src")) {
        let code = without_tests(&text);
        if [".sign_x509(", ".sign_jwt(", ".sign_heartbeat("].iter().any(|call| code.contains(call)) {
            callers.insert(file);
        }
    }
    // The server's own certificate, SVIDs, the watermark, and the feed.
    let expected =
        ["src/authority.rs", "src/authority/seal.rs", "src/home.rs", "src/publish/feed/speaker.rs"].map(String::from).into();
    assert_eq!(callers, expected);
}

/// The words of the lines of `.ci/dependencies` that begin with `kind`, without it.
fn listed(kind: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(".ci/dependencies").unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn t45_dependencies_keep_their_floors_and_the_banned_stay_out() {
    let lock = fs::read_to_string("Cargo.lock").unwrap();
    let mut packages = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = block.lines().find(|l| l.starts_with(&format!("{name} = "))).unwrap();
            line.split('"').nth(1).unwrap().to_owned()
        };
        packages.push((field("name"), field("version")));
    }
    let parts = |v: &str| v.split(['.', '-', '+']).take(3).map(|p| p.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    let floors = listed("floor");
    assert!(floors.len() >= 9, "the list is read");
    for floor in floors {
        let [name, floor, _, ..] = floor.as_slice() else { panic!("{floor:?}: name, version, and what it mends") };
        let versions: Vec<_> = packages.iter().filter(|(n, _)| n == name).collect();
        assert!(!versions.is_empty(), "{name} is gone: take it off the list");
        for (_, version) in versions {
            assert!(parts(version) >= parts(floor), "{name} {version} is below {floor}");
        }
    }
    // The lock file also names what no feature of ours turns on: ask for the graph.
    let graph = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--target", "all", "--edges", "all", "--prefix", "none", "--format", "{p}|{l}"])
        .output()
        .unwrap();
    assert!(graph.status.success(), "{}", String::from_utf8_lossy(&graph.stderr));
    let graph = String::from_utf8(graph.stdout).unwrap();
    assert!(graph.lines().any(|l| l.starts_with("aws-lc-rs ")));
    for banned in listed("ban") {
        assert!(!graph.lines().any(|l| l.split(' ').next() == Some(&banned[0])), "{} is banned", banned[0]);
    }
    let allowed: BTreeSet<String> = listed("licence").into_iter().flatten().collect();
    for (package, licence) in graph.lines().filter_map(|line| line.split_once('|')) {
        let licence = licence.trim_end_matches(" (*)");
        assert!(may_use(licence, &allowed), "{package}: `{licence}` is not in .ci/dependencies");
    }
}

/// Whether an SPDX expression is satisfied by these licences. The slash of older manifests means OR.
fn may_use(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    either(&mut words.as_slice(), allowed)
}

/// `a OR b`, the words of which it takes.
fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut holds = both(words, allowed);
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        holds = both(words, allowed) || holds;
    }
    holds
}

/// `a AND b`, which binds more closely.
fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut holds = true;
    loop {
        let word = words[0];
        *words = &words[1..];
        holds &= if word == "(" { either(words, allowed) } else { allowed.contains(word) };
        if word == "(" {
            *words = &words[1..];
        } else if words.first() == Some(&"WITH") {
            // An exception only gives more.
            *words = &words[2..];
        }
        if words.first() != Some(&"AND") {
            return holds;
        }
        *words = &words[1..];
    }
}

#[test]
fn a_licence_is_allowed_if_one_of_its_alternatives_is() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0"].map(String::from).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 AND MIT OR MIT", true),
        ("MIT AND (GPL-3.0 OR Apache-2.0)", true),
        ("(GPL-3.0 OR LGPL-3.0) AND MIT", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
    ] {
        assert_eq!(may_use(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn the_operators_page_lists_every_metric() {
    let page = fs::read_to_string("src/docs/operate.md").unwrap();
    for (name, kind, labels, help) in mayfly::telemetry::CATALOGUE {
        let labels = if labels.is_empty() { String::new() } else { format!("{labels} ") };
        let row = format!("| `{name}` | {kind} | {labels}| {help} |");
        assert!(page.contains(&row), "src/docs/operate.md lacks: {row}");
    }
    // And the code records nothing else.
    for (file, text) in sources(Path::new("src")) {
        for found in text.split("\"mayfly_").skip(1) {
            let name = format!("mayfly_{}", found.split('"').next().unwrap());
            assert!(mayfly::telemetry::CATALOGUE.iter().any(|(n, ..)| *n == name), "{file}: {name} is not in the catalogue");
        }
    }
}

#[test]
fn t12_every_method_of_the_api_stands_in_the_table_of_access() {
    let proto = fs::read_to_string("proto/mayfly/v1/mayfly.proto").unwrap();
    let mut methods = BTreeSet::new();
    for service in proto.split("\nservice ").skip(1) {
        let name = service.split(' ').next().unwrap();
        for rpc in service.split("\n}").next().unwrap().split("  rpc ").skip(1) {
            methods.insert(format!("{name}/{}", rpc.split('(').next().unwrap()));
        }
    }
    let listed: BTreeSet<String> = mayfly::doors::grpc::METHODS.iter().map(|m| m.name.to_owned()).collect();
    assert_eq!(methods, listed);
    // And what they ask for is in the table of roles.
    for method in mayfly::doors::grpc::METHODS {
        assert!(!mayfly::judge::access::roles(method.action).is_empty(), "`{}` is nobody's", method.name);
    }
}

/// A file that is compiled for tests alone.
fn is_test(file: &str) -> bool {
    file.contains("/tests/") || file.ends_with("/tests.rs") || file.ends_with("/model.rs")
}

fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}
