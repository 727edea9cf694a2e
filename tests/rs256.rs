//! The authority for RS256: there if an audience asks for it, and gone when none does any more.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use base64::Engine as _;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use serde_json::Value;
use support::{Dev, channel};

const CONFIG: &str = "[[audiences]]\nname = \"https://search.example\"\nowner = \"search team\"\nalgorithm = \"rs256\"\n";

/// The `alg` and the `kid` of a token.
fn header(token: &str) -> (String, String) {
    let header = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    (header["alg"].as_str().unwrap().into(), header["kid"].as_str().unwrap().into())
}

/// The kinds and the stages of the authorities for RS256.
fn stages(dev: &Dev) -> Vec<String> {
    let all = dev.json("authority list");
    let all = all["authorities"].as_array().unwrap().iter().filter(|a| a["kind"] == "rs256");
    all.map(|a| a["status"].as_str().unwrap().to_owned()).collect()
}

fn keys(dev: &Dev) -> usize {
    let keys = std::fs::read_dir(dev.path(".mayfly/keys")).unwrap();
    keys.filter(|key| key.as_ref().unwrap().file_name().to_string_lossy().starts_with("rs256-")).count()
}

fn start(dir: tempfile::TempDir, config: &str) -> Dev {
    std::fs::write(dir.path().join("extra.toml"), config).unwrap();
    Dev::start_args(dir, &["--config", "extra.toml"], &[])
}

#[test]
fn t195_an_rsa_key_exists_only_while_an_audience_asks_for_it() {
    let dev = start(tempfile::tempdir().unwrap(), "");
    assert!(stages(&dev).is_empty());
    assert_eq!(keys(&dev), 0);
    assert!(dev.fails("authority prepare rs256", 3).contains("no audience asks for rs256"));
    let dev = start(dev.kill(), CONFIG);
    assert_eq!((stages(&dev), keys(&dev)), (vec!["active".to_owned()], 1));
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1");
    let before = dev.file("a1/svid.jwt");
    let (alg, kid) = header(&before);
    assert_eq!(alg, "RS256");
    // The same key after a restart, another one after a rotation; what the first one signed stays valid.
    let dev = start(dev.kill(), CONFIG);
    let minted = || header(dev.json("mint --as a1 --audience https://search.example")["token"].as_str().unwrap());
    assert_eq!(minted(), (alg.clone(), kid.clone()));
    dev.json("authority rotate rs256 --now");
    let (other_alg, other) = minted();
    assert!(other_alg == alg && other != kid);
    dev.json("verify a1/svid.jwt --audience https://search.example --live");
    // What nobody listed is signed as ever.
    let mail = dev.json("mint --as a1 --audience https://mail.example");
    assert_eq!(header(mail["token"].as_str().unwrap()).0, "ES256");
    // Nobody asks any more: nothing new, and the keys are listed for as long as what they signed may be valid.
    let dev = start(dev.kill(), "");
    assert!(stages(&dev).iter().all(|stage| stage == "retired"), "{:?}", stages(&dev));
    dev.json("verify a1/svid.jwt --audience https://search.example --live");
    assert_eq!(header(dev.json("mint --as a1 --audience https://search.example")["token"].as_str().unwrap()).0, "ES256");
    // And again.
    let dev = start(dev.kill(), CONFIG);
    assert_eq!(stages(&dev).iter().filter(|stage| *stage == "active").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t196_no_token_is_for_audiences_that_verify_different_algorithms() {
    let dev = start(tempfile::tempdir().unwrap(), CONFIG);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let request = v1::MintJwtRequest {
        request_id: "1".into(),
        audience: "https://mail.example".into(),
        further_audiences: vec!["https://search.example".into()],
        ..Default::default()
    };
    let refused = IdentitiesClient::new(channel(&dev, Some("a1")).await).mint_jwt(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("ask for a token for each"), "{refused}");
    // Access tokens have the algorithm of their audience too.
    let token = dev.json("exchange --as a1 --audience https://search.example --scope search:read");
    assert_eq!(header(token["access_token"].as_str().unwrap()).0, "RS256");
}

#[test]
fn t195_a_key_that_is_gone_is_replaced_and_one_of_another_authority_signs_nothing() {
    let dev = start(tempfile::tempdir().unwrap(), CONFIG);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1");
    let (_, kid) = header(&dev.file("a1/svid.jwt"));
    let dir = dev.kill();
    let path = dir.path().join(format!(".mayfly/keys/rs256-{kid}.key"));
    let pem = std::fs::read_to_string(&path).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
    let other = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&other).unwrap();
    std::fs::write(&path, mayfly::authority::pem("PRIVATE KEY", der.as_ref())).unwrap();
    let dev = start(dir, CONFIG);
    assert_eq!(stages(&dev), ["retired", "active"]);
    let minted = dev.json("mint --as a1 --audience https://search.example");
    let (alg, fresh) = header(minted["token"].as_str().unwrap());
    assert!(alg == "RS256" && fresh != kid);
}
