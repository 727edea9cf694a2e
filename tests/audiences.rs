//! The catalogue of audiences: what it makes of tokens.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use base64::Engine as _;
use serde_json::{Value, json};
use support::Dev;

const CONFIG: &str = r#"
[[audiences]]
name = "sts.amazonaws.com"
owner = "cloud team"
kind = "aws"
lifetime = "20m"
[audiences.claims]
"https://aws.amazon.com/source_identity" = "{agent}"
"https://aws.amazon.com/tags" = { principal_tags = { user = ["{user.sub}"], class = ["{class}"] }, transitive_tag_keys = ["user"] }
[[audiences]]
name = "https://mail.example"
owner = "mail team"
lifetime = "1m"
"#;

/// What a token says, without its signature.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn tokens_live_and_speak_as_the_catalogue_says() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    // The first token of a spawn, and one that is minted later, are alike.
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --audience sts.amazonaws.com --out a1");
    let uuid = agent["agent_id"].as_str().unwrap().rsplit('/').next().unwrap();
    let minted = dev.json("mint --as a1 --audience sts.amazonaws.com");
    for token in [dev.file("a1/svid.jwt"), minted["token"].as_str().unwrap().to_owned()] {
        let claims = claims(&token);
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 1200);
        assert_eq!(claims["https://aws.amazon.com/source_identity"], uuid);
        let tags = json!({ "principal_tags": { "user": ["demo"], "class": ["researcher"] }, "transitive_tag_keys": ["user"] });
        assert_eq!(claims["https://aws.amazon.com/tags"], tags);
    }
    // It is a JWT-SVID as ever.
    assert_eq!(dev.json("verify a1/svid.jwt --audience sts.amazonaws.com --live")["spiffe_id"], agent["agent_id"]);
    let mail = dev.json("mint --as a1 --audience https://mail.example");
    let mail = claims(mail["token"].as_str().unwrap());
    assert_eq!(mail["exp"].as_u64().unwrap() - mail["iat"].as_u64().unwrap(), 60);
    // And what nobody listed lives as all tokens do.
    let other = dev.json("mint --as a1 --audience https://search.example");
    let other = claims(other["token"].as_str().unwrap());
    assert_eq!(other["exp"].as_u64().unwrap() - other["iat"].as_u64().unwrap(), 300);
    assert!(other.get("https://aws.amazon.com/tags").is_none());
    // The receipt of a revocation counts the longer life.
    let receipt = dev.json("revoke --user dev/demo --dry-run");
    assert!(receipt["worst_case_seconds"].as_u64().is_some_and(|s| (1190..=1200).contains(&s)), "{receipt}");
}
