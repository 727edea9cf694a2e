//! The page on which people answer agents and stop them: signed in at a real provider, and what strangers, other users, other sites and
//! false providers get out of it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "support/idp.rs"]
mod idp;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use idp::Idp;
use parking_lot::Mutex;
use reqwest::header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Certificate, Client, redirect};
use serde_json::{Value, json};
use support::Dev;

const BANK: &str = "https://bank.example";

/// A browser of one person: it keeps cookies of the issuer, and follows no redirect by itself.
struct Browser {
    http: Client,
    issuer: String,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// What a browser got.
struct Page {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Page {
    fn location(&self) -> &str {
        self.headers.get(LOCATION).map_or("", |to| to.to_str().unwrap())
    }

    /// The value of the first hidden field of this name.
    fn field(&self, name: &str) -> String {
        let begin = format!("name=\"{name}\" value=\"");
        self.text.split(&begin).nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    fn new(dev: &Dev, more: &[&Path]) -> Browser {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let own = [dev.path(".mayfly/https-ca.pem"), dev.path(&dev.text("oidc_ca"))];
        let files = own.iter().map(AsRef::as_ref).chain(more.iter().copied());
        let roots: Vec<Certificate> =
            files.map(|file: &Path| Certificate::from_pem(&std::fs::read(file).unwrap()).unwrap()).collect();
        let http = Client::builder().tls_certs_only(roots).no_proxy().redirect(redirect::Policy::none()).build().unwrap();
        Browser { http, issuer: dev.text("https_issuer"), cookies: Mutex::default() }
    }

    fn is_ours(&self, url: &str) -> bool {
        url.starts_with(&format!("{}/", self.issuer))
    }

    async fn sent(&self, request: reqwest::RequestBuilder, ours: bool) -> Page {
        let cookies: Vec<String> = self.cookies.lock().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if ours && !cookies.is_empty() { request.header(COOKIE, cookies.join("; ")) } else { request };
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for cookie in headers.get_all(SET_COOKIE).iter().filter(|_| ours) {
            let cookie = cookie.to_str().unwrap();
            // Another host can set none of these, no script reads them, and no form of another site brings them.
            assert!(cookie.starts_with("__Host-") && !cookie.contains("Domain"), "{cookie}");
            for attribute in ["Path=/;", "Secure;", "HttpOnly;", "SameSite=Lax;"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            match value {
                "" => drop(self.cookies.lock().remove(name)),
                value => drop(self.cookies.lock().insert(name.to_owned(), value.to_owned())),
            }
        }
        let text = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
        if ours {
            // T272: whatever comes from here runs nothing and stands in no frame.
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
            for (name, value) in [
                ("x-frame-options", "DENY"),
                ("x-content-type-options", "nosniff"),
                ("cache-control", "no-store"),
                ("referrer-policy", "same-origin"),
            ] {
                assert_eq!(headers[name], value);
            }
            assert!(!text.contains("<script") && !text.contains("onclick") && !text.contains("style="), "{text}");
        }
        Page { status, headers, text }
    }

    async fn get(&self, url: &str) -> Page {
        self.sent(self.http.get(url), self.is_ours(url)).await
    }

    /// Opens an address of the issuer, and signs in as somebody at the development provider if that is asked for.
    async fn open(&self, url: &str, user: &str) -> Page {
        let mut url = url.to_owned();
        for _ in 0..8 {
            let page = self.get(&url).await;
            if page.status != 303 {
                return page;
            }
            url = page.location().to_owned();
            if url.starts_with('/') {
                url = format!("{}{url}", self.issuer);
            } else if url.contains("/authorize?") {
                url.push_str(&format!("&login_hint={user}"));
            }
        }
        panic!("it goes round in circles");
    }

    async fn post(&self, url: &str, fields: &[(&str, &str)]) -> Page {
        self.sent(self.http.post(url).header(ORIGIN, &self.issuer).form(fields), true).await
    }
}

/// Runs a command whose arguments may hold anything.
fn run(dev: &Dev, args: &[&str]) -> Value {
    let out = Command::new(support::BIN).args(args).current_dir(dev.dir.path()).env_remove("MAYFLY_HOME").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn ask(dev: &Dev, amount: &str, reason: &str) -> Value {
    let action = json!({ "type": "payment", "amount": amount, "currency": "EUR" }).to_string();
    run(dev, &["ask", "--as", "a1", "--audience", BANK, "--action", &action, "--reason", reason, "-o", "json"])
}

fn start() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

fn state(dev: &Dev, asked: &Value) -> String {
    text(&dev.json(&format!("approvals show {} --as a1", text(asked, "approval_id"))), "state").to_owned()
}

#[tokio::test]
async fn a_person_sees_who_asks_for_what_and_why_and_approves_it_or_less_of_it_or_nothing() {
    let dev = start();
    let (one, two, three) = (ask(&dev, "10.00", "rent & <b>more</b>"), ask(&dev, "99.00", "two"), ask(&dev, "5.00", "three"));
    let browser = Browser::new(&dev, &[]);
    // The link leads to the provider, and from there to the approval that it names.
    let page = browser.open(text(&one, "page"), "demo").await;
    assert_eq!(page.status, 200, "{}", page.text);
    for shown in
        [text(&one, "agent_id"), "spiffe://dev.mayfly.test/workload/orchestrator", "demo", BANK, "payment", "10.00", "EUR"]
    {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    assert!(page.text.contains("rent &amp; &lt;b&gt;more&lt;/b&gt;") && !page.text.contains("<b>"), "{}", page.text);
    let (form, digest) = (page.field("form"), page.field("digest"));
    assert_eq!(digest, text(&one, "digest"));
    let yes = [("form", form.as_str()), ("digest", &digest), ("answer", "yes")];
    // T183: the digest of another one approves nothing.
    let other = [("form", form.as_str()), ("digest", text(&two, "digest")), ("answer", "yes")];
    assert_eq!(browser.post(text(&one, "page"), &other).await.status, 409);
    let done = browser.post(text(&one, "page"), &yes).await;
    assert_eq!((done.status, state(&dev, &one).as_str()), (303, "approved"));
    assert!(browser.get(text(&one, "page")).await.text.contains("approved, and not used yet"));
    assert_eq!(browser.post(text(&one, "page"), &yes).await.status, 409, "an answer is given once");
    dev.json(&format!("exchange --as a1 --approval {}", text(&one, "approval_id")));
    assert!(browser.get(text(&one, "page")).await.text.contains("approved and used"));

    // T270: less is approved, and nothing that is not within what was asked for.
    let page = browser.get(text(&two, "page")).await;
    let digest = page.field("digest");
    let part = |fields: &[(&'static str, &'static str)]| {
        let mut all = vec![("form", form.clone()), ("digest", digest.clone()), ("answer", "part".to_owned())];
        all.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all
    };
    let send = async |fields: &[(&'static str, &'static str)]| {
        let all = part(fields);
        let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        browser.post(text(&two, "page"), &all).await
    };
    for (what, fields, code) in [
        ("more", &[("keep.0", "yes"), ("a.0.amount", "100.00")][..], "ACTION_NOT_ALLOWED"),
        ("another currency", &[("keep.0", "yes"), ("a.0.amount", "1.00"), ("a.0.currency", "USD")], "ACTION_NOT_ALLOWED"),
        ("another type", &[("keep.0", "yes"), ("a.0.type", "refund")], "ACTION_MALFORMED"),
        ("a number that is none", &[("keep.0", "yes"), ("a.0.amount", "-1")], "ACTION_MALFORMED"),
        ("a scope", &[("keep.0", "yes"), ("scope", "mail:send")], "ACTION_NOT_ALLOWED"),
        ("nothing", &[], "ACTION_MALFORMED"),
    ] {
        let page = send(fields).await;
        assert!(page.status >= 400 && page.text.contains(code), "{what}: {} {}", page.status, page.text);
        assert_eq!(state(&dev, &two), "pending", "{what}");
    }
    assert_eq!(send(&[("keep.0", "yes"), ("a.0.amount", "50.00")]).await.status, 303);
    let got = dev.json(&format!("exchange --as a1 --approval {}", text(&two, "approval_id")));
    assert_eq!(got["authorization_details"], json!([{ "type": "payment", "amount": "50.00", "currency": "EUR" }]));
    let entries = dev.json("history --kind approval").to_string();
    assert!(entries.contains("narrowed to") && entries.contains("user demo of "), "{entries}");

    let digest = browser.get(text(&three, "page")).await.field("digest");
    let no = [("form", form.as_str()), ("digest", digest.as_str()), ("answer", "no")];
    assert_eq!((browser.post(text(&three, "page"), &no).await.status, state(&dev, &three).as_str()), (303, "denied"));
}

#[tokio::test]
async fn a_narrowed_approval_is_as_narrow_after_a_restart_and_by_the_command() {
    let dev = start();
    std::fs::write(dev.path("me.jwt"), dev.run("token demo --audience mayfly-dev-user").stdout).unwrap();
    let asked = ask(&dev, "99.00", "two");
    let id = text(&asked, "approval_id");
    let less = r#"{"type":"payment","amount":"3.50","currency":"EUR"}"#;
    let approved = run(&dev, &["approve", id, "--user-token", "me.jwt", "--action", less, "-o", "json"]);
    assert_eq!(approved["narrowed"]["authorization_details"][0]["amount"], "3.50");
    assert_eq!(approved["authorization_details"], asked["authorization_details"], "what was asked for stays as it was");
    let dev = Dev::start_in(dev.kill());
    let got = dev.json(&format!("exchange --as a1 --approval {id}"));
    assert_eq!(got["authorization_details"][0]["amount"], "3.50", "{got}");
}

#[tokio::test]
async fn t272_a_form_of_another_site_or_another_session_does_nothing() {
    let dev = start();
    let asked = ask(&dev, "10.00", "one");
    let url = text(&asked, "page").to_owned();
    let (mine, yours) = (Browser::new(&dev, &[]), Browser::new(&dev, &[]));
    let page = mine.open(&url, "demo").await;
    let theirs = yours.open(&format!("{}/me", yours.issuer), "guest").await.field("form");
    let (form, digest) = (page.field("form"), page.field("digest"));
    assert_ne!(form, theirs);
    let fields = |form: &str| vec![("form", form.to_owned()), ("digest", digest.clone()), ("answer", "yes".to_owned())];
    let send = async |form: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(mine.http.post(&url).form(&fields(form)), |request, (n, v)| request.header(*n, *v));
        mine.sent(request, true).await.status
    };
    for (what, form, headers) in [
        ("without the field", "", &[][..]),
        ("with the field of another session", &*theirs, &[]),
        ("from another site", &form, &[("origin", "https://evil.example")]),
        ("from a frame without an origin", &form, &[("origin", "null")]),
        ("from a page that says where it is", &form, &[("sec-fetch-site", "cross-site")]),
        ("from another host of the same site", &form, &[("sec-fetch-site", "same-site")]),
    ] {
        assert_eq!(send(form, headers).await, 403, "{what}");
        assert_eq!(state(&dev, &asked), "pending", "{what}");
    }
    // As another type, which a script may send without being asked; twice; and too long.
    let plain = mine.http.post(&url).header("content-type", "text/plain").body(format!("form={form}&digest={digest}&answer=yes"));
    assert_eq!(mine.sent(plain, true).await.status, 403);
    let twice = mine.http.post(&url).form(&[fields(&form), fields(&theirs)].concat());
    assert_eq!(mine.sent(twice, true).await.status, 403);
    let long = [("form", form.as_str()), ("digest", &digest), ("answer", "yes"), ("x", &"x".repeat(70_000))];
    assert_eq!(mine.post(&url, &long).await.status, 403);
    // Nor do the others: nobody is signed out or stopped by them.
    for path in ["stop", "sign-out"] {
        let agent = [("form", theirs.as_str()), ("agent", text(&asked, "agent_id")), ("all", "yes")];
        mine.post(&format!("{}/me/{path}", mine.issuer), &agent).await;
    }
    assert_eq!(state(&dev, &asked), "pending");
    assert_eq!(send(&form, &[("origin", &mine.issuer), ("sec-fetch-site", "same-origin")]).await, 303);
}

#[tokio::test]
async fn t274_a_link_that_another_user_opens_shows_and_does_nothing() {
    let dev = start();
    let asked = ask(&dev, "10.00", "secret reason");
    let (url, guest) = (text(&asked, "page").to_owned(), Browser::new(&dev, &[]));
    let page = guest.open(&url, "guest").await;
    assert_eq!(page.status, 404);
    let unknown = guest.get(&format!("{}/me/approvals/{}", guest.issuer, "0".repeat(32))).await;
    assert_eq!((unknown.status, &unknown.text), (404, &page.text), "it looks as if there were none");
    for secret in ["secret reason", "10.00", BANK, text(&asked, "agent_id")] {
        assert!(!page.text.contains(secret), "{secret}");
    }
    let form = page.field("form");
    for answer in ["yes", "no", "part"] {
        let fields = [("form", form.as_str()), ("digest", text(&asked, "digest")), ("answer", answer), ("keep.0", "yes")];
        assert_eq!(guest.post(&url, &fields).await.status, 404, "{answer}");
    }
    // Nor do they stop agents of others, or see them.
    let stop = [("form", form.as_str()), ("agent", text(&asked, "agent_id"))];
    assert_eq!(guest.post(&format!("{}/me/stop", guest.issuer), &stop).await.status, 404);
    let home = guest.get(&format!("{}/me", guest.issuer)).await;
    assert!(home.text.contains("None.") && !home.text.contains("spiffe://"), "{}", home.text);
    assert_eq!(state(&dev, &asked), "pending");
    // A stranger is sent to sign in, and learns nothing of whether it exists.
    let stranger = Browser::new(&dev, &[]);
    for id in [text(&asked, "approval_id"), &"0".repeat(32)] {
        let page = stranger.get(&format!("{}/me/approvals/{id}", stranger.issuer)).await;
        assert_eq!((page.status, page.location()), (303, &*format!("/me/sign-in?approval={id}")));
        let fields = [("form", form.as_str()), ("digest", text(&asked, "digest")), ("answer", "yes")];
        assert_eq!(stranger.post(&format!("{}/me/approvals/{id}", stranger.issuer), &fields).await.status, 303);
    }
    assert_eq!(state(&dev, &asked), "pending");
}

#[tokio::test]
async fn t273_the_page_sends_nobody_to_an_address_that_came_with_a_request() {
    let dev = start();
    let issuer = dev.text("https_issuer");
    let evil = ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "..%2f..%2f", "%0d%0ax:y"];
    for to in evil {
        let browser = Browser::new(&dev, &[]);
        for parameter in ["approval", "next", "return_to", "redirect_uri", "rd"] {
            let page = browser.open(&format!("{issuer}/me/sign-in?{parameter}={to}"), "demo").await;
            assert!(page.status == 200 && page.text.contains("Your agents"), "{parameter}={to}: {}", page.text);
            assert!(!page.text.contains("evil"), "{parameter}={to}");
        }
        let other = browser.get(&format!("{issuer}/me/sign-in?provider={to}")).await;
        assert!(other.status == 200 && other.location().is_empty() && !other.text.contains("evil"), "{to}: {}", other.text);
        let page =
            Browser::new(&dev, &[]).get(&format!("{issuer}/me/approvals/{}", to.replace('/', "%2f").replace('\\', "%5c"))).await;
        assert!(page.status != 303 || page.location() == "/me/sign-in", "{to}: {}", page.location());
    }
    // Nor to the host that a header names.
    let browser = Browser::new(&dev, &[]);
    let request = browser
        .http
        .get(format!("{issuer}/me"))
        .header("x-forwarded-host", "evil.example")
        .header("forwarded", "host=evil.example");
    assert_eq!(browser.sent(request, true).await.location(), "/me/sign-in");
    let page = browser.get(&format!("{issuer}/me/sign-in")).await;
    assert!(
        page.location().contains("redirect_uri=https%3A%2F%2F127.0.0.1") && !page.location().contains("evil"),
        "{}",
        page.location()
    );
}

#[tokio::test]
async fn t243_only_the_browser_that_began_a_sign_in_ends_it_and_only_with_what_its_provider_said_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("corp.pem");
    let corp = Idp::start(&ca);
    let text = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\nca_file = \"{}\"\n[[issuers.audiences]]\naudience = \"page\"\nuser = true\nsign_in = true\n",
        corp.url(),
        ca.display()
    );
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    let issuer = dev.text("https_issuer");
    let new = || Browser::new(&dev, &[&dev.path("corp.pem")]);
    let begin = format!("{issuer}/me/sign-in?provider=corp");
    // Of several providers the person chooses one.
    let choice = new().get(&format!("{issuer}/me/sign-in")).await;
    assert!(
        choice.status == 200 && choice.text.contains("provider=corp") && choice.text.contains("provider=dev"),
        "{}",
        choice.text
    );
    let signed_in = async |browser: &Browser| browser.get(&format!("{issuer}/me")).await.status == 200;
    type Change = fn(&mut idp::Answer);
    for (what, change) in [
        ("another provider", (|answer| answer.iss = Some("https://other.example".into())) as Change),
        ("no provider at all", |answer| answer.iss = None),
        ("an error", |answer| answer.error = Some("access_denied".into())),
        ("an ID token of another sign-in", |answer| answer.nonce = Some("x".repeat(43))),
        ("an ID token for another client", |answer| answer.audience = Some("other".into())),
        ("another verifier", |answer| answer.challenge = Some("x".repeat(43))),
    ] {
        let browser = new();
        let back = corp.approve(browser.get(&begin).await.location(), change);
        let page = browser.get(&back).await;
        assert!(page.status >= 400 && !signed_in(&browser).await, "{what}: {}", page.status);
    }
    // The answer to the sign-in of another browser: whoever sends it along signs nobody in as themself.
    let (attacker, victim) = (new(), new());
    let back = corp.approve(attacker.get(&begin).await.location(), |_| {});
    assert_eq!(victim.get(&back).await.status, 400);
    victim.get(&begin).await;
    assert_eq!(victim.get(&back).await.status, 400, "it has begun one of its own");
    assert!(!signed_in(&victim).await);
    let page = attacker.get(&back).await;
    assert_eq!((page.status, page.location()), (303, "/me"));
    assert!(signed_in(&attacker).await);
    assert_eq!(attacker.get(&back).await.status, 400, "once");
    // A session ends with the token, with its user, and by itself; a cookie that was made up is none.
    let made_up = new();
    made_up.cookies.lock().insert("__Host-mayfly".into(), "x".repeat(43));
    assert!(!signed_in(&made_up).await);
    let form = attacker.get(&format!("{issuer}/me")).await.field("form");
    let cookies = attacker.cookies.lock().clone();
    assert_eq!(attacker.post(&format!("{issuer}/me/sign-out"), &[("form", &form)]).await.status, 200);
    *attacker.cookies.lock() = cookies;
    assert!(!signed_in(&attacker).await, "the cookie of a session that has ended");
    let back = corp.approve(attacker.get(&begin).await.location(), |_| {});
    attacker.get(&back).await;
    assert!(signed_in(&attacker).await);
    dev.json("revoke --user corp/alice");
    assert!(!signed_in(&attacker).await, "the user is revoked");
    // And the provider may be down, which strangers hear without its details.
    corp.breaks("garbage");
    let page = new().get(&begin).await;
    assert!(page.status == 303 || (page.status == 502 && !page.text.contains("expected value")), "{}", page.text);
}

#[tokio::test]
async fn t330_a_provider_is_asked_only_for_sign_ins_that_began_here_and_once_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("corp.pem");
    let corp = Idp::start(&ca);
    let text = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\nca_file = \"{}\"\n[[issuers.audiences]]\naudience = \"page\"\nuser = true\nsign_in = true\n",
        corp.url(),
        ca.display()
    );
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    let (issuer, stranger) = (dev.text("https_issuer"), Browser::new(&dev, &[&dev.path("corp.pem")]));
    let cookie = |value: String| drop(stranger.cookies.lock().insert("__Host-mayfly-sign-in".into(), value));
    let (state, begin) = ("s".repeat(43), format!("{issuer}/me/sign-in?provider=corp"));
    let answer = format!("{issuer}/me/signed-in?code=made-up&state={state}&iss={}", corp.url());
    // Cookies that a stranger makes up, as they were written before they were sealed and as they are now.
    for made_up in [
        format!("{state}:n:v:corp:"),
        format!("9999999999:{state}:n:v:corp:"),
        format!("9999999999:{state}:n:v:corp::{}", "A".repeat(43)),
        String::new(),
    ] {
        cookie(made_up.clone());
        assert_eq!(stranger.get(&answer).await.status, 400, "{made_up}");
    }
    // One that began here, with the state changed.
    stranger.get(&begin).await;
    let sealed = stranger.cookies.lock()["__Host-mayfly-sign-in"].clone();
    let (ends_at, rest) = sealed.split_once(':').unwrap();
    cookie(format!("{ends_at}:{state}:{}", rest.split_once(':').unwrap().1));
    assert_eq!((stranger.get(&answer).await.status, corp.asked()), (400, 0));
    // One that really began: the provider is asked once for its answer, however often that comes.
    let page = stranger.get(&begin).await;
    let sealed = stranger.cookies.lock()["__Host-mayfly-sign-in"].clone();
    let back = corp.approve(page.location(), |_| {});
    let refused = back.replace("code=", "code=other-");
    assert_eq!((stranger.get(&refused).await.status, corp.asked()), (502, 1));
    for _ in 0..3 {
        cookie(sealed.clone());
        assert_eq!((stranger.get(&back).await.status, corp.asked()), (400, 1));
    }
    // Nor is anybody asked for one that this process does not know: it ends with a restart.
    let page = stranger.get(&begin).await;
    let back = corp.approve(page.location(), |_| {});
    let dev = Dev::start_args(dev.kill(), &["--config", "more.toml"], &[]);
    assert_eq!(dev.text("https_issuer"), issuer);
    let again = Browser::new(&dev, &[&dev.path("corp.pem")]);
    again.cookies.lock().clone_from(&stranger.cookies.lock());
    assert_eq!((again.get(&back).await.status, corp.asked()), (400, 1));
}

#[tokio::test]
async fn a_person_stops_one_agent_and_everything_that_acts_for_them() {
    let dev = start();
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    let browser = Browser::new(&dev, &[]);
    let home = format!("{}/me", browser.issuer);
    let page = browser.open(&home, "demo").await;
    let ids = ["a1", "a2"].map(|agent| dev.json(&format!("whoami --as {agent}"))["spiffe_id"].as_str().unwrap().to_owned());
    assert!(ids.iter().all(|id| page.text.contains(id)), "{}", page.text);
    let form = page.field("form");
    let stop = format!("{home}/stop");
    assert_eq!(browser.post(&stop, &[("form", &form), ("agent", &ids[0])]).await.status, 303);
    assert!(dev.fails("whoami --as a1", 3).contains("AGENT_REVOKED"));
    let page = browser.get(&home).await;
    assert!(!page.text.contains(&ids[0]) && page.text.contains(&ids[1]));
    assert_eq!(browser.post(&stop, &[("form", &form)]).await.status, 400, "nothing is named");
    assert_eq!(browser.post(&stop, &[("form", &form), ("agent", "x")]).await.status, 400);
    let page = browser.post(&stop, &[("form", &form), ("all", "yes")]).await;
    assert!(page.status == 200 && page.text.contains("mayfly my reopen"), "{}", page.text);
    assert!(dev.fails("whoami --as a2", 3).contains("REVOKED"));
    assert_eq!(browser.get(&home).await.status, 303, "the session has ended with it");
}
