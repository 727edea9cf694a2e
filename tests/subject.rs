//! The Subject of a certificate, by the template of its class, as others read it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::process::Command;

use support::Dev;

const CONFIG: &str = r#"
[[classes]]
name = "researcher"
owner = "tests"
scopes = ["search:read"]
audiences = []
max_depth = 1
modes = ["delegated"]
spawners = ["workload/orchestrator"]
subject = 'CN={user.sub},OU={class},O=acting for {user.provider}'
[[classes]]
name = "child"
owner = "tests"
scopes = ["search:read"]
audiences = []
svid_ttl = "10s"
modes = ["delegated"]
spawners = ["class/researcher"]
subject = 'UID={agent.id},CN=agent:{agent},O=Sue\, Grabbit\+Runn,DC=example,C=DE'
"#;

fn dev(config: &str) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), config).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev
}

fn openssl(dev: &Dev, line: &str) -> String {
    let out = Command::new("openssl").args(line.split(' ')).current_dir(dev.dir.path()).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}

/// As PostgreSQL's `clientname=DN` and many others print a name.
fn subject(dev: &Dev, folder: &str) -> String {
    openssl(dev, &format!("x509 -in {folder}/svid.pem -noout -subject -nameopt RFC2253,-esc_msb,utf8"))
}

#[test]
fn others_read_user_class_and_agent_in_the_subject() {
    let dev = dev(CONFIG);
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let provider = dev.endpoint["issuers"].as_object().map_or("dev".to_owned(), |all| all.keys().next().unwrap().clone());
    assert_eq!(subject(&dev, "a1"), format!("subject=CN=demo,OU=researcher,O=acting for {provider}"));
    let child = dev.json("spawn --as a1 --class child --out c1");
    let id = child["agent_id"].as_str().unwrap_or_default().to_owned();
    let uuid = id.rsplit('/').next().unwrap();
    let expected = format!(r"subject=UID={id},CN=agent:{uuid},O=Sue\, Grabbit\+Runn,DC=example,C=DE");
    assert_eq!(subject(&dev, "c1"), expected);
    // RFC 5280 4.2.1.6: beside a Subject the alternative name is not critical; without one it is.
    let names = |folder: &str| openssl(&dev, &format!("x509 -in {folder}/svid.pem -noout -ext subjectAltName"));
    assert!(!names("a1").contains("critical") && names("a1").contains("URI:spiffe://"));
    let own = support::ORCHESTRATOR;
    assert!(names(own).contains("critical") && subject(&dev, own) == "subject=");
    // It stays a certificate that everybody accepts, and the Subject stays with the next one.
    for folder in ["a1", "c1"] {
        openssl(&dev, &format!("verify -CAfile {folder}/bundle.pem -untrusted {folder}/svid.pem {folder}/svid.pem"));
        assert!(dev.run(&format!("verify {folder}/svid.pem --live")).status.success());
        assert!(dev.run(&format!("renew --as {folder}")).status.success());
    }
    assert_eq!(subject(&dev, "c1"), expected);
}

#[test]
fn a_malformed_template_is_refused_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    for (subject, modes, part) in [
        ("CN={user}", "delegated", "classes[0].subject: `CN={user}`: `{user}` is no variable: write one of `{agent}`"),
        ("CN=a+OU=b", "delegated", "an attribute stands alone"),
        ("CN={user.sub}", "autonomous", "classes[0].subject: it names the user, and autonomous agents act for none"),
    ] {
        let text = format!(
            "trust_domain = \"prod.example\"\n[[classes]]\nname = \"robot\"\nowner = \"ops\"\nscopes = []\naudiences = []\n\
             modes = [\"{modes}\"]\nspawners = []\nsubject = \"{subject}\"\n"
        );
        std::fs::write(dir.path().join("mayfly.toml"), text).unwrap();
        let out = support::run_in(dir.path(), "config check mayfly.toml");
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && told.contains(part), "{subject}: {told}");
    }
}
