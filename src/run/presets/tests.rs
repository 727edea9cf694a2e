#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::*;

const PROVIDER: &str = "projects/1/locations/global/workloadIdentityPools/p/providers/v";

fn env<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn laid_out(text: &str, set: &[(&str, &str)]) -> LaidOut {
    Preset::read(text, &env(set)).unwrap().lay_out(Path::new("/run/m"), Some(Uuid::from_u128(7)))
}

fn set<'a>(laid_out: &'a LaidOut, name: &str) -> Option<&'a str> {
    laid_out.env.iter().find(|(known, _)| *known == name)?.1.as_deref()
}

#[test]
fn what_nobody_gave_is_refused_with_what_to_set() {
    for (text, given, part) in [
        ("gcp", &[][..], "set GOOGLE_WORKLOAD_IDENTITY_PROVIDER to projects/"),
        ("gcp", &[("GOOGLE_WORKLOAD_IDENTITY_PROVIDER", "my-pool")], "and not to `my-pool`"),
        ("azure", &[("AZURE_CLIENT_ID", "c")], "set AZURE_TENANT_ID"),
        ("azure", &[("AZURE_CLIENT_ID", ""), ("AZURE_TENANT_ID", "t")], "set AZURE_CLIENT_ID"),
        ("anthropic", &[], "set ANTHROPIC_FEDERATION_RULE_ID"),
        ("kubernetes", &[], "set MAYFLY_KUBERNETES_CLUSTER"),
        ("snowflake", &[], "set SNOWFLAKE_ACCOUNT"),
        ("ec2", &[], "`ec2` is not one of aws, gcp, azure"),
        ("aws=", &[], "an audience"),
    ] {
        let refused = Preset::read(text, &env(given)).unwrap_err();
        assert!(refused.contains(part), "{text}: {refused}");
    }
}

#[test]
fn an_audience_is_the_systems_own_or_the_one_that_is_given() {
    let google = [("GOOGLE_WORKLOAD_IDENTITY_PROVIDER", PROVIDER)];
    assert_eq!(laid_out("gcp", &google).token.audience, format!("https://iam.googleapis.com/{PROVIDER}"));
    for (text, audience) in [("aws", "sts.amazonaws.com"), ("aws=a=b", "a=b"), ("vault", "vault.workload.identity")] {
        assert_eq!(laid_out(text, &[]).token.audience, audience);
    }
}

#[test]
fn a_command_gets_its_agents_identity_and_no_key_of_whoever_starts_it() {
    let aws = laid_out("aws", &[]);
    assert_eq!(set(&aws, "AWS_WEB_IDENTITY_TOKEN_FILE"), Some("/run/m/aws.jwt"));
    let session = set(&aws, "AWS_ROLE_SESSION_NAME").unwrap();
    assert!((2..=64).contains(&session.len()) && session.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)));
    assert!(aws.env.contains(&("AWS_ACCESS_KEY_ID", None)));
    assert!(Preset::read("aws", &env(&[])).unwrap().hint().is_some_and(|hint| hint.contains("AWS_ROLE_ARN")));
    assert_eq!(Preset::read("aws", &env(&[("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")])).unwrap().hint(), None);
}

#[test]
fn files_are_in_the_form_that_each_sdk_reads() {
    let url = format!("https://iam.googleapis.com/{PROVIDER}");
    let google = laid_out("gcp", &[("GOOGLE_WORKLOAD_IDENTITY_PROVIDER", &url), ("GOOGLE_SERVICE_ACCOUNT", "a@p.example")]);
    let [(name, config)] = google.files.as_slice() else { panic!("{google:?}") };
    let config: serde_json::Value = serde_json::from_slice(config).unwrap();
    assert_eq!((*name, set(&google, "GOOGLE_APPLICATION_CREDENTIALS")), ("gcp.json", Some("/run/m/gcp.json")));
    assert_eq!(config.pointer("/audience").unwrap(), &format!("//iam.googleapis.com/{PROVIDER}"));
    assert_eq!(config.pointer("/credential_source/file").unwrap(), "/run/m/gcp.jwt");
    let kubernetes = laid_out("kubernetes", &[("MAYFLY_KUBERNETES_CLUSTER", "c"), ("HOME", "/h")]);
    assert_eq!(set(&kubernetes, "KUBECONFIG"), Some("/run/m/kubeconfig:/h/.kube/config"));
    let snowflake = laid_out("snowflake", &[("SNOWFLAKE_ACCOUNT", "a\"\nb")]);
    let connections: toml::Table = set(&snowflake, "SNOWFLAKE_CONNECTIONS").unwrap().parse().unwrap();
    let mayfly = connections.get("mayfly").unwrap();
    assert_eq!(mayfly.get("account").unwrap().as_str(), Some("a\"\nb"));
    assert_eq!(mayfly.get("token_file_path").unwrap().as_str(), Some("/run/m/snowflake.jwt"));
}
