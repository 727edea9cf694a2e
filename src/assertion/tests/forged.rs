//! Valid tokens, and forged ones, each of which is refused for its own reason.

use super::*;

async fn refusal(assertions: &Assertions, token: &str) -> &'static str {
    assertions.verify(token, NOW, Presenter::Certified).await.map_or_else(Refusal::code, |_| "ACCEPTED")
}

async fn expect(cases: Vec<(&str, String, &str)>, key: &Signer) {
    let assertions = assertions(&FakeSource::new(&[key.jwk("k")]));
    // Control: the same key and claims without the forgery.
    assert_eq!(refusal(&assertions, &key.token(&json!({}), &json!({}))).await, "ACCEPTED");
    for (what, token, code) in cases {
        assert_eq!(refusal(&assertions, &token).await, code, "{what}");
    }
}

#[tokio::test]
async fn an_id_token_of_every_kind_of_key_is_accepted() {
    for key in [Signer::p256(), Signer::p384(), Signer::rs256(), Signer::ps256(), Signer::ed()] {
        let assertions = assertions(&FakeSource::new(&[key.jwk("k")]));
        for header in [json!({}), json!({ "typ": null }), json!({ "kid": null }), json!({ "typ": "jwt" }), json!({ "x5t": "a" })]
        {
            let delegator = assertions.verify(&key.token(&header, &json!({})), NOW, Presenter::Certified).await;
            assert_eq!(delegator.map(|d| d.user().sub.clone()), Ok("alice".into()), "{} {header}", key.alg());
        }
    }
}

#[tokio::test]
async fn a_delegator_carries_what_the_token_and_its_audience_say() {
    let key = Signer::p256();
    let assertions = assertions(&FakeSource::new(&[key.jwk("k")]));
    let token = key.token(&json!({}), &json!({ "aud": ["other", "mayfly-ci"], "azp": "mayfly-ci" }));
    let delegator = assertions.verify(&token, NOW, Presenter::Certified).await.unwrap();
    assert_eq!(delegator.user(), &User { iss: ISSUER.into(), sub: "alice".into() });
    assert_eq!((delegator.issued_at(), delegator.expires_at()), (NOW - 10, NOW + 600));
    assert_eq!((delegator.audience(), delegator.max_lease()), ("mayfly-ci", Some(Duration::from_secs(900))));
    assert_eq!(delegator.scopes(), Some(&["mail.read".to_owned()][..]));
    assert_eq!(delegator.workloads(), ["orchestrator".parse().unwrap()]);
    assert_eq!((assertions.issuer_name(ISSUER), assertions.issuer_url("login")), (Some("login"), Some(ISSUER)));
    assert_eq!((assertions.issuer_name("login"), assertions.issuer_url(ISSUER)), (None, None));
}

#[tokio::test]
async fn an_access_token_needs_what_rfc_9068_requires() {
    let key = Signer::p256();
    let full = json!({ "client_id": "app", "jti": "1", "aud": ["mayfly", "other"] });
    let assertions = assertions(&FakeSource::new(&[key.jwk("k")]));
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        assert_eq!(refusal(&assertions, &key.token(&json!({ "typ": typ }), &full)).await, "ACCEPTED", "{typ}");
    }
    for name in ["client_id", "jti", "iss", "sub", "aud", "iat", "exp"] {
        let claims = with(with(id_claims(), &full), &json!({ name: null }));
        let token = key.raw(r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#, &claims.to_string());
        assert_eq!(refusal(&assertions, &token).await, "USER_TOKEN_CLAIM", "{name}");
    }
}

#[tokio::test]
async fn t47_the_key_decides_the_algorithm() {
    let (key, rsa) = (Signer::rs256(), Signer::rs256());
    let jwk = key.jwk("k").to_string();
    let es = Signer::p256();
    let mut cases = Vec::new();
    for alg in ["none", "None", "nOnE", "RS1", "HS256", "HS384", "HS512", "ES512", "ES256K", "rs256", "", "ES256", "EdDSA"] {
        let token = key.token(&json!({ "alg": alg }), &json!({}));
        cases.push((alg, token.clone(), "USER_TOKEN_ALGORITHM"));
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        cases.push((alg, unsigned, "USER_TOKEN_ALGORITHM"));
    }
    // HMAC with a key that everybody knows: the public key in each of its encodings.
    for secret in [jwk.clone().into_bytes(), URL_SAFE_NO_PAD.decode(key.jwk("k")["n"].as_str().unwrap()).unwrap()] {
        cases.push(("hmac", Signer::Hmac(secret).token(&json!({}), &json!({})), "USER_TOKEN_ALGORITHM"));
    }
    cases.push(("ES256 under an RSA key", es.token(&json!({}), &json!({})), "USER_TOKEN_ALGORITHM"));
    cases.push(("another scheme of the key", key.token(&json!({ "alg": "PS256" }), &json!({})), "USER_TOKEN_SIGNATURE"));
    cases.push(("no alg", key.token(&json!({ "alg": null }), &json!({})), "USER_TOKEN_ALGORITHM"));
    cases.push(("alg a list", key.token(&json!({ "alg": ["RS256"] }), &json!({})), "USER_TOKEN_ALGORITHM"));
    cases.push(("another key", rsa.token(&json!({}), &json!({})), "USER_TOKEN_SIGNATURE"));
    cases.push(("another key, unnamed", rsa.token(&json!({ "kid": null }), &json!({})), "USER_TOKEN_SIGNATURE"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn t47_an_algorithm_outside_the_issuers_list_is_refused() {
    let key = Signer::p256();
    let fake = FakeSource::new(&[key.jwk("k")]);
    let settings = IssuerSettings { allowed_algs: vec![Algorithm::RS256], ..settings() };
    let assertions = Assertions::with_keys(vec![(settings, Keys::fake("login", fake))]);
    assert_eq!(refusal(&assertions, &key.token(&json!({}), &json!({}))).await, "USER_TOKEN_ALGORITHM");
}

#[tokio::test]
async fn t47_an_all_zero_or_cut_signature_does_not_hold() {
    let key = Signer::p256();
    let token = key.token(&json!({}), &json!({}));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut cases = vec![
        ("zeros", format!("{signed}.{}", b64([0; 64])), "USER_TOKEN_SIGNATURE"),
        ("empty", format!("{signed}."), "USER_TOKEN_SIGNATURE"),
        ("cut", format!("{signed}.{}", b64(&bytes[..63])), "USER_TOKEN_SIGNATURE"),
        ("longer", format!("{signed}.{}", b64([&bytes[..], &[0]].concat())), "USER_TOKEN_SIGNATURE"),
    ];
    let payload = b64(with(id_claims(), &json!({ "sub": "bob" })).to_string());
    let header = signed.split_once('.').unwrap().0;
    cases.push(("other claims", format!("{header}.{payload}.{signature}"), "USER_TOKEN_SIGNATURE"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn t48_t51_t58_a_header_cannot_bring_a_key_or_change_the_rules() {
    let (key, attacker) = (Signer::p256(), Signer::p256());
    let mut cases = Vec::new();
    for (name, value) in [
        ("jwk", attacker.jwk("k")),
        ("crit", json!(["x"])),
        ("crit", json!([])),
        ("crit", json!({ "literally": null })),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
    ] {
        cases.push((name, attacker.token(&json!({ name: value }), &json!({})), "USER_TOKEN_HEADER"));
        cases.push((name, key.token(&json!({ name: value }), &json!({})), "USER_TOKEN_HEADER"));
    }
    // A pointer to a key is never followed: the signature is checked with the published key of that name.
    for (name, value) in
        [("x5c", json!(["AAAA"])), ("jku", json!("https://evil.example/jwks")), ("x5u", json!("https://evil.example/x"))]
    {
        cases.push((name, attacker.token(&json!({ name: value }), &json!({})), "USER_TOKEN_SIGNATURE"));
        cases.push((name, key.token(&json!({ name: value }), &json!({})), "ACCEPTED"));
        cases.push((name, key.token(&json!({ name: value, "kid": null }), &json!({})), "USER_TOKEN_HEADER"));
    }
    cases.push(("attacker's key, unknown kid", attacker.token(&json!({ "kid": "evil" }), &json!({})), "USER_TOKEN_KEY_UNKNOWN"));
    cases.push(("jwe", "e30.e30.e30.e30.e30".into(), "USER_TOKEN_MALFORMED"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn t49_a_key_id_is_looked_up_exactly() {
    let key = Signer::p256();
    let mut cases = Vec::new();
    for kid in ["../../dev/null", "' UNION SELECT", "k\0", "K", "k ", "", "spiffe://other/k"] {
        cases.push((kid, key.token(&json!({ "kid": kid }), &json!({})), "USER_TOKEN_KEY_UNKNOWN"));
    }
    for kid in [json!(1), json!(["k"]), json!({ "literally": null }), json!("k".repeat(513))] {
        cases.push(("kid of a wrong form", key.token(&json!({ "kid": kid }), &json!({})), "USER_TOKEN_HEADER"));
    }
    cases.push(("kid of 1 MiB", key.token(&json!({ "kid": "k".repeat(1 << 20) }), &json!({})), "USER_TOKEN_TOO_LARGE"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn t49_keys_for_another_use_or_too_weak_ones_are_no_keys() {
    let (good, key) = (Signer::p256(), Signer::p256());
    let (rsa, secret) = (Signer::rs256(), Signer::Hmac(b"0123456789abcdef0123456789abcdef".to_vec()));
    let weak = |bytes: usize| json!({ "kty": "RSA", "n": b64(vec![0xff; bytes]), "e": "AQAB", "kid": "k" });
    let jwk = || key.jwk("k");
    for (what, bad, signer) in [
        ("use enc", with(jwk(), &json!({ "use": "enc" })), &key),
        ("use of another protocol", with(jwk(), &json!({ "use": "x509-svid" })), &key),
        ("key_ops without verify", with(jwk(), &json!({ "key_ops": ["sign"] })), &key),
        ("alg of another curve", with(jwk(), &json!({ "alg": "ES384" })), &key),
        ("alg unknown", with(jwk(), &json!({ "alg": "XY" })), &key),
        ("a private key", with(jwk(), &json!({ "d": "AAAA" })), &key),
        ("curve unknown", with(jwk(), &json!({ "crv": "P-521" })), &key),
        ("coordinate cut", with(jwk(), &json!({ "x": "AAAA" })), &key),
        ("symmetric", secret.jwk("k"), &key),
        ("RSA of 1024 bits", weak(128), &rsa),
        ("RSA of 2040 bits", weak(255), &rsa),
        (
            "RSA of 2048 bits, first of them zeros",
            json!({ "kty": "RSA", "n": b64([vec![0; 128], vec![0xff; 128]].concat()), "e": "AQAB", "kid": "k" }),
            &rsa,
        ),
        ("RSA of 16384 bits", weak(2048), &rsa),
        ("no object", json!("key"), &key),
    ] {
        // A bad key is left out, and the others are kept.
        let assertions = assertions(&FakeSource::new(&[bad, good.jwk("good")]));
        assert_eq!(refusal(&assertions, &signer.token(&json!({}), &json!({}))).await, "USER_TOKEN_KEY_UNKNOWN", "{what}");
        assert_eq!(refusal(&assertions, &good.token(&json!({ "kid": "good" }), &json!({}))).await, "ACCEPTED", "{what}");
    }
    for good in [with(jwk(), &json!({ "use": "sig", "alg": "ES256" })), with(jwk(), &json!({ "key_ops": ["verify"] }))] {
        let assertions = assertions(&FakeSource::new(&[good]));
        assert_eq!(refusal(&assertions, &key.token(&json!({}), &json!({}))).await, "ACCEPTED");
    }
}

#[tokio::test]
async fn t50_t52_a_wrong_json_type_never_reads_as_absent() {
    let key = Signer::p256();
    let mut cases = Vec::new();
    for name in ["exp", "iat", "nbf"] {
        for wrong in [
            "\"9999\"",
            "\"1800000500\"",
            "null",
            "[]",
            "{}",
            "-1",
            "-0.1",
            "9223372036854775808",
            "1e300",
            "true",
            "99999999999999999999",
        ] {
            let mut claims = id_claims();
            claims.as_object_mut().unwrap().remove(name);
            let claims = claims.to_string().replacen('{', &format!("{{\"{name}\":{wrong},"), 1);
            cases.push((wrong, key.raw(r#"{"alg":"ES256","kid":"k"}"#, &claims), "USER_TOKEN_CLAIM"));
        }
        for no_json in ["1e400", "NaN", "Infinity", "0x10", "01"] {
            let mut claims = id_claims();
            claims.as_object_mut().unwrap().remove(name);
            let claims = claims.to_string().replacen('{', &format!("{{\"{name}\":{no_json},"), 1);
            cases.push((no_json, key.raw(r#"{"alg":"ES256","kid":"k"}"#, &claims), "USER_TOKEN_MALFORMED"));
        }
    }
    for name in ["exp", "iat", "sub", "aud", "iss"] {
        cases.push((name, key.token(&json!({}), &json!({ name: null })), "USER_TOKEN_CLAIM"));
    }
    for aud in
        [json!(1), json!([1]), json!(["mayfly", 1]), json!([["mayfly"]]), json!({ "a": "mayfly" }), json!({ "literally": null })]
    {
        cases.push(("aud", key.token(&json!({}), &json!({ "aud": aud })), "USER_TOKEN_CLAIM"));
    }
    for (name, value) in
        [("iss", json!([ISSUER])), ("iss", json!(1)), ("sub", json!(1)), ("sub", json!(["alice"])), ("azp", json!(["mayfly"]))]
    {
        cases.push((name, key.token(&json!({}), &json!({ name: value })), "USER_TOKEN_CLAIM"));
    }
    expect(cases, &key).await;
}

#[tokio::test]
async fn t158_a_time_with_a_fraction_is_the_second_that_has_begun() {
    let key = Signer::p256();
    let at = |seconds: f64| json!({ "exp": seconds + 600.0, "iat": seconds, "nbf": seconds });
    let cases = vec![
        ("a fraction", key.token(&json!({}), &at(1_800_000_000.123)), "ACCEPTED"),
        ("no digits behind the point", key.token(&json!({}), &at(1_800_000_000.0)), "ACCEPTED"),
        ("over by now", key.token(&json!({}), &json!({ "exp": 1_800_000_000.9 })), "USER_TOKEN_EXPIRED"),
        ("milliseconds", key.token(&json!({}), &json!({ "exp": 1_800_000_000_123.5 })), "USER_TOKEN_CLAIM"),
    ];
    expect(cases, &key).await;
}

#[tokio::test]
async fn t158_keys_in_the_forms_that_providers_publish_are_keys() {
    let (rsa, ed) = (Signer::rs256(), Signer::ed());
    let padded = |name: &str, jwk: Value| {
        let bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        with(jwk, &json!({ name: b64([vec![0], bytes].concat()) }))
    };
    for (what, jwk, token) in [
        ("a modulus with a zero in front", padded("n", rsa.jwk("k")), rsa.token(&json!({}), &json!({}))),
        ("an exponent with a zero in front", padded("e", rsa.jwk("k")), rsa.token(&json!({}), &json!({}))),
        ("RFC 9864's name", with(ed.jwk("k"), &json!({ "alg": "Ed25519" })), ed.token(&json!({ "alg": "Ed25519" }), &json!({}))),
    ] {
        assert_eq!(refusal(&assertions(&FakeSource::new(&[jwk])), &token).await, "ACCEPTED", "{what}");
    }
}

#[test]
fn t158_what_is_left_out_of_a_key_set_is_named_with_its_reason() {
    let key = Signer::p256();
    let keys = [
        with(key.jwk("cut"), &json!({ "x": "AAAA" })),
        with(key.jwk("none"), &json!({ "key_ops": [] })),
        with(key.jwk("leaked"), &json!({ "d": "AAAA" })),
        with(key.jwk("x"), &json!({ "kid": null })),
        json!({ "kty": "EC" }),
    ];
    let set = crate::jose::KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
    assert_eq!(set.len(), 1, "a key without a name is a key");
    let left_out = set.left_out();
    for (at, (name, why)) in
        [("cut", "32 bytes"), ("none", "key_ops"), ("leaked", "secret"), ("keys[4]", "not supported")].iter().enumerate()
    {
        assert!(left_out[at].contains(name) && left_out[at].contains(why), "{left_out:?}");
    }
}

#[tokio::test]
async fn t51_times_are_judged_without_the_librarys_leeway() {
    let key = Signer::p256();
    let cases = vec![
        ("expired now", json!({ "exp": NOW }), "USER_TOKEN_EXPIRED"),
        ("expired 1 s ago", json!({ "exp": NOW - 1 }), "USER_TOKEN_EXPIRED"),
        ("ends in 1 s", json!({ "exp": NOW + 1 }), "ACCEPTED"),
        ("nbf within the leeway", json!({ "nbf": NOW + 5 }), "ACCEPTED"),
        ("nbf beyond it", json!({ "nbf": NOW + 6 }), "USER_TOKEN_NOT_YET_VALID"),
        ("iat within the leeway", json!({ "iat": NOW + 5 }), "ACCEPTED"),
        ("iat beyond it", json!({ "iat": NOW + 6 }), "USER_TOKEN_NOT_YET_VALID"),
        ("issued an hour ago", json!({ "iat": NOW - 3600 }), "ACCEPTED"),
        ("issued before that", json!({ "iat": NOW - 3601 }), "USER_TOKEN_TOO_OLD"),
        ("issued in 1970", json!({ "iat": 0 }), "USER_TOKEN_TOO_OLD"),
    ];
    let cases = cases.into_iter().map(|(what, claims, code)| (what, key.token(&json!({}), &claims), code));
    expect(cases.collect(), &key).await;
}

#[tokio::test]
async fn t53_the_audience_is_matched_exactly_and_only_one() {
    let key = Signer::p256();
    let cases = vec![
        (json!(""), "USER_TOKEN_AUDIENCE"),
        (json!([]), "USER_TOKEN_AUDIENCE"),
        (json!("Mayfly"), "USER_TOKEN_AUDIENCE"),
        (json!("mayfl"), "USER_TOKEN_AUDIENCE"),
        (json!("mayfly2"), "USER_TOKEN_AUDIENCE"),
        (json!("mayfly "), "USER_TOKEN_AUDIENCE"),
        (json!("mayfly,other"), "USER_TOKEN_AUDIENCE"),
        (json!(["other"]), "USER_TOKEN_AUDIENCE"),
        (json!(["mayfly"]), "ACCEPTED"),
        (json!(["mayfly", "mayfly-ci"]), "USER_TOKEN_AUDIENCE"),
        (json!(["other", "mayfly"]), "USER_TOKEN_AUDIENCE"),
    ];
    let mut cases: Vec<_> =
        cases.into_iter().map(|(aud, code)| ("aud", key.token(&json!({}), &json!({ "aud": aud })), code)).collect();
    for (azp, code) in [("mayfly", "ACCEPTED"), ("other", "USER_TOKEN_AUDIENCE"), ("mayfly-ci", "USER_TOKEN_AUDIENCE")] {
        cases.push((azp, key.token(&json!({}), &json!({ "aud": ["other", "mayfly"], "azp": azp })), code));
    }
    // A token for both audiences is refused even if `azp` names one of them.
    let both = json!({ "aud": ["mayfly", "mayfly-ci"], "azp": "mayfly" });
    cases.push(("both", key.token(&json!({}), &both), "USER_TOKEN_AUDIENCE"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn t08_t09_the_issuer_is_matched_byte_for_byte() {
    let key = Signer::p256();
    let mut cases = Vec::new();
    for iss in [
        "https://login.example.org/",
        "https://loginXexample.org",
        "https://login.example.org\n",
        "https://LOGIN.example.org",
        "https://login.example.org:443",
        "http://login.example.org",
        "https://login.example.org.evil.example",
        "https://login.example.org@evil.example",
        "",
        "login",
    ] {
        cases.push((iss, key.token(&json!({}), &json!({ "iss": iss })), "USER_TOKEN_ISSUER_UNKNOWN"));
    }
    expect(cases, &key).await;
}

#[tokio::test]
async fn a_key_of_one_issuer_signs_nothing_for_another() {
    let (ours, theirs) = (Signer::p256(), Signer::p256());
    let other =
        IssuerSettings { audiences: vec![audience("mayfly")], ..IssuerSettings::new("other", "https://other.example.org") };
    let assertions = Assertions::with_keys(vec![
        (settings(), Keys::fake("login", FakeSource::new(&[ours.jwk("k")]))),
        (other, Keys::fake("other", FakeSource::new(&[theirs.jwk("k")]))),
    ]);
    let their_own = theirs.token(&json!({}), &json!({ "iss": "https://other.example.org" }));
    assert_eq!(refusal(&assertions, &their_own).await, "ACCEPTED");
    assert_eq!(refusal(&assertions, &theirs.token(&json!({}), &json!({}))).await, "USER_TOKEN_SIGNATURE");
}

#[tokio::test]
async fn t05_no_member_occurs_twice() {
    let key = Signer::p256();
    let claims = id_claims().to_string();
    let header = r#"{"alg":"ES256","kid":"k"}"#;
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let cases = vec![
        ("sub", key.raw(header, &twice(&claims, r#""sub":"root""#)), "USER_TOKEN_MALFORMED"),
        ("sub, escaped", key.raw(header, &twice(&claims, r#""\u0073ub":"root""#)), "USER_TOKEN_MALFORMED"),
        ("alg", key.raw(&twice(header, r#""alg":"none""#), &claims), "USER_TOKEN_MALFORMED"),
    ];
    expect(cases, &key).await;
}

#[tokio::test]
async fn only_three_parts_of_plain_base64url_and_json_objects_are_a_token() {
    let key = Signer::p256();
    let good = key.token(&json!({}), &json!({}));
    let (header, claims) = (r#"{"alg":"ES256","kid":"k"}"#, id_claims().to_string());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut cases = vec![
        ("empty", String::new(), "USER_TOKEN_MALFORMED"),
        ("one part", "e30".into(), "USER_TOKEN_MALFORMED"),
        ("two parts", signed.to_owned(), "USER_TOKEN_MALFORMED"),
        ("four parts", format!("{good}.e30"), "USER_TOKEN_MALFORMED"),
        ("padded", format!("{good}=="), "USER_TOKEN_MALFORMED"),
        ("white space", format!(" {good}"), "USER_TOKEN_MALFORMED"),
        ("new line", format!("{good}\n"), "USER_TOKEN_MALFORMED"),
        ("bearer", format!("Bearer {good}"), "USER_TOKEN_MALFORMED"),
        ("standard alphabet", format!("{signed}.{}+/", &signature[2..]), "USER_TOKEN_MALFORMED"),
        ("header a list", key.raw("[]", &claims), "USER_TOKEN_MALFORMED"),
        ("claims a string", key.raw(header, "\"x\""), "USER_TOKEN_MALFORMED"),
        ("text behind the claims", key.raw(header, &format!("{claims}{{}}")), "USER_TOKEN_MALFORMED"),
        ("deep nesting", key.raw(header, &format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500))), "USER_TOKEN_MALFORMED"),
        ("json serialization", json!({ "payload": "e30" }).to_string(), "USER_TOKEN_MALFORMED"),
    ];
    let large = |bytes: usize| key.token(&json!({}), &json!({ "pad": "x".repeat(bytes) }));
    cases.push(("large", large(11_900), "ACCEPTED"));
    cases.push(("too large", large(12_400), "USER_TOKEN_TOO_LARGE"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn only_id_and_access_tokens_of_the_user_are_a_proof() {
    let key = Signer::p256();
    let mut cases = Vec::new();
    for typ in [
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!("secevent+jwt"),
        json!("JOSE"),
        json!(""),
        json!(1),
        json!({ "literally": null }),
    ] {
        cases.push(("typ", key.token(&json!({ "typ": typ }), &json!({})), "USER_TOKEN_TYPE"));
    }
    cases.push(("logout", key.token(&json!({}), &json!({ "events": {} })), "USER_TOKEN_TYPE"));
    cases.push(("bound to a key", key.token(&json!({}), &json!({ "cnf": { "jkt": "x" } })), "USER_TOKEN_TYPE"));
    for act in [json!({ "sub": "agent" }), json!({}), json!({ "literally": null })] {
        cases.push(("act", key.token(&json!({}), &json!({ "act": act })), "USER_TOKEN_ACTOR"));
    }
    for sub in ["", "a\0b", "a\nb", "a\u{85}b", &"a".repeat(256)] {
        cases.push(("sub", key.token(&json!({}), &json!({ "sub": sub })), "USER_TOKEN_CLAIM"));
    }
    cases.push(("sub of 255 bytes", key.token(&json!({}), &json!({ "sub": "a".repeat(255) })), "ACCEPTED"));
    expect(cases, &key).await;
}

#[tokio::test]
async fn another_good_signature_makes_no_other_proof() {
    let key = Signer::p256();
    let assertions = assertions(&FakeSource::new(&[key.jwk("k")]));
    // The second signature of the same text is a stand-in for one that anybody can derive from the first without the key.
    let (one, two) = (key.token(&json!({}), &json!({})), key.token(&json!({}), &json!({})));
    assert_ne!(one, two);
    let proof = |d: Delegator| *d.proof();
    let first = proof(assertions.verify(&one, NOW, Presenter::Certified).await.unwrap());
    assert_eq!(proof(assertions.verify(&two, NOW, Presenter::Certified).await.unwrap()), first);
    let other = key.token(&json!({}), &json!({ "jti": "2" }));
    assert_ne!(proof(assertions.verify(&other, NOW, Presenter::Certified).await.unwrap()), first);
}

#[test]
fn settings_that_would_weaken_the_checks_are_refused() {
    let code = |settings: Vec<IssuerSettings>| Assertions::new(settings).map_or_else(|e| e.code(), |_| "ACCEPTED");
    for issuer in [
        "http://a.example",
        "a.example",
        "https://",
        "https://a.example/?x",
        "https://a.example/#x",
        "https://u@a.example",
        "https://a.example\n",
        "",
    ] {
        assert_eq!(code(vec![IssuerSettings { issuer: issuer.into(), ..settings() }]), "ISSUER_URL", "{issuer}");
    }
    assert_eq!(code(vec![IssuerSettings { jwks_url: Some("http://a.example/".into()), ..settings() }]), "ISSUER_URL");
    assert_eq!(code(vec![settings(), IssuerSettings { name: "b".into(), ..settings() }]), "ISSUER_TWICE");
    assert_eq!(code(vec![settings(), IssuerSettings { issuer: "https://b.example".into(), ..settings() }]), "ISSUER_TWICE");
    assert_eq!(code(vec![IssuerSettings { name: String::new(), ..settings() }]), "ISSUER_NAME");
    for audiences in [vec![], vec![audience("")], vec![audience("a"), audience("a")]] {
        assert_eq!(code(vec![IssuerSettings { audiences, ..settings() }]), "ISSUER_AUDIENCES");
    }
    for allowed_algs in [vec![], vec![Algorithm::ES256, Algorithm::HS256]] {
        assert_eq!(code(vec![IssuerSettings { allowed_algs, ..settings() }]), "ISSUER_ALGORITHMS");
    }
    let missing = Some("/nonexistent/ca.pem".into());
    assert_eq!(code(vec![IssuerSettings { ca_file: missing, ..settings() }]), "CA_FILE_UNREADABLE");
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(code(vec![IssuerSettings { ca_file: Some(file.path().into()), ..settings() }]), "CA_FILE_EMPTY");
}

#[test]
fn without_a_ca_file_the_systems_roots_are_used_or_missed_without_a_panic() {
    let code = Assertions::new(vec![settings()]).map_or_else(|e| e.code(), |_| "ACCEPTED");
    assert!(["ACCEPTED", "TLS_CLIENT"].contains(&code), "{code}");
}
