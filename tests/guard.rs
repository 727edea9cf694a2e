//! A guard beside a service: it says whose a credential is, refuses what is revoked, and knows what it does not know.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

#[path = "guard/figures.rs"]
mod figures;
#[path = "guard/once.rs"]
mod once;
#[path = "guard/tokens.rs"]
mod tokens;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attribute_context::{HttpRequest, Peer};
use check_response::HttpResponse;
use mayfly::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse, attribute_context, check_response};
use mayfly::guard::grpc::v1;
use serde_json::{Value, json};
use support::{BIN, Dev};

const SEARCH: &str = "https://search.example";

struct Guard {
    child: Child,
    address: String,
}

impl Guard {
    /// With an identity of its own.
    fn join(dev: &Dev) {
        std::fs::write(dev.path("t"), dev.run("join guard").stdout).unwrap();
        dev.json("redeem --ticket-file t --out g");
    }

    fn start(dev: &Dev, args: &[&str]) -> Guard {
        let measured = std::env::var_os("MAYFLY_MEASURED").unwrap_or_else(|| BIN.into());
        let mut child = Command::new(measured)
            .args(["guard", "--as", "g", "-o", "json", "--listen"])
            .args(args)
            .current_dir(dev.dir.path())
            .env_remove("MAYFLY_HOME")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let told: Value = serde_json::from_str(&text).unwrap();
        let listen = told["listen"].as_str().unwrap();
        let beside = listen.strip_prefix("unix:").map(|name| format!("unix:{}", dev.path(name).display()));
        let guard = Guard { child, address: beside.unwrap_or_else(|| listen.to_owned()) };
        until("ready", || guard.get("/readyz").status == 200);
        guard
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    fn verify(&self, question: &Value) -> (u16, Value) {
        let answer = self.send("POST", "/verify", &[], question.to_string().as_bytes());
        (answer.status, answer.json())
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn raw(&self, bytes: &[u8]) -> Answer {
        match self.address.strip_prefix("unix:") {
            Some(path) => exchange(UnixStream::connect(path).unwrap(), bytes),
            None => exchange(std::net::TcpStream::connect(&self.address).unwrap(), bytes),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> Answer {
    // The other end may answer, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: `{text}`"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn spawn(dev: &Dev, dir: &str) -> Value {
    dev.json(&format!("spawn --class researcher --user-token demo.jwt --audience {SEARCH} --out {dir}"))
}

fn world() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    Guard::join(&dev);
    dev
}

fn leaf(chain: &str) -> String {
    let end = "-----END CERTIFICATE-----\n";
    format!("{}{end}", chain.split(end).next().unwrap())
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[test]
fn t112_a_guard_says_whose_a_credential_is_and_refuses_it_when_it_is_revoked() {
    let dev = world();
    let agent = spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["127.0.0.1:0"]);
    let (token, chain) = (dev.file("a1/svid.jwt"), dev.file("a1/svid.pem") + "\n");
    let question = |credential: &str| json!({ "credential": credential, "audience": SEARCH, "scopes": ["search:read"] });

    // A token, a chain, and a leaf as a proxy hands it on: the same agent.
    for (credential, kind) in [(&token, "jwt-svid"), (&chain, "x509-svid"), (&leaf(&chain), "x509-svid")] {
        // The second time it was verified before.
        for _ in 0..2 {
            let (status, told) = guard.verify(&question(credential));
            assert_eq!((status, &told["decision"], told["kind"].as_str()), (200, &json!(true), Some(kind)), "{told}");
            for field in ["agent_id", "parent_id", "root_id", "class", "delegation_id", "user", "scopes"] {
                assert_eq!(told[field], agent[field], "{field}");
            }
            assert_eq!((&told["spiffe_id"], &told["chain"]), (&agent["agent_id"], &json!([agent["parent_id"]])));
            assert_eq!((told["mode"].as_str(), &told["workload_id"]), (Some("delegated"), &Value::Null));
            assert!(told["expires_at"].as_str().unwrap().ends_with('Z'));
            assert!(told["revision"].as_u64().unwrap() > 0 && told["staleness_ms"].as_u64().unwrap() < 5000, "{told}");
        }
    }
    // A workload is no agent, and is told as what it is.
    let workload = dev.file("g/svid.pem");
    let (status, told) = guard.verify(&json!({ "credential": workload }));
    assert_eq!((status, told["workload_id"].as_str()), (200, Some("spiffe://dev.mayfly.test/workload/guard")), "{told}");
    assert_eq!((&told["agent_id"], &told["user"], &told["scopes"]), (&Value::Null, &Value::Null, &json!([])));
    assert_eq!(guard.verify(&question(&workload)).1["reason"], "SCOPE_MISSING");

    // What is not to be accepted.
    let (head, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    for (question, reason) in [
        (json!({ "credential": token, "audience": "https://mail.example" }), "CREDENTIAL_AUDIENCE"),
        (json!({ "credential": token, "audience": SEARCH, "scopes": ["search:write"] }), "SCOPE_MISSING"),
        (json!({ "credential": token, "audience": SEARCH, "scopes": ["search:*"] }), "SCOPE_MISSING"),
        (json!({ "credential": forged, "audience": SEARCH }), "CREDENTIAL_UNTRUSTED"),
        (json!({ "credential": "a.b.c", "audience": SEARCH }), "CREDENTIAL_MALFORMED"),
        (json!({ "credential": "", "audience": SEARCH }), "CREDENTIAL_MISSING"),
        (json!({ "credential": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }), "CREDENTIAL_MALFORMED"),
        (json!({ "credential": "-----BEGIN CERTIFICATE-----" }), "CREDENTIAL_MALFORMED"),
    ] {
        let (status, told) = guard.verify(&question);
        assert_eq!((status, &told["decision"], told["reason"].as_str()), (403, &json!(false), Some(reason)), "{told}");
        assert!(told["hint"].as_str().unwrap().len() > 10 && !told.to_string().contains(&token), "{told}");
    }
    // Many at once: one answer each, in their order.
    let batch = json!({ "checks": [question(&token), question(&forged), question(&chain)] });
    let answers = guard.send("POST", "/verify/batch", &[], batch.to_string().as_bytes()).json()["answers"].clone();
    let decisions: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["decision"].as_bool().unwrap()).collect();
    assert_eq!(decisions, [true, false, true]);

    // T112: taken back, also what was verified before; and the answer says up to where it knows.
    let receipt = dev.json(&format!("revoke --agent {}", agent["agent_id"].as_str().unwrap()))["revision"].as_u64().unwrap();
    until("the cut", || guard.verify(&question(&token)).0 == 403);
    for credential in [&token, &chain, &leaf(&chain)] {
        let (status, told) = guard.verify(&question(credential));
        assert_eq!((status, told["reason"].as_str()), (403, Some("CREDENTIAL_REVOKED")), "{told}");
        assert!(told["revision"].as_u64().unwrap() >= receipt, "{told}");
    }
    let metrics = guard.get("/metrics").body;
    for line in [
        "mayfly_guard_checks_total{door=\"verify\",outcome=\"denied\",reason=\"CREDENTIAL_REVOKED\"}",
        "mayfly_guard_checks_total{door=\"batch\",outcome=\"allowed\",reason=\"\"} 2",
        "mayfly_guard_accepted_unknown_total 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn a_leaf_alone_holds_whichever_authority_signed_it() {
    let dev = world();
    spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["127.0.0.1:0"]);
    dev.json("authority rotate x509 --now");
    spawn(&dev, "a2");
    for dir in ["a1", "a2"] {
        let question = json!({ "credential": leaf(&(dev.file(&format!("{dir}/svid.pem")) + "\n")) });
        until(dir, || guard.verify(&question).0 == 200);
    }
    // What a tainted authority signed does not, and nothing else changes.
    let old =
        dev.json("authority list")["authorities"].as_array().unwrap().iter().find_map(|one| {
            (one["kind"] == "x509" && one["status"] == "retired").then(|| one["id"].as_str().unwrap().to_owned())
        });
    dev.json(&format!("authority taint {}", old.unwrap()));
    let first = json!({ "credential": leaf(&(dev.file("a1/svid.pem") + "\n")) });
    until("tainted", || guard.verify(&first).0 == 403);
    assert_eq!(guard.verify(&json!({ "credential": dev.file("a2/svid.pem") })).0, 200);
}

#[test]
fn t115_what_is_no_question_is_refused_as_such_and_the_guard_goes_on() {
    let dev = world();
    spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["127.0.0.1:0"]);
    let token = dev.file("a1/svid.jwt");
    let many: Vec<_> = (0..65).map(|n| n.to_string()).collect();
    for (path, body) in [
        ("/verify", json!({})),
        ("/verify", json!({ "credential": token })),
        ("/verify", json!({ "credential": token, "audience": "" })),
        ("/verify", json!({ "credential": token, "audience": 1 })),
        ("/verify", json!({ "credential": token, "audience": SEARCH, "scope": ["search:write"] })),
        ("/verify", json!({ "credential": token, "audience": SEARCH, "scopes": "search:read" })),
        ("/verify", json!({ "credential": token, "audience": SEARCH, "scopes": [""] })),
        ("/verify", json!({ "credential": token, "audience": SEARCH, "scopes": many })),
        ("/verify", json!([])),
        ("/verify/batch", json!({ "checks": [] })),
        ("/verify/batch", json!({ "checks": vec![json!({ "credential": "x", "audience": "x" }); 65] })),
        ("/verify/batch", json!({ "checks": [{ "credential": token }] })),
    ] {
        let answer = guard.send("POST", path, &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().len() > 10 && answer.body.len() < 500);
    }
    for body in [&b""[..], b"{", b"credential=x", b"\xff\xfe", b"{\"credential\":\"a\",\"credential\":\"b\",\"audience\":\"x\"}"]
    {
        assert_eq!(guard.send("POST", "/verify", &[], body).status, 400, "{body:?}");
    }
    assert_eq!(guard.send("POST", "/verify", &[], &vec![b' '; 64 * 1024 + 1]).status, 413);
    assert_eq!(guard.send("POST", "/verify/batch", &[], &vec![b' '; 512 * 1024 + 1]).status, 413);
    let chunked = "POST /verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n11000\r\n";
    assert_eq!(guard.raw(&[chunked.as_bytes(), &vec![b' '; 0x11000]].concat()).status, 413, "its length was not said");
    assert_eq!(guard.get("/verify").status, 405);
    assert_eq!(guard.get("/nothing").status, 404);
    let long = "x".repeat(70_000);
    assert!([431, 400].contains(&guard.send("GET", "/healthz", &[("x", &long)], b"").status));
    // A body that never ends.
    let slow = guard.raw(b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
    assert_eq!(slow.status, 408);
    assert_eq!(guard.get("/healthz").status, 200);
}

#[test]
fn t41_without_news_a_guard_refuses_and_says_so_or_accepts_and_counts() {
    let dev = world();
    spawn(&dev, "a1");
    let strict = Guard::start(&dev, &["127.0.0.1:0"]);
    let generous = Guard::start(&dev, &["127.0.0.1:0", "--best-effort"]);
    let question = json!({ "credential": dev.file("a1/svid.jwt"), "audience": SEARCH });
    assert_eq!((strict.verify(&question).0, generous.verify(&question).0), (200, 200));
    let signal = |name: &str| assert!(Command::new("kill").args([name, &dev.pid().to_string()]).status().unwrap().success());
    signal("-STOP");
    until("silence", || strict.verify(&question).0 == 403);
    let (_, told) = strict.verify(&question);
    assert_eq!(told["reason"], "CREDENTIAL_STALE");
    assert!(told["hint"].as_str().unwrap().contains("ask again") && told["staleness_ms"].as_u64().unwrap() >= 5000, "{told}");
    assert_eq!((strict.get("/readyz").status, strict.get("/healthz").status), (503, 200));
    let token = format!("Bearer {}", dev.file("a1/svid.jwt"));
    let auth = strict.send("GET", &format!("/auth?audience={SEARCH}"), &[("authorization", &token)], b"");
    assert_eq!((auth.status, auth.header("mayfly-reason")), (403, Some("CREDENTIAL_STALE")));
    assert_eq!(auth.header("www-authenticate"), None, "another token would not help");
    let (status, told) = generous.verify(&question);
    assert!(status == 200 && told["staleness_ms"].as_u64().unwrap() >= 5000, "{told}");
    assert_eq!(generous.get("/readyz").status, 200);
    let counted = |body: String| !body.contains("mayfly_guard_accepted_unknown_total 0");
    // Each guard measures from the last heartbeat that it got itself.
    until("counted", || generous.verify(&question).0 == 200 && counted(generous.get("/metrics").body));
    signal("-CONT");
    until("the issuer's word again", || strict.verify(&question).0 == 200);
    assert_eq!(strict.get("/readyz").status, 200);
}

/// How many certificates the lists in the folder name.
fn entries(dev: &Dev) -> usize {
    let ders = pem::parse_many(std::fs::read(dev.path("lists/crl.pem")).unwrap()).unwrap();
    let parsed = ders.iter().map(|one| x509_parser::parse_x509_crl(one.contents()).unwrap().1);
    parsed.map(|crl| crl.iter_revoked_certificates().count()).sum()
}

/// How often something of the lists failed.
fn failures(guard: &Guard, what: &str) -> u64 {
    let name = format!("mayfly_guard_crl_failures_total{{what=\"{what}\"}} ");
    let body = guard.get("/metrics").body;
    body.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[test]
fn t205_t206_the_lists_in_a_folder_follow_each_revocation_and_the_server_is_told() {
    let dev = world();
    let (agent, _) = (spawn(&dev, "a1"), spawn(&dev, "a2"));
    let reload = "test ! -e broken && echo \"$MAYFLY_CRL\" >> reloaded";
    let guard = Guard::start(&dev, &["127.0.0.1:0", "--crl", "lists", "--reload", reload]);
    let reloads = || std::fs::read_to_string(dev.path("reloaded")).unwrap_or_default().lines().count();
    assert_eq!(entries(&dev), 0, "they are there before the guard is ready");
    until("the first reload", || reloads() == 1);
    assert_eq!(dev.file("reloaded").trim(), "lists/crl.pem");
    // One file for each CA beside it: the root and the authority.
    assert_eq!(std::fs::read_dir(dev.path("lists")).unwrap().count(), 3);
    // A command that fails is run again until it does not.
    std::fs::write(dev.path("broken"), "").unwrap();
    dev.json(&format!("revoke --agent {}", agent["agent_id"].as_str().unwrap()));
    until("the revoked certificate", || entries(&dev) == 1);
    until("the failure is counted", || failures(&guard, "reload") > 0);
    assert_eq!(reloads(), 1);
    std::fs::remove_file(dev.path("broken")).unwrap();
    until("the next reload", || reloads() == 2);
    // A folder in which nothing can be written keeps the lists of before, and gets the new ones as soon as it can.
    std::fs::create_dir(dev.path("lists/crl.pem.new")).unwrap();
    dev.json("revoke --user dev/demo");
    until("the failure is counted", || failures(&guard, "write") > 0);
    assert_eq!((entries(&dev), reloads()), (1, 2));
    std::fs::remove_dir(dev.path("lists/crl.pem.new")).unwrap();
    until("both", || entries(&dev) == 2);
    until("a reload for it", || reloads() == 3);
    // Another guard would write the same files.
    let second = dev.fails("guard --as g --listen 127.0.0.1:0 --crl lists", 1);
    assert!(second.contains("another guard keeps the lists in `lists`"), "{second}");
}

#[test]
fn t206_a_guard_that_is_stopped_leaves_no_reload_behind() {
    let dev = world();
    let reload = "echo $$ > pid.new; mv pid.new pid; exec sleep 600";
    let mut guard = Guard::start(&dev, &["127.0.0.1:0", "--crl", "lists", "--reload", reload]);
    until("the command", || dev.path("pid").exists());
    assert!(Command::new("kill").args(["-TERM", &guard.child.id().to_string()]).status().unwrap().success());
    assert!(guard.child.wait().unwrap().success());
    let stat = format!("/proc/{}/stat", dev.file("pid").trim());
    until("the end of the command", || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}

#[test]
fn t111_t114_a_proxy_that_asks_gets_who_calls_or_what_to_tell_the_client() {
    let dev = world();
    let agent = spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["unix:g.sock", "--socket-mode", "0660"]);
    assert_eq!(std::fs::metadata(dev.path("g.sock")).unwrap().permissions().mode() & 0o777, 0o660);
    let (token, chain) = (format!("Bearer {}", dev.file("a1/svid.jwt")), dev.file("a1/svid.pem") + "\n");
    let url = format!("/auth?audience={SEARCH}&scopes=search:read+files:read");
    let ask = |url: &str, headers: &[(&str, &str)]| guard.send("GET", url, headers, b"");

    let yes = ask(&url, &[("authorization", &token), ("x-mayfly-user", "root")]);
    assert_eq!(yes.status, 200, "{}", yes.body);
    let user = format!("{} demo", agent["user"]["iss"].as_str().unwrap());
    for (name, value) in [
        ("x-mayfly-agent", agent["agent_id"].as_str().unwrap()),
        ("x-mayfly-user", &user),
        ("x-mayfly-chain", agent["parent_id"].as_str().unwrap()),
        ("x-mayfly-scopes", "files:read mail:send search:read"),
        ("x-mayfly-delegation", agent["delegation_id"].as_str().unwrap()),
        ("x-mayfly-mode", "delegated"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(yes.header(name), Some(value), "{name}");
    }
    for method in ["POST", "HEAD", "OPTIONS", "DELETE", "PROPFIND"] {
        assert_eq!(guard.send(method, &url, &[("authorization", &token)], b"").status, 200, "{method}");
    }

    // RFC 6750: no credential has no error code; a bad one and a missing scope have theirs.
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str, Option<&'a str>);
    let rows: &[Row<'_>] = &[
        (&url, &[], 401, "CREDENTIAL_MISSING", Some("Bearer")),
        (&url, &[("authorization", "Bearer a.b.c")], 401, "CREDENTIAL_MALFORMED", Some("Bearer error=\"invalid_token\"")),
        (&url, &[("authorization", "Basic YTpi")], 401, "TOKEN_MALFORMED", Some("Bearer error=\"invalid_token\"")),
        (
            &url,
            &[("authorization", &token), ("authorization", &token)],
            401,
            "TOKEN_MALFORMED",
            Some("Bearer error=\"invalid_token\""),
        ),
        ("/auth", &[("authorization", &token)], 401, "TOKEN_NOT_ACCEPTED", Some("Bearer error=\"invalid_token\"")),
        (
            "/auth?audience=https://mail.example",
            &[("authorization", &token)],
            401,
            "CREDENTIAL_AUDIENCE",
            Some("Bearer error=\"invalid_token\""),
        ),
    ];
    for (url, headers, status, reason, challenge) in rows {
        let no = ask(url, headers);
        assert_eq!((no.status, no.header("mayfly-reason"), no.header("www-authenticate")), (*status, Some(*reason), *challenge));
        assert!(no.header("x-mayfly-agent").is_none() && no.body.starts_with(reason), "{}", no.body);
    }
    let more = ask(&format!("/auth?audience={SEARCH}&scopes=search:read+search:write"), &[("authorization", &token)]);
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"search:read search:write\"";
    assert_eq!((more.status, more.header("www-authenticate")), (403, Some(challenge)));
    // T114: what the proxy asks for is in the URL alone, and a rule that cannot be read lets nobody in.
    for bad in ["/auth?audience=a&audience=b", "/auth?scope=x", "/auth?audience=a&credential=all"] {
        assert_eq!(ask(bad, &[("authorization", &token)]).status, 400, "{bad}");
    }

    // T111: everybody can have an agent's certificate. It counts where the proxy puts it, and only if its rule says so.
    let shown = percent(&leaf(&chain));
    let certificate = [("x-client-cert", shown.as_str())];
    assert_eq!(ask(&url, &certificate).header("mayfly-reason"), Some("CREDENTIAL_MISSING"));
    assert_eq!(ask("/auth?credential=peer&scopes=search:read", &certificate).status, 200);
    assert_eq!(
        ask("/auth?credential=peer&certificate=ssl-client-cert", &certificate).header("mayfly-reason"),
        Some("CREDENTIAL_MISSING")
    );
    assert_eq!(ask("/auth?credential=peer&certificate=ssl-client-cert", &[("ssl-client-cert", &shown)]).status, 200);
    let twice = [certificate[0], certificate[0]];
    assert_eq!(ask("/auth?credential=peer", &twice).header("mayfly-reason"), Some("CREDENTIAL_MALFORMED"));
    assert_eq!(ask("/auth?credential=peer", &[("x-client-cert", "%zz")]).header("mayfly-reason"), Some("CREDENTIAL_MALFORMED"));
    assert_eq!(ask("/auth?credential=peer", &[("authorization", &token)]).header("mayfly-reason"), Some("CREDENTIAL_MISSING"));
    // Both: of one agent, or none.
    spawn(&dev, "a2");
    let both = format!("/auth?credential=any&audience={SEARCH}");
    assert_eq!(ask(&both, &[("authorization", &token), certificate[0]]).status, 200);
    let other = percent(&leaf(&(dev.file("a2/svid.pem") + "\n")));
    let mixed = ask(&both, &[("authorization", &token), ("x-client-cert", &other)]);
    assert_eq!((mixed.status, mixed.header("mayfly-reason")), (401, Some("CREDENTIALS_DIFFER")));
    // A workload is no agent.
    let workload = percent(&(dev.file("g/svid.pem") + "\n"));
    let no = ask("/auth?credential=peer", &[("x-client-cert", &workload)]);
    assert_eq!((no.status, no.header("mayfly-reason")), (403, Some("CALLER_NOT_AN_AGENT")));

    dev.json(&format!("revoke --agent {}", agent["agent_id"].as_str().unwrap()));
    until("the cut", || ask(&url, &[("authorization", &token)]).status == 401);
    assert_eq!(ask("/auth?credential=peer", &certificate).header("mayfly-reason"), Some("CREDENTIAL_REVOKED"));
    // It cleans up.
    assert!(Command::new("kill").args(["-TERM", &guard.child.id().to_string()]).status().unwrap().success());
    until("the end", || !dev.path("g.sock").exists());
}

#[test]
fn a_guard_says_at_the_start_what_is_wrong() {
    let dev = world();
    assert!(dev.fails("guard --as g --listen 0.0.0.0:9191", 2).contains("loopback"));
    assert!(dev.fails("guard --as g --listen 127.0.0.1:0 --socket-mode 999", 2).contains("octal"));
    assert!(dev.fails("guard --listen 127.0.0.1:0", 2).contains("--as"));
    assert!(dev.fails("guard --as nothing --listen 127.0.0.1:0", 1).contains("nothing"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("guard --as g --listen {}", taken.local_addr().unwrap());
    assert!(dev.fails(&line, 1).contains("cannot listen"));
    assert!(dev.fails("guard --as g --listen 127.0.0.1:0 --server 127.0.0.1:1", 5).contains("127.0.0.1:1"));
    // Revoked: it learns nothing, so it answers nothing.
    dev.json("revoke --root guard");
    let said = dev.fails("guard --as g --listen 127.0.0.1:0", 3);
    assert!(said.contains("REVOKED") || said.contains("CLOSED"), "{said}");
}

#[test]
fn t115_too_many_requests_at_once_are_told_so_and_health_is_not() {
    let dev = world();
    let guard = Guard::start(&dev, &["127.0.0.1:0"]);
    let question = json!({ "credential": "a.b.c", "audience": SEARCH });
    assert_eq!(guard.verify(&question).1["reason"], "CREDENTIAL_MALFORMED");
    // Each waits for the rest of its body. On a busy machine some have waited for too long before the last has begun, so they begin
    // again. There are fewer than the connections that a guard accepts.
    let mut waiting = Vec::new();
    let full = (0..10).any(|_| {
        waiting.clear();
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..600 {
            let mut stream = std::net::TcpStream::connect(&guard.address).unwrap();
            let _ = stream.write_all(b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
            waiting.push(stream);
        }
        (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            guard.verify(&question).0 == 503
        })
    });
    assert!(full, "full");
    assert_eq!((guard.get("/healthz").status, guard.get("/readyz").status), (200, 200));
    assert!(guard.get("/metrics").body.contains("mayfly_guard_refused_total{reason=\"requests\"}"));
    drop(waiting);
    until("room again", || guard.verify(&question).0 == 403);
}

/// Asks as Envoy does.
struct Envoy(tonic::client::Grpc<tonic::transport::Channel>);

impl Envoy {
    async fn connect(guard: &Guard) -> Envoy {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", guard.address)).unwrap();
        Envoy(tonic::client::Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn check(&mut self, asked: Asked<'_>) -> Checked {
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check");
        let request = tonic::Request::new(request(&asked));
        let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
        let answer = self.0.unary(request, path, codec).await.unwrap().into_inner();
        let (status, headers, removed, body) = match answer.http_response.unwrap() {
            HttpResponse::OkResponse(ok) => (200, ok.headers, ok.headers_to_remove, String::new()),
            HttpResponse::DeniedResponse(no) => (no.status.unwrap().code, no.headers, vec![], no.body),
        };
        let headers = headers.into_iter().map(|one| one.header.map(|header| (header.key, header.value)).unwrap()).collect();
        let metadata = answer.dynamic_metadata.unwrap();
        Checked { code: answer.status.unwrap().code, status, headers, removed, body, metadata }
    }
}

fn request(asked: &Asked<'_>) -> CheckRequest {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let http = HttpRequest { headers: map(asked.headers), header_map: None };
    let context = AttributeContext {
        source: Some(Peer { principal: "spiffe://dev.mayfly.test/agent/x".into(), certificate: asked.certificate.to_owned() }),
        request: Some(attribute_context::Request { http: Some(http) }),
        context_extensions: map(asked.rule),
    };
    CheckRequest { attributes: Some(context) }
}

#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    headers: &'a [(&'a str, &'a str)],
    certificate: &'a str,
    rule: &'a [(&'a str, &'a str)],
}

struct Checked {
    code: i32,
    status: i32,
    headers: std::collections::BTreeMap<String, String>,
    removed: Vec<String>,
    body: String,
    metadata: prost_types::Struct,
}

impl Checked {
    fn reason(&self) -> (i32, &str) {
        (self.status, self.headers.get("mayfly-reason").map_or("", String::as_str))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t113_t114_envoy_gets_a_decision_whatever_it_sends_and_the_service_only_our_headers() {
    let dev = world();
    let agent = spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["127.0.0.1:0"]);
    let mut envoy = Envoy::connect(&guard).await;
    let token = format!("Bearer {}", dev.file("a1/svid.jwt"));
    let headers = [("authorization", token.as_str()), ("x-mayfly-user", "root")];
    let shown = percent(&leaf(&(dev.file("a1/svid.pem") + "\n")));
    let rule = [("audience", SEARCH), ("scopes", "search:read")];

    // By token, by certificate, by both.
    for asked in [
        Asked { headers: &headers, rule: &rule, ..Asked::default() },
        Asked { certificate: &shown, rule: &[("scopes", "search:read"), ("credential", "peer")], ..Asked::default() },
        Asked { headers: &headers, certificate: &shown, rule: &rule },
        // The header is the service's own business where no audience is named.
        Asked { headers: &[("authorization", "Basic YTpi")], certificate: &shown, rule: &[] },
    ] {
        let yes = envoy.check(asked).await;
        assert_eq!((yes.code, yes.status, yes.removed.len()), (0, 200, 0), "{:?} {}", yes.headers, yes.body);
        assert_eq!(yes.headers["x-mayfly-agent"], agent["agent_id"].as_str().unwrap());
        assert_eq!(yes.headers["x-mayfly-user"], format!("{} demo", agent["user"]["iss"].as_str().unwrap()));
        assert_eq!(yes.headers["x-mayfly-scopes"], "files:read mail:send search:read");
        let fields = format!("{:?}", yes.metadata);
        assert!(yes.metadata.fields.contains_key("agent_id") && fields.contains("search:read"), "{fields}");
    }
    let no = [
        (Asked { rule: &rule, ..Asked::default() }, (401, "CREDENTIAL_MISSING")),
        (Asked { headers: &[("authorization", "Bearer a.b.c")], rule: &rule, ..Asked::default() }, (401, "CREDENTIAL_MALFORMED")),
        (Asked { headers: &headers, rule: &[("credential", "bearer")], ..Asked::default() }, (401, "TOKEN_NOT_ACCEPTED")),
        (
            Asked { headers: &headers, rule: &[("audience", "https://mail.example")], ..Asked::default() },
            (401, "CREDENTIAL_AUDIENCE"),
        ),
        (
            Asked { headers: &headers, rule: &[("audience", SEARCH), ("scopes", "a b")], ..Asked::default() },
            (403, "SCOPE_MISSING"),
        ),
        (Asked { certificate: "%zz", ..Asked::default() }, (401, "CREDENTIAL_MALFORMED")),
        (Asked { certificate: &shown, rule: &[("credential", "bearer")], ..Asked::default() }, (401, "CREDENTIAL_MISSING")),
        (Asked { headers: &headers, rule: &[("audience", SEARCH), ("scope", "x")], ..Asked::default() }, (403, "")),
        (Asked::default(), (401, "CREDENTIAL_MISSING")),
    ];
    for (at, (asked, expected)) in no.into_iter().enumerate() {
        let no = envoy.check(asked).await;
        assert!(no.code != 0 && no.reason() == expected, "{at}: {:?} {}", no.reason(), no.body);
    }
    let joined = format!("{token},{token}");
    let two = envoy.check(Asked { headers: &[("authorization", &joined)], rule: &rule, ..Asked::default() }).await;
    assert_eq!(two.reason().0, 401, "two headers, joined");

    // Health, by name.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", guard.address)).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        let started = Instant::now();
        while health.check(request.clone()).await.unwrap().into_inner().status != 1 {
            assert!(started.elapsed() < Duration::from_secs(30), "{service} does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    dev.json("revoke --user dev/demo");
    let started = Instant::now();
    loop {
        let no = envoy.check(Asked { headers: &headers, rule: &rule, ..Asked::default() }).await;
        if no.status != 200 {
            assert_eq!(no.reason(), (401, "CREDENTIAL_REVOKED"));
            assert_eq!(no.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the cut");
    }
}

/// The answer of `POST /verify` that a message says, but for the age of what is known.
fn as_json(answer: &v1::VerifyResponse) -> Value {
    let knowledge = json!({ "decision": answer.decision, "revision": answer.revision });
    let more = if answer.decision {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let expires_at = time::OffsetDateTime::from_unix_timestamp(answer.expires_at.unwrap().seconds).unwrap();
        json!({
            "kind": answer.kind,
            "spiffe_id": answer.spiffe_id,
            "agent_id": text(&answer.agent_id),
            "workload_id": text(&answer.workload_id),
            "class": text(&answer.class),
            "user": answer.user.as_ref().map(|user| json!({ "iss": user.iss, "sub": user.sub })),
            "parent_id": text(&answer.parent_id),
            "root_id": text(&answer.root_id),
            "chain": answer.chain,
            "scopes": answer.scopes,
            "delegation_id": text(&answer.delegation_id),
            "mode": text(&answer.mode),
            "expires_at": expires_at.format(&time::format_description::well_known::Rfc3339).unwrap(),
        })
    } else {
        json!({ "reason": answer.reason, "hint": answer.hint })
    };
    let (Value::Object(mut all), Value::Object(more)) = (knowledge, more) else { unreachable!() };
    all.extend(more);
    all.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn t207_grpc_answers_what_post_verify_answers_and_refuses_what_is_no_question() {
    let dev = world();
    spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["127.0.0.1:0"]);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", guard.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    // A request whose message never comes. It has ten seconds, so the rest of this test goes on meanwhile.
    let slow = {
        let mut client = tonic::client::Grpc::new(channel.clone());
        tokio::spawn(async move {
            client.ready().await.unwrap();
            let silence = tokio_stream::pending::<v1::VerifyRequest>();
            let codec = tonic_prost::ProstCodec::<_, v1::VerifyResponse>::default();
            client.client_streaming(tonic::Request::new(silence), "/mayfly.guard.v1.Guard/Verify".parse().unwrap(), codec).await
        })
    };
    let token = dev.file("a1/svid.jwt");
    let asked = |credential: &str, audience: &str, scopes: &[&str]| v1::VerifyRequest {
        credential: credential.into(),
        audience: audience.into(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..Default::default()
    };
    let rows = [
        (token.as_str(), &["search:read"][..]),
        (&token, &["search:write"]),
        ("a.b.c", &[]),
        ("", &[]),
        (&dev.file("a1/svid.pem"), &[]),
        (&dev.file("g/svid.pem"), &[]),
    ];
    let checks: Vec<_> = rows.iter().map(|(credential, scopes)| asked(credential, SEARCH, scopes)).collect();
    let many: v1::VerifyBatchResponse = grpc(&channel, "VerifyBatch", v1::VerifyBatchRequest { checks }).await.unwrap();
    assert_eq!(many.answers.len(), rows.len());
    for ((credential, scopes), mut answer) in rows.iter().zip(many.answers) {
        let one: v1::VerifyResponse = grpc(&channel, "Verify", asked(credential, SEARCH, scopes)).await.unwrap();
        let (_, mut told) = guard.verify(&json!({ "credential": credential, "audience": SEARCH, "scopes": scopes }));
        assert!(answer.staleness_ms.take().is_some() && told["staleness_ms"].take().is_u64());
        told.as_object_mut().unwrap().remove("staleness_ms");
        // Each is asked when it is: the revision may have moved on.
        assert!(answer.revision > 0 && one.revision >= answer.revision);
        told["revision"] = answer.revision.into();
        assert_eq!(as_json(&answer), told, "{credential}");
        assert_eq!((one.decision, one.reason, one.spiffe_id), (answer.decision, answer.reason, answer.spiffe_id));
    }
    for (bad, says) in [
        (asked(&token, "", &[]), "audience"),
        (asked(&token, SEARCH, &[""]), "scope"),
        (asked(&token, SEARCH, &["s"; 65]), "scopes"),
        (asked(&token, &"x".repeat(257), &[]), "audience"),
        (asked(&"x".repeat(70_000), SEARCH, &[]), "64 KiB"),
    ] {
        let refused = grpc::<_, v1::VerifyResponse>(&channel, "Verify", bad.clone()).await.unwrap_err();
        assert!(refused.code() == tonic::Code::InvalidArgument && refused.message().contains(says), "{refused:?}");
        let checks = vec![asked(&token, SEARCH, &[]), bad];
        let refused =
            grpc::<_, v1::VerifyBatchResponse>(&channel, "VerifyBatch", v1::VerifyBatchRequest { checks }).await.unwrap_err();
        assert!(refused.code() == tonic::Code::InvalidArgument && refused.message().starts_with("checks[1]: "), "{refused:?}");
    }
    for checks in [vec![], vec![asked("", SEARCH, &[]); 65]] {
        let refused = grpc::<_, v1::VerifyBatchResponse>(&channel, "VerifyBatch", v1::VerifyBatchRequest { checks }).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    // Refused by its length, before it is read.
    let huge = grpc::<_, v1::VerifyResponse>(&channel, "Verify", asked(&"x".repeat(600 * 1024), SEARCH, &[])).await;
    assert_eq!(huge.unwrap_err().code(), tonic::Code::OutOfRange);
    let slow = slow.await.unwrap().unwrap_err();
    assert_eq!(slow.code(), tonic::Code::DeadlineExceeded, "{slow:?}");
    // Whoever knows nothing new allows nothing, here too.
    assert!(Command::new("kill").args(["-STOP", &dev.pid().to_string()]).status().unwrap().success());
    let started = Instant::now();
    loop {
        let told: v1::VerifyResponse = grpc(&channel, "Verify", asked(&token, SEARCH, &[])).await.unwrap();
        if told.reason == "CREDENTIAL_STALE" {
            assert!(!told.decision && told.staleness_ms.unwrap() >= 5000, "{told:?}");
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(Command::new("kill").args(["-CONT", &dev.pid().to_string()]).status().unwrap().success());
}

async fn grpc<Q, A>(channel: &tonic::transport::Channel, method: &str, asked: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/mayfly.guard.v1.Guard/{method}").parse().unwrap();
    Ok(client.unary(tonic::Request::new(asked), path, tonic_prost::ProstCodec::<Q, A>::default()).await?.into_inner())
}
