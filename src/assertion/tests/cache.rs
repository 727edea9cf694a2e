//! The cache of keys: how old keys may become, and how often a provider is asked.

use std::path::PathBuf;

use super::*;

async fn verify(assertions: &Assertions, token: &str, now: u64) -> Result<(), Refusal> {
    assertions.verify(token, now, Presenter::Certified).await.map(|_| ())
}

fn token_at(key: &Signer, kid: &str, now: u64) -> String {
    key.token(&json!({ "kid": kid }), &json!({ "iat": now, "exp": now + 60 }))
}

/// Lets a refresh in the background end.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn keys_are_read_once_and_refreshed_while_they_serve() {
    let key = Signer::p256();
    let fake = FakeSource::new(&[key.jwk("k")]);
    let assertions = assertions(&fake);
    for (age, fetches) in [(0, 1), (299, 1), (300, 2), (301, 2), (599, 2)] {
        verify(&assertions, &token_at(&key, "k", NOW + age), NOW + age).await.unwrap();
        settle().await;
        assert_eq!(fake.fetches(), fetches, "at {age}");
    }
}

#[tokio::test]
async fn a_withdrawn_key_counts_for_ten_minutes_at_most_while_the_provider_answers() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let fake = FakeSource::new(&[old.jwk("k")]);
    let assertions = assertions(&fake);
    verify(&assertions, &token_at(&old, "k", NOW), NOW).await.unwrap();
    fake.publish(&[new.jwk("n")]);
    let later = NOW + 600;
    assert_eq!(verify(&assertions, &token_at(&old, "k", later), later).await, Err(Refusal::KeyUnknown));
}

#[tokio::test]
async fn keys_serve_for_an_hour_while_the_provider_is_down_and_no_longer() {
    let key = Signer::p256();
    let fake = FakeSource::new(&[key.jwk("k")]);
    let assertions = assertions(&fake);
    verify(&assertions, &token_at(&key, "k", NOW), NOW).await.unwrap();
    fake.go_down();
    for age in [600, 601, 3599] {
        assert_eq!(verify(&assertions, &token_at(&key, "k", NOW + age), NOW + age).await, Ok(()), "at {age}");
        settle().await;
    }
    let late = NOW + 3600;
    assert_eq!(verify(&assertions, &token_at(&key, "k", late), late).await, Err(Refusal::IssuerUnavailable));
    fake.publish(&[key.jwk("k")]);
    let back = late + 2;
    assert_eq!(verify(&assertions, &token_at(&key, "k", back), back).await, Ok(()));
}

#[tokio::test]
async fn a_provider_that_is_down_is_asked_every_two_seconds_at_most() {
    let key = Signer::p256();
    let fake = FakeSource::new(&[]);
    fake.go_down();
    let assertions = assertions(&fake);
    for (at, fetches) in [(0, 1), (0, 1), (1, 1), (2, 2), (3, 2), (4, 3)] {
        let outcome = verify(&assertions, &token_at(&key, "k", NOW), NOW + at).await;
        assert_eq!((outcome, fake.fetches()), (Err(Refusal::IssuerUnavailable), fetches), "at {at}");
    }
}

#[tokio::test]
async fn t57_unknown_keys_cause_one_request_in_ten_seconds() {
    let (key, attacker, new) = (Signer::p256(), Signer::p256(), Signer::p256());
    let fake = FakeSource::new(&[key.jwk("k")]);
    let assertions = assertions(&fake);
    verify(&assertions, &token_at(&key, "k", NOW), NOW).await.unwrap();
    for second in 0..30 {
        for n in 0..20 {
            let token = token_at(&attacker, &format!("evil-{second}-{n}"), NOW + second);
            assert_eq!(verify(&assertions, &token, NOW + second).await, Err(Refusal::KeyUnknown));
        }
    }
    assert_eq!(fake.fetches(), 3);
    // A key that was published since is found, whether the token has a `kid` or not.
    fake.publish(&[key.jwk("k"), new.jwk("n")]);
    assert_eq!(verify(&assertions, &token_at(&new, "n", NOW + 40), NOW + 40).await, Ok(()));
    let newer = Signer::p256();
    fake.publish(&[newer.jwk("m")]);
    let unnamed = newer.token(&json!({ "kid": null }), &json!({ "iat": NOW + 60 }));
    assert_eq!(verify(&assertions, &unnamed, NOW + 60).await, Ok(()));
    // While the provider cannot be reached, a key is not called unknown.
    fake.go_down();
    let token = token_at(&key, "k", NOW + 80);
    assert_eq!(verify(&assertions, &token, NOW + 80).await, Err(Refusal::IssuerUnavailable));
}

#[tokio::test]
async fn a_hundred_waiters_are_one_request_and_share_its_outcome() {
    let key = Signer::p256();
    for (up, outcome) in [(true, Ok(())), (false, Err(Refusal::IssuerUnavailable))] {
        let fake = FakeSource::new(&[key.jwk("k")]);
        fake.delay.store(200, Ordering::SeqCst);
        if !up {
            fake.go_down();
        }
        let assertions = Arc::new(assertions(&fake));
        let token: Arc<str> = token_at(&key, "k", NOW).into();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (assertions, token) = (Arc::clone(&assertions), Arc::clone(&token));
                tokio::spawn(async move { verify(&assertions, &token, NOW).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), outcome);
        }
        assert_eq!(fake.fetches(), 1);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_no_request_others_wait_for() {
    let key = Signer::p256();
    let fake = FakeSource::new(&[key.jwk("k")]);
    fake.delay.store(20, Ordering::SeqCst);
    let assertions = Arc::new(assertions(&fake));
    let token = token_at(&key, "k", NOW);
    let first = tokio::spawn({
        let (assertions, token) = (Arc::clone(&assertions), token.clone());
        async move { verify(&assertions, &token, NOW).await }
    });
    settle().await;
    first.abort();
    assert_eq!(verify(&assertions, &token, NOW).await, Ok(()));
    assert_eq!(fake.fetches(), 1);
}

#[tokio::test]
async fn t57_a_key_document_has_at_most_a_hundred_keys() {
    let key = Signer::p256();
    let many = |n: usize| (0..n).map(|i| key.jwk(&i.to_string())).collect::<Vec<_>>();
    for (n, outcome) in [(100, Ok(())), (101, Err(Refusal::IssuerUnavailable)), (0, Err(Refusal::IssuerUnavailable))] {
        let assertions = assertions(&FakeSource::new(&many(n)));
        assert_eq!(verify(&assertions, &token_at(&key, "7", NOW), NOW).await, outcome, "{n}");
    }
}

#[tokio::test]
async fn t100_a_token_that_names_no_key_of_several_is_refused_and_nothing_is_tried() {
    let (key, other, of_another_kind) = (Signer::p256(), Signer::p256(), Signer::rs256());
    let unnamed = key.token(&json!({ "kid": null }), &json!({}));
    let only = [key.jwk("k"), of_another_kind.jwk("r")];
    assert_eq!(verify(&assertions(&FakeSource::new(&only)), &unnamed, NOW).await, Ok(()), "one key fits its algorithm");
    let several = [key.jwk("k"), other.jwk("o")];
    let assertions = assertions(&FakeSource::new(&several));
    assert_eq!(verify(&assertions, &unnamed, NOW).await, Err(Refusal::KeyUnnamed));
    assert_eq!(verify(&assertions, &token_at(&key, "k", NOW), NOW).await, Ok(()));
}

#[tokio::test]
async fn t100_of_keys_with_one_name_two_are_tried() {
    let keys: Vec<_> = (0..3).map(|_| Signer::p256()).collect();
    let published: Vec<_> = keys.iter().map(|key| key.jwk("k")).collect();
    let assertions = assertions(&FakeSource::new(&published));
    let mut outcomes = Vec::new();
    for key in &keys {
        outcomes.push(verify(&assertions, &token_at(key, "k", NOW), NOW).await);
    }
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(Refusal::Signature)]);
}

#[tokio::test]
async fn t158_a_new_key_under_an_old_name_is_fetched_as_an_unknown_one_is() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let fake = FakeSource::new(&[old.jwk("k")]);
    let assertions = assertions(&fake);
    verify(&assertions, &token_at(&old, "k", NOW), NOW).await.unwrap();
    fake.publish(&[new.jwk("k")]);
    // A forged signature causes no more requests than an unknown key does.
    assert_eq!(verify(&assertions, &token_at(&new, "k", NOW), NOW).await, Err(Refusal::Signature));
    let later = NOW + 11;
    verify(&assertions, &token_at(&new, "k", later), later).await.unwrap();
    assert_eq!(verify(&assertions, &token_at(&old, "k", later), later).await, Err(Refusal::Signature));
    assert_eq!(fake.fetches(), 2);
}

/// Waits until the keys are kept: a thread writes them.
fn kept(dir: &Path) -> PathBuf {
    for _ in 0..1000 {
        if let Some(file) = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "json"))
        {
            return file;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing was kept");
}

#[tokio::test]
async fn t234_kept_keys_serve_after_a_restart_while_the_provider_is_down_and_no_longer_than_before() {
    let (key, dir) = (Signer::p256(), tempfile::tempdir().unwrap());
    let fake = FakeSource::new(&[key.jwk("k")]);
    let first = assertions(&fake);
    first.keep(dir.path());
    verify(&first, &token_at(&key, "k", NOW), NOW).await.unwrap();
    let file = kept(dir.path());
    fake.go_down();
    let restarted = || {
        let again = assertions(&fake);
        again.keep(dir.path());
        again
    };
    assert_eq!(verify(&assertions(&fake), &token_at(&key, "k", NOW + 1), NOW + 1).await, Err(Refusal::IssuerUnavailable));
    for age in [1, 700, 3599] {
        assert_eq!(verify(&restarted(), &token_at(&key, "k", NOW + age), NOW + age).await, Ok(()), "at {age}");
    }
    for wrong in [NOW + 3600, NOW - 3600] {
        assert_eq!(verify(&restarted(), &token_at(&key, "k", wrong), wrong).await, Err(Refusal::IssuerUnavailable));
    }
    // A token that these keys did not sign is refused as before.
    let unknown = token_at(&Signer::p256(), "k", NOW + 1);
    assert_eq!(verify(&restarted(), &unknown, NOW + 1).await, Err(Refusal::Signature));
    // Files that do not hold keys of this source.
    let text = std::fs::read_to_string(&file).unwrap();
    for other in
        [text.replace("\"fake\"", "\"https://other.example\""), text.replace("kty", "kit"), text[..text.len() / 2].into()]
    {
        assert_ne!(other, text);
        std::fs::write(&file, &other).unwrap();
        let now = NOW + 1;
        assert_eq!(verify(&restarted(), &token_at(&key, "k", now), now).await, Err(Refusal::IssuerUnavailable), "{other}");
    }
    // The keys that the provider publishes now take precedence.
    std::fs::write(&file, &text).unwrap();
    let new = Signer::p256();
    fake.publish(&[new.jwk("n")]);
    let now = NOW + 2;
    assert_eq!(verify(&restarted(), &token_at(&new, "n", now), now).await, Ok(()));
}
