//! `--for SYSTEM`: the files and environment variables with which the SDKs of one system find a token.
//!
//! Variables that would take precedence over the token are removed from the command's environment, so that it uses the identity of
//! its agent and no key of its starter.

use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::tokens::Wanted;

/// A system whose SDKs read a token from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Microsoft Entra and Azure.
    Azure,
    /// The Anthropic API.
    Anthropic,
    /// The OpenAI API.
    OpenAi,
    /// Kubernetes.
    Kubernetes,
    /// Vault and OpenBao.
    Vault,
    /// Snowflake.
    Snowflake,
}

/// Every system with its name and its default audience. Google's follows from the provider.
const SYSTEMS: &[(&str, System, Option<&str>)] = &[
    ("aws", System::Aws, Some("sts.amazonaws.com")),
    ("gcp", System::Gcp, None),
    ("azure", System::Azure, Some("api://AzureADTokenExchange")),
    ("anthropic", System::Anthropic, Some("https://api.anthropic.com")),
    ("openai", System::OpenAi, Some("https://api.openai.com/v1")),
    ("kubernetes", System::Kubernetes, Some("https://kubernetes.default.svc")),
    ("vault", System::Vault, Some("vault.workload.identity")),
    ("snowflake", System::Snowflake, Some("snowflakecomputing.com")),
];

/// Google's prefix of the name of a workload identity provider.
const GOOGLE: &str = "//iam.googleapis.com/";

/// A preset for one command, with everything that its system needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    name: &'static str,
    system: System,
    audience: String,
    given: Given,
}

/// The settings that were found in the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Given {
    /// The system that the agent is to reach. Google: the provider. Kubernetes: the cluster. Snowflake: the account.
    target: String,
    /// Another setting of that system. Google: the service account. Kubernetes: the files of the caller. Snowflake: the user.
    further: Option<String>,
    /// A hint for the operator.
    hint: Option<&'static str>,
}

/// The files and variables that a preset adds to a command.
#[derive(Debug, PartialEq, Eq)]
pub struct LaidOut {
    /// The token file.
    pub token: Wanted,
    /// Other files, by name, in the same folder.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Variables to set; `None` removes one.
    pub env: Vec<(&'static str, Option<String>)>,
}

impl Preset {
    /// Reads `SYSTEM` or `SYSTEM=AUDIENCE`, and the system's settings from the environment. The error says what to set.
    pub fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Preset, String> {
        let (name, audience) = text.split_once('=').map_or((text, None), |(name, audience)| (name, Some(audience)));
        let found = SYSTEMS.iter().find(|(known, ..)| *known == name);
        let (name, system, usual) = found.copied().ok_or_else(|| {
            let all: Vec<&str> = SYSTEMS.iter().map(|(known, ..)| *known).collect();
            format!("`{name}` is not one of {}", all.join(", "))
        })?;
        if audience.is_some_and(|audience| audience.is_empty() || audience.len() > 256) {
            return Err("an audience has 1 to 256 bytes".into());
        }
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let given = system.given(&env)?;
        let usual = usual.map_or_else(|| format!("https:{GOOGLE}{}", given.target), str::to_owned);
        Ok(Preset { name, system, audience: audience.map_or(usual, str::to_owned), given })
    }

    /// Name of its system.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A hint for the person who starts the command.
    pub fn hint(&self) -> Option<&'static str> {
        self.given.hint
    }

    /// The files, in the folder `dir`, and variables for an agent.
    pub fn lay_out(&self, dir: &Path, agent: Option<Uuid>) -> LaidOut {
        let file = dir.join(format!("{}.jwt", self.name));
        let at = file.display().to_string();
        let (mut env, mut files) = (Vec::new(), Vec::new());
        let mut set = |name, value: String| env.push((name, Some(value)));
        let Given { target, further, .. } = &self.given;
        match self.system {
            System::Aws => {
                set("AWS_WEB_IDENTITY_TOKEN_FILE", at);
                // 36 of at most 64 characters, all of them of `[\w+=,.@-]`.
                agent.into_iter().for_each(|uuid| set("AWS_ROLE_SESSION_NAME", uuid.to_string()));
            }
            System::Gcp => {
                let mut config = json!({
                    "type": "external_account",
                    "universe_domain": "googleapis.com",
                    "audience": format!("{GOOGLE}{target}"),
                    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                    "token_url": "https://sts.googleapis.com/v1/token",
                    "credential_source": { "file": at, "format": { "type": "text" } },
                });
                if let (Some(config), Some(account)) = (config.as_object_mut(), further) {
                    let accounts = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts";
                    let url = format!("{accounts}/{account}:generateAccessToken");
                    config.insert("service_account_impersonation_url".to_owned(), url.into());
                }
                files.push(("gcp.json", config.to_string().into_bytes()));
                set("GOOGLE_APPLICATION_CREDENTIALS", dir.join("gcp.json").display().to_string());
            }
            System::Azure => set("AZURE_FEDERATED_TOKEN_FILE", at),
            System::Anthropic => set("ANTHROPIC_IDENTITY_TOKEN_FILE", at),
            System::OpenAi => set("OPENAI_IDENTITY_TOKEN_FILE", at),
            System::Kubernetes => {
                // JSON is YAML too. kubectl merges several files: users and contexts come from this one, clusters from the others.
                let config = json!({
                    "apiVersion": "v1",
                    "kind": "Config",
                    "users": [{ "name": "mayfly", "user": { "tokenFile": at } }],
                    "contexts": [{ "name": "mayfly", "context": { "cluster": target, "user": "mayfly" } }],
                    "current-context": "mayfly",
                });
                files.push(("kubeconfig", config.to_string().into_bytes()));
                let own = dir.join("kubeconfig").display().to_string();
                set("KUBECONFIG", further.as_ref().map_or_else(|| own.clone(), |others| format!("{own}:{others}")));
            }
            System::Vault => set("VAULT_JWT_FILE", at),
            System::Snowflake => {
                let text = |value: &str| serde_json::Value::from(value).to_string();
                let user = further.as_ref().map(|user| format!("user = {}\n", text(user))).unwrap_or_default();
                let connection = format!(
                    "[mayfly]\naccount = {}\n{user}authenticator = \"WORKLOAD_IDENTITY\"\nworkload_identity_provider = \"OIDC\"\n\
                     token_file_path = {}\n",
                    text(target),
                    text(&at)
                );
                set("SNOWFLAKE_CONNECTIONS", connection);
                set("SNOWFLAKE_DEFAULT_CONNECTION_NAME", "mayfly".to_owned());
            }
        }
        env.extend(self.system.overriding().iter().map(|name| (*name, None)));
        LaidOut { token: Wanted { audience: self.audience.clone(), file }, files, env }
    }
}

impl System {
    /// Reads the settings of the system from the environment. The error says what to set.
    fn given(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Given, String> {
        let needed = |name: &str, what: &str| env(name).ok_or_else(|| format!("set {name} to {what}"));
        let of = |target: String, further: Option<String>| Given { target, further, hint: None };
        Ok(match self {
            System::Aws => {
                let hint = "AWS_ROLE_ARN is not set: SDKs take the role from `role_arn` of the profile, and fail without it";
                Given { hint: env("AWS_ROLE_ARN").is_none().then_some(hint), ..Given::default() }
            }
            System::Gcp => {
                let what = "projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER";
                let provider = needed("GOOGLE_WORKLOAD_IDENTITY_PROVIDER", what)?;
                let provider = provider.trim_start_matches("https:").trim_start_matches(GOOGLE).to_owned();
                if !provider.starts_with("projects/") || provider.chars().any(char::is_whitespace) {
                    return Err(format!("set GOOGLE_WORKLOAD_IDENTITY_PROVIDER to {what}, and not to `{provider}`"));
                }
                of(provider, env("GOOGLE_SERVICE_ACCOUNT"))
            }
            System::Azure => {
                needed("AZURE_CLIENT_ID", "the client id of the application that trusts this issuer")?;
                needed("AZURE_TENANT_ID", "the id of its tenant")?;
                Given::default()
            }
            System::Anthropic => {
                needed("ANTHROPIC_FEDERATION_RULE_ID", "the id of the federation rule")?;
                needed("ANTHROPIC_ORGANIZATION_ID", "the id of the organization")?;
                Given::default()
            }
            System::OpenAi | System::Vault => Given::default(),
            System::Kubernetes => {
                let cluster = needed("MAYFLY_KUBERNETES_CLUSTER", "the name of the cluster in your kubeconfig")?;
                let home = || env("HOME").map(|home| format!("{home}/.kube/config"));
                of(cluster, env("KUBECONFIG").or_else(home))
            }
            System::Snowflake => of(needed("SNOWFLAKE_ACCOUNT", "the name of the account")?, env("SNOWFLAKE_USER")),
        })
    }

    /// Variables that the SDKs would use before the token.
    fn overriding(self) -> &'static [&'static str] {
        match self {
            System::Aws => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
            System::Gcp => &["GOOGLE_API_KEY"],
            System::Azure => &["AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME", "AZURE_PASSWORD"],
            System::Anthropic => &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_IDENTITY_TOKEN", "ANTHROPIC_PROFILE"],
            System::OpenAi => &["OPENAI_API_KEY", "OPENAI_ADMIN_KEY"],
            System::Vault => &["VAULT_TOKEN", "BAO_TOKEN"],
            System::Snowflake => &["SNOWFLAKE_PASSWORD", "SNOWFLAKE_TOKEN"],
            System::Kubernetes => &[],
        }
    }
}

#[cfg(test)]
mod tests;
