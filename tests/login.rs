//! Sign-in of people: by a browser and by another device, at a provider on this machine that keeps the rules or breaks them; the tokens that
//! are kept; and the named places that say whom to ask.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "support/idp.rs"]
mod idp;
#[path = "support/raw.rs"]
mod raw;
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use idp::Idp;
use serde_json::{Value, json};
use support::{BIN, Dev, channel};
use tonic_types::StatusExt as _;

/// An issuer whose operators and users are people of a provider, and a desk elsewhere that has none of its files.
struct World {
    dev: Dev,
    idp: Idp,
    desk: tempfile::TempDir,
}

impl World {
    fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let idp = Idp::start(&dir.path().join("corp.pem"));
        let config = format!(
            "[[issuers]]\nname = \"corp\"\nissuer = \"{url}\"\nca_file = \"{ca}\"\n[[issuers.audiences]]\naudience = \"mine\"\nuser = true\n\
             workloads = [\"orchestrator\"]\n[[operators]]\nissuer = \"corp\"\naudience = \"ops\"\ncontains = {{ groups = \"ops\" }}\n",
            url = idp.url(),
            ca = dir.path().join("corp.pem").display(),
        );
        std::fs::write(dir.path().join("more.toml"), config).unwrap();
        let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
        let desk = tempfile::tempdir().unwrap();
        for (from, to) in [("corp.pem", "corp.pem"), (".mayfly/workloads/orchestrator/bundle.pem", "bundle.pem")] {
            std::fs::copy(dev.path(from), desk.path().join(to)).unwrap();
        }
        let world = World { dev, idp, desk };
        for (name, client) in [("ops", "ops"), ("mine", "mine")] {
            world.json(&format!(
                "context add {name} {} --login {} --client {client} --login-ca corp.pem",
                world.at(),
                world.idp.url()
            ));
        }
        world
    }

    /// Where the issuer is, as options.
    fn at(&self) -> String {
        format!("--server {} --bundle bundle.pem", self.dev.text("grpc"))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(BIN);
        command
            .args(line.split_whitespace())
            .current_dir(self.desk.path())
            .env("XDG_CONFIG_HOME", self.desk.path().join("config"));
        ["MAYFLY_HOME", "MAYFLY_SERVER", "MAYFLY_CONTEXT"].iter().fold(&mut command, |command, name| command.env_remove(name));
        command
    }

    /// Runs a command at the desk, which must succeed and print JSON.
    fn json(&self, line: &str) -> Value {
        let out = self.command(&format!("{line} -o json")).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn fails(&self, line: &str, code: i32) -> String {
        let out = self.command(line).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{line}: {text}");
        text
    }

    /// Begins a sign-in at a place, up to the page that a person visits.
    fn begin(&self, context: &str) -> Waiting {
        let line = format!("login --no-browser --context {context} -o json");
        let mut child = self.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let page = line.trim().strip_prefix("sign in at ").map(str::to_owned);
        Waiting { child, said, page: page.ok_or(line) }
    }

    /// Signs in at a place.
    fn sign_in(&self, context: &str) -> Value {
        let waiting = self.begin(context);
        let back = self.idp.approve(waiting.page.as_ref().unwrap(), |_| ());
        assert!(get(&back).contains("You are signed in"));
        let out = waiting.ended();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn kept(&self, context: &str) -> PathBuf {
        self.desk.path().join(format!("config/mayfly/contexts/{context}/login.json"))
    }
}

/// A sign-in that waits for its person.
struct Waiting {
    child: Child,
    said: BufReader<ChildStderr>,
    /// The page; or what was said in its place.
    page: Result<String, String>,
}

impl Waiting {
    fn ended(mut self) -> Output {
        let mut stderr = self.page.err().unwrap_or_default().into_bytes();
        self.said.read_to_end(&mut stderr).unwrap();
        let out = self.child.wait_with_output().unwrap();
        Output { stderr, ..out }
    }

    /// It must fail, and say why.
    fn fails(self, code: i32, told: &str) {
        let out = self.ended();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), text.contains(told)), (Some(code), true), "{told}: {text}");
    }
}

/// What a browser gets from a page on loopback.
fn get(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_person_signs_in_by_a_browser_and_operates_from_a_desk_without_a_home() {
    let world = World::start();
    world.dev.token("demo", "demo.jwt");
    world.dev.json("spawn --class researcher --user-token demo.jwt --out a");
    assert!(world.fails("agents list --context ops", 3).contains("mayfly login"));
    let signed = world.sign_in("ops");
    assert_eq!(
        (&signed["user"]["sub"], &signed["audiences"], &signed["refreshes"]),
        (&json!("alice"), &json!(["ops"]), &json!(true))
    );
    assert_eq!(world.kept("ops").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Everything that an operator may from elsewhere, by the token alone.
    let agents = world.json("agents list --context ops");
    let agent = agents["agents"][0]["agent_id"].as_str().unwrap().to_owned();
    assert_eq!(agents["agents"][0]["user_name"], "dev/demo");
    // As `--user` takes it everywhere: by the name of the provider, which tells two people of the same name apart.
    let of = |user: &str| world.json(&format!("agents list --context ops --user {user}"))["agents"].as_array().unwrap().len();
    assert_eq!([of("dev/demo"), of("demo"), of("corp/demo"), of("dev/guest")], [1, 1, 0, 0]);
    world.json("context use ops");
    for line in [
        "agents tree",
        "classes list",
        "cuts list",
        "history --since 1h",
        "authority list",
        "status",
        "workloads list",
        "delegations list",
    ] {
        world.json(line);
    }
    assert_eq!(world.json(&format!("verify --agent {agent}"))["state"], "live");
    assert!(world.json("join orchestrator")["token"].is_string());
    let revoked = world.json(&format!("revoke --agent {agent} --reason INC-1 --wait"));
    assert!(revoked["revision"].is_u64());
    let entries = world.json("history --kind revocation");
    assert_eq!(
        (&entries["entries"][0]["caller"], &entries["entries"][0]["reason"]),
        (&json!("user:corp/alice"), &json!("INC-1"))
    );
    std::fs::copy(world.dev.path("a/svid.pem"), world.desk.path().join("svid.pem")).unwrap();
    std::fs::copy(world.dev.path("a/bundle.json"), world.desk.path().join("bundle.json")).unwrap();
    assert_eq!(world.command("verify svid.pem --live").output().unwrap().status.code(), Some(6));
    // The list names who is signed in, and shows no token.
    let shown = String::from_utf8(world.command("context list").output().unwrap().stdout).unwrap();
    assert!(shown.contains("signed in as alice") && shown.contains("* ops") && !shown.contains("eyJ"), "{shown}");
    let refresh = serde_json::from_slice::<Value>(&std::fs::read(world.kept("ops")).unwrap()).unwrap()["refresh_token"].clone();
    let forgotten = world.json("login --forget");
    assert_eq!((&forgotten["forgotten"], &forgotten["revoked"]), (&json!(true), &json!(true)));
    assert_eq!(json!(world.idp.revoked()), json!([refresh]), "the provider has ended the sign-in");
    assert_eq!(world.json("login --forget")["forgotten"], false);
    assert!(!world.kept("ops").exists());
    assert!(world.fails("agents list", 3).contains("you are not signed in"));
}

#[test]
fn a_client_with_a_secret_signs_in_by_it_and_what_the_provider_was_not_told_is_said() {
    let world = World::start();
    // Of both forms in which a secret is sent, with characters that have to be encoded.
    for (n, breaks) in ["", "secrets"].into_iter().enumerate() {
        world.idp.breaks(breaks);
        world.idp.needs_secret(Some("a:b%c d+e"));
        let waiting = world.begin("ops");
        get(&world.idp.approve(waiting.page.as_ref().unwrap(), |_| ()));
        waiting.fails(3, "invalid_client");
        let file = world.desk.path().join("secret");
        std::fs::write(&file, "a:b%c d+e\n").unwrap();
        let name = format!("confidential{n}");
        let add = format!("context add {name} {} --login {} --client ops --login-ca corp.pem", world.at(), world.idp.url());
        world.json(&format!("{add} --client-secret-file secret"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let waiting = world.begin(&name);
        get(&world.idp.approve(waiting.page.as_ref().unwrap(), |_| ()));
        waiting.fails(1, "secret of the client");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        world.sign_in(&name);
        world.idp.lives(20);
        let device = world.json(&format!("login --device --context {name}"));
        assert_eq!(device["user"]["sub"], "alice");
        world.idp.lives(600);
        world.json(&format!("cuts list --context {name}"));
        assert_eq!(world.idp.refreshed(), n + 1, "by the secret too");
        // A secret that counts no more: nothing is kept here, and the provider may still count it.
        world.idp.needs_secret(Some("another"));
        assert!(world.fails(&format!("login --forget --context {name}"), 3).contains("forgotten here"));
        assert!(!world.kept(&name).exists());
    }
    world.idp.needs_secret(None);
    world.sign_in("ops");
    world.idp.breaks("revocation");
    let forgotten = world.json("login --forget --context ops");
    assert_eq!((&forgotten["forgotten"], &forgotten["revoked"]), (&json!(true), &json!(false)), "it has no such endpoint");
}

#[test]
fn a_person_signs_in_for_themself_and_spawns_sees_and_stops_what_acts_for_them() {
    let world = World::start();
    world.sign_in("mine");
    let id = world.desk.path().join("id");
    std::fs::create_dir(&id).unwrap();
    for file in ["svid.pem", "key.pem", "bundle.pem", "bundle.json"] {
        std::fs::copy(world.dev.path(&format!(".mayfly/workloads/orchestrator/{file}")), id.join(file)).unwrap();
    }
    // A workload that is told no user spawns for who has signed in; an agent spawns for the user of its own.
    let agent = world.json("spawn --context mine --as id --class researcher --out a");
    assert_eq!(agent["user"]["sub"], "alice");
    world.json("spawn --context mine --as a --class worker --out w");
    assert_eq!(world.json("my agents --context mine")["agents"].as_array().unwrap().len(), 2);
    world.json(&format!("my stop {} --context mine", agent["agent_id"].as_str().unwrap()));
    assert!(world.json("my agents --context mine")["agents"].as_array().unwrap().is_empty());
    // What speaks for a user operates nothing.
    assert!(world.fails("agents list --context mine", 3).contains("USER_TOKEN_AUDIENCE"));
}

#[test]
fn t243_nobody_else_answers_a_sign_in_and_what_a_provider_says_is_checked() {
    let world = World::start();
    // Other programs of this machine know neither the state nor a way to end the sign-in.
    let waiting = world.begin("ops");
    let back = world.idp.approve(waiting.page.as_ref().unwrap(), |_| ());
    let (at, _) = back.split_once('?').unwrap();
    for query in ["", "?code=stolen", "?code=stolen&state=guessed", "?error=access_denied&state=", "?state=guessed&iss=x"] {
        assert!(get(&format!("{at}{query}")).starts_with("HTTP/1.1 400"), "{query}");
    }
    assert!(get(&back).starts_with("HTTP/1.1 200"));
    assert!(waiting.ended().status.success());
    // Answers that are not of this provider, this sign-in or this client.
    type Bends = fn(&mut idp::Answer);
    let answers: [(&str, Bends, i32); 5] = [
        ("from another provider", |a| a.iss = Some("https://other.example".into()), 1),
        ("from another provider", |a| a.iss = None, 1),
        ("access_denied", |a| a.error = Some("access_denied".into()), 3),
        ("from another sign-in", |a| a.nonce = Some("another".into()), 1),
        ("for another client", |a| a.audience = Some("mine".into()), 1),
    ];
    for (told, change, code) in answers {
        let waiting = world.begin("ops");
        let back = world.idp.approve(waiting.page.as_ref().unwrap(), change);
        get(&back);
        waiting.fails(code, told);
    }
    // A code that somebody else redeems is worth nothing without the verifier.
    let waiting = world.begin("ops");
    world.idp.approve(waiting.page.as_ref().unwrap(), |answer| answer.challenge = Some("another".into()));
    let back = world.idp.approve(waiting.page.as_ref().unwrap(), |answer| answer.challenge = Some("another".into()));
    get(&back);
    waiting.fails(3, "invalid_grant");
    // A provider that is not who it should be, or sends a person to a page without TLS.
    for (what, told) in
        [("issuer", "calls itself"), ("page", "is no page for a sign-in"), ("garbage", "cannot be used"), ("long", "more than")]
    {
        world.idp.breaks(what);
        world.begin("ops").fails(1, told);
    }
    world.idp.breaks("");
    // What was kept is of the last sign-in that succeeded.
    assert_eq!(world.json("context show ops")["user"]["sub"], "alice");
}

#[test]
fn a_person_signs_in_on_another_device() {
    let world = World::start();
    world.idp.device_waits(1);
    let out = world.command("login --device --context ops -o json").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    assert!(said.contains("/device") && said.contains("WDJB-MJHT"), "{said}");
    world.json("agents list --context ops");
    // Refused there, and by a provider without such a page.
    world.idp.device_refuses();
    assert!(world.fails("login --device --context ops", 3).contains("access_denied"));
    world.idp.breaks("device");
    assert!(world.fails("login --device --context ops", 1).contains("sign in with a browser"));
}

#[test]
fn a_token_that_ends_is_refreshed_once_for_all_commands_and_a_sign_in_that_ends_is_told() {
    let world = World::start();
    // It ends within the margin, so each command would refresh it.
    world.idp.lives(20);
    world.sign_in("ops");
    world.idp.lives(600);
    let commands: Vec<Child> = (0..4)
        .map(|_| world.command("cuts list --context ops").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for command in commands {
        let out = command.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(world.idp.refreshed(), 1, "a refresh token counts once");
    // A token that is too old for issuers is refreshed before its end.
    world.idp.issued_ago(3400);
    world.sign_in("ops");
    world.idp.issued_ago(0);
    world.json("cuts list --context ops");
    assert_eq!(world.idp.refreshed(), 2);
    // The provider has ended the sign-in: it is said, and nothing of it stays.
    world.idp.lives(20);
    world.sign_in("ops");
    world.idp.ends_sign_ins();
    assert!(world.fails("cuts list --context ops", 3).contains("your sign-in has ended: sign in with `mayfly login`"));
    assert!(!world.kept("ops").exists());
}

#[test]
fn t244_a_token_is_kept_for_its_owner_and_sent_to_the_issuer_of_its_place_alone() {
    let world = World::start();
    world.sign_in("ops");
    let kept = world.kept("ops");
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(world.fails("cuts list --context ops", 1).contains("others may read the tokens"));
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Another issuer, of other roots, under the address that an attacker or a mistake says: it is sent nothing.
    let other = Dev::start();
    let told = world.fails(&format!("cuts list --context ops --server {}", other.text("grpc")), 5);
    assert!(!told.contains("eyJ"), "{told}");
    assert_eq!(other.json("history --kind denial")["entries"], json!([]));
    // A token of one client is not used for another, whatever lies in the folder.
    std::fs::copy(&kept, world.kept("mine")).unwrap();
    std::fs::set_permissions(world.kept("mine"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(world.fails("my agents --context mine", 3).contains("for another client"));
}

#[test]
fn t244_an_option_wins_over_the_environment_and_that_over_the_chosen_place_and_nobody_guesses() {
    let world = World::start();
    world.sign_in("ops");
    let nowhere = "127.0.0.1:1";
    world.json(&format!(
        "context add wrong --server {nowhere} --bundle bundle.pem --login {} --client ops --login-ca corp.pem",
        world.idp.url()
    ));
    std::fs::copy(world.kept("ops"), world.kept("wrong")).unwrap();
    let code = |line: &str, envs: &[(&str, &str)]| {
        let out = world.command(line).envs(envs.iter().copied()).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let right = world.dev.text("grpc");
    world.json("context use wrong");
    let home = world.dev.path(".mayfly").display().to_string();
    for (line, envs, expected) in [
        ("cuts list".to_owned(), vec![], 5),
        ("cuts list --context ops".into(), vec![], 0),
        ("cuts list".into(), vec![("MAYFLY_CONTEXT", "ops")], 0),
        ("cuts list --context wrong".into(), vec![("MAYFLY_CONTEXT", "ops")], 5),
        ("cuts list".into(), vec![("MAYFLY_SERVER", right.as_str())], 0),
        ("cuts list --context wrong".into(), vec![("MAYFLY_SERVER", right.as_str())], 5),
        (format!("cuts list --context wrong --server {right}"), vec![], 0),
        (format!("cuts list --context ops --server {nowhere}"), vec![], 5),
        (format!("cuts list --home {home}"), vec![("MAYFLY_CONTEXT", "wrong")], 0),
        ("cuts list".into(), vec![("MAYFLY_HOME", home.as_str())], 0),
        (format!("cuts list --home {home} --context ops"), vec![], 2),
        ("cuts list".into(), vec![("MAYFLY_HOME", home.as_str()), ("MAYFLY_CONTEXT", "ops")], 2),
        ("cuts list --context nobody".into(), vec![], 2),
        ("cuts list --context ../ops".into(), vec![], 2),
    ] {
        let (got, told) = code(&line, &envs);
        assert_eq!(got, expected, "{line} {envs:?}: {told}");
    }
    // A home here and a place that was chosen before: it could be either.
    let out = world.command("cuts list").current_dir(world.dev.dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && told.contains("--home .mayfly") && told.contains("--context wrong"), "{told}");
    // A place for an identity, which says where its issuer is.
    let id = world.dev.path(".mayfly/workloads/orchestrator").display().to_string();
    world.json(&format!("context add desk --as {id} --server {right}"));
    world.json("agents list --context desk");
    world.json("context remove wrong");
    assert!(world.fails("cuts list", 5).contains("there is no issuer"), "nobody is chosen any more");
    let all = world.json("context list");
    let names: Vec<_> = all["contexts"].as_array().unwrap().iter().map(|context| context["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["desk", "mine", "ops"]);
    for (line, told) in [
        ("context add x --server nowhere --bundle bundle.pem", "HOST:PORT"),
        ("context add x --bundle bundle.pem", "--server"),
        ("context add x --server 127.0.0.1:1", "--bundle"),
        ("context add ops --server 127.0.0.1:1 --bundle bundle.pem", "--force"),
        ("context add x --server 127.0.0.1:1 --bundle bundle.pem --login http://a --client b", "https"),
        ("context add x --server 127.0.0.1:1 --bundle corp.jwt", "corp.jwt"),
        ("login --context desk", "mayfly context add"),
    ] {
        let out = world.command(line).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(told), "{line}: {text}");
    }
}

#[test]
fn beside_mayfly_dev_a_person_signs_in_at_its_own_provider() {
    let dev = Dev::start();
    let run = |line: &str| {
        let mut command = Command::new(BIN);
        command.args(line.split_whitespace()).current_dir(dev.dir.path()).env("XDG_CONFIG_HOME", dev.path("config"));
        command.env_remove("MAYFLY_HOME").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a");
    let mut child = run("login --no-browser -o json").spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let page = line.trim().strip_prefix("sign in at ").unwrap();
    // The page has a link for each user; its answer leads back to the port that waits.
    let back = idp::location(&format!("{page}&login_hint=demo"), &PathBuf::from(dev.text("oidc_ca")));
    assert!(get(&back).contains("You are signed in"));
    let out = child.wait_with_output().unwrap();
    let signed: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&signed["user"]["sub"], &signed["audiences"]), (&json!("demo"), &json!(["mayfly-dev-user"])));
    let agents: Value = serde_json::from_slice(&run("my agents -o json").output().unwrap().stdout).unwrap();
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1);
    assert!(run("my stop --all").output().unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t240_a_token_that_has_expired_makes_nobody_an_operator_by_every_method() {
    let world = World::start();
    let stranger = channel(&world.dev, None).await;
    raw::call_with(&stranger, "Revocations/ListCuts", &world.idp.issue("ops", 600)).await.unwrap();
    let ended = world.idp.issue("ops", 1);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for (method, _) in support::table() {
        let refused = raw::call_with(&stranger, method, &ended).await.unwrap_err();
        let reason = refused.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        assert_eq!(reason, "USER_TOKEN_EXPIRED", "{method}: {refused}");
    }
}
