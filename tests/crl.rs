//! CRLs: what a verifier that reads nothing else is told. OpenSSL is the verifier.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::process::Command;

use reqwest::{Certificate, Client};
use support::Dev;

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out";

/// What OpenSSL says of a chain, by the lists in `crl.pem` alone, which are fetched anew. Every CA of the chain needs a list.
fn openssl(dev: &Dev, chain: &str) -> String {
    dev.json("crl --out crl.pem");
    let line = format!("verify -crl_check_all -CAfile a1/bundle.pem -CRLfile crl.pem -untrusted {chain} {chain}");
    let out = Command::new("openssl").args(line.split(' ')).current_dir(dev.dir.path()).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

#[track_caller]
fn holds(dev: &Dev, chain: &str) {
    let said = openssl(dev, chain);
    assert!(said.trim_end().ends_with("OK"), "{chain}: {said}");
}

#[track_caller]
fn revoked(dev: &Dev, chain: &str) {
    let said = openssl(dev, chain);
    assert!(said.contains("certificate revoked"), "{chain}: {said}");
}

/// Lists are made once a second at most.
fn pace() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
}

fn dev() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev
}

#[test]
fn t159_whatever_is_over_is_in_the_list_and_what_lives_is_not() {
    let dev = dev();
    let id = |name: &str| dev.json(&format!("verify {name}/svid.pem"))["spiffe_id"].as_str().unwrap().to_owned();
    for name in ["a1", "a2", "a3", "a4"] {
        dev.json(&format!("{SPAWN} {name}"));
    }
    dev.json("spawn --as a4 --class worker --out c4");
    // A certificate from before a renewal lasts on.
    std::fs::copy(dev.path("a2/svid.pem"), dev.path("before.pem")).unwrap();
    dev.json("renew --as a2");
    for chain in ["a1/svid.pem", "a2/svid.pem", "before.pem", "a3/svid.pem", "c4/svid.pem"] {
        holds(&dev, chain);
    }
    dev.json(&format!("revoke --agent {}", id("a1")));
    dev.json(&format!("revoke --agent {}", id("a2")));
    dev.json(&format!("end {}", id("a4")));
    pace();
    for chain in ["a1/svid.pem", "a2/svid.pem", "before.pem", "a4/svid.pem", "c4/svid.pem"] {
        revoked(&dev, chain);
    }
    holds(&dev, "a3/svid.pem");
    // It is the same after a restart.
    let dev = Dev::start_in(dev.kill());
    revoked(&dev, "before.pem");
    holds(&dev, "a3/svid.pem");
    dev.json("revoke --user dev/demo");
    pace();
    revoked(&dev, "a3/svid.pem");
}

#[test]
fn t159_a_revoked_workload_and_a_tainted_authority_are_in_the_lists() {
    let dev = dev();
    let ticket = dev.json("join guard");
    std::fs::write(dev.path("ticket"), ticket["token"].as_str().unwrap()).unwrap();
    dev.json("redeem --ticket-file ticket --out a1");
    holds(&dev, "a1/svid.pem");
    dev.json("revoke --workload guard");
    pace();
    revoked(&dev, "a1/svid.pem");

    dev.json(&format!("{SPAWN} a2"));
    let list = dev.json("authority list");
    let active = list["authorities"].as_array().unwrap().iter().find(|a| a["kind"] == "x509" && a["status"] == "active").unwrap();
    let active = active["id"].as_str().unwrap().to_owned();
    dev.json("authority rotate x509 --now");
    dev.json(&format!("{SPAWN} a3"));
    pace();
    // The retired authority still has a list, also after a restart.
    holds(&dev, "a2/svid.pem");
    let dev = Dev::start_in(dev.kill());
    holds(&dev, "a2/svid.pem");
    dev.json(&format!("authority taint {active}"));
    pace();
    // No list says anything of what it signed: the root's list says that it is revoked itself.
    let said = openssl(&dev, "a2/svid.pem");
    assert!(said.contains("certificate revoked") || said.contains("unable to get certificate CRL"), "{said}");
    holds(&dev, "a3/svid.pem");
}

#[test]
fn t159_a_revoked_key_is_in_the_list_without_the_agents_other_keys() {
    let dev = dev();
    dev.json(&format!("{SPAWN} a1"));
    std::fs::copy(dev.path("a1/svid.pem"), dev.path("before.pem")).unwrap();
    let line = "openssl x509 -in before.pem -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r";
    let out = Command::new("sh").args(["-c", line]).current_dir(dev.dir.path()).output().unwrap();
    let key = String::from_utf8_lossy(&out.stdout).split_whitespace().next().unwrap().to_owned();
    dev.json("renew --as a1");
    dev.json(&format!("revoke --key {key}"));
    pace();
    revoked(&dev, "before.pem");
    holds(&dev, "a1/svid.pem");
}

#[tokio::test]
async fn the_lists_are_served_over_https_one_for_each_ca() {
    let dev = dev();
    dev.json(&format!("{SPAWN} a1"));
    let made = dev.json("crl --out crl.pem");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    let http = Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let issuer = dev.text("https_issuer");
    let all = http.get(format!("{issuer}/crl.pem")).send().await.unwrap();
    assert_eq!((all.status().as_u16(), &all.headers()["content-type"]), (200, &"application/x-pem-file".parse().unwrap()));
    assert_eq!(String::from_utf8(all.bytes().await.unwrap().to_vec()).unwrap().trim_end(), dev.file("crl.pem"));
    for id in made["issuers"].as_array().unwrap() {
        let one = http.get(format!("{issuer}/crl/{}.crl", id.as_str().unwrap())).send().await.unwrap();
        assert_eq!((one.status().as_u16(), &one.headers()["content-type"]), (200, &"application/pkix-crl".parse().unwrap()));
    }
    assert_eq!(http.get(format!("{issuer}/crl/00.crl")).send().await.unwrap().status(), 404);
}
