//! `mayfly verify`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::revocation::{Following, Freshness, follow_as};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Binding, BindingOid, Bundle, Live, Principal, SpiffeId, TrustDomain, verify_jwt, verify_x509};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connect::{self, Acting};
use super::exit::{FAILURE, Failure, INVALID, REVOKED, STALE, USAGE};
use super::global::Global;
use super::output::user::Names;
use super::{found, output, spiffe_id};
use crate::clock::Clock;
use crate::folder;

/// Verify an X.509-SVID or JWT-SVID offline; exits 0 only if it is valid now
///
/// With --live the credential is also checked against the feed of revocations, as a strict verifier does: the exit code is 6 if it
/// is revoked, and 7 if the issuer has sent no fresh heartbeat (operator).
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// svid.pem, a folder with one, or a file with a JWT-SVID
    #[arg(required_unless_present = "agent")]
    file: Option<PathBuf>,
    /// Instead of a file: ask the issuer whether this agent may act, by SPIFFE ID, UUID or the beginning of its UUID
    #[arg(long, value_name = "ID", conflicts_with_all = ["file", "bundle", "audience", "live"])]
    agent: Option<String>,
    /// bundle.json; by default the one beside the file
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The audience that a JWT-SVID must be for
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// OID of the binding, if the issuer is configured with another
    #[arg(long, default_value = "1.3.6.1.4.1.32473.1")]
    binding_oid: String,
    /// Also check revocation, at the issuer in --home or with --as DIR at that of the identity
    #[arg(long)]
    live: bool,
}

/// How long to wait for a fresh heartbeat.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let oid: BindingOid = args.binding_oid.parse().map_err(|e: String| Failure::new(USAGE, e))?;
    let file = match (args.file, &args.agent) {
        (Some(file), _) if file.is_dir() => file.join("svid.pem"),
        (Some(file), _) => file,
        (None, Some(agent)) => return ask(agent, &args.acting, global).await,
        (None, None) => return Err(Failure::usage("say what to verify: a file, or --agent ID")),
    };
    let text = std::fs::read_to_string(&file).map_err(|e| format!("`{}`: {e}", file.display()))?;
    let bundle = read_bundle(args.bundle.as_deref(), &file)?;
    let now = Clock::system().seconds();
    let following = if args.live { Some(follow_feed(global, &args.acting, bundle.trust_domain()).await?) } else { None };
    let live = following.as_ref().map(Following::live);
    let (object, binding) = if text.contains("-----BEGIN") {
        check_x509(&folder::certificates(&file)?, &bundle, &oid, now, live)?
    } else {
        let Some(audience) = &args.audience else {
            return Err(Failure::usage("a JWT-SVID is for one audience: say which with --audience"));
        };
        check_jwt(text.trim(), audience, &bundle, &oid, now, live)?
    };
    output::print(global.output, &object, || lines(&object, binding.as_ref(), &Names::known(global)))
}

/// Asks the issuer whether an agent may act, for a caller who has its name but not its certificate.
async fn ask(agent: &str, acting: &Acting, global: &Global) -> Result<(), Failure> {
    let mut client = InspectionClient::new(connect::as_identity_or_operator(global, acting).await?);
    let agent = found::agent(&mut client, agent, "").await?;
    let object = output::agent::object(&agent);
    output::print(global.output, &object, || output::fields(&object))?;
    let said = output::agent::over(&agent);
    match agent.state() {
        v1::AgentState::Live => Ok(()),
        v1::AgentState::Expired => Err(Failure::new(INVALID, format!("the agent has expired{said}"))),
        _ => Err(Failure::new(REVOKED, format!("the agent may not act any more{said}"))),
    }
}

/// Verifies the credential, and returns its contents for printing.
fn check_x509(
    chain: &[CertificateDer<'_>],
    bundle: &Bundle,
    oid: &BindingOid,
    now: u64,
    live: Option<&Live>,
) -> Result<(Value, Option<Binding>), Failure> {
    let svid = verify_x509(chain, bundle, oid, now)?;
    if let Some(live) = live {
        live.check(since_epoch(), &svid)?;
    }
    let object = json!({
        "kind": "x509-svid",
        "spiffe_id": svid.id.to_string(),
        "expires_at": output::time(svid.not_after),
        "serial": hex::encode(&svid.serial),
        "binding": binding_object(&svid.id, &svid.principal, svid.binding.as_ref()),
    });
    Ok((object, svid.binding))
}

/// Verifies the credential, and returns its contents for printing.
fn check_jwt(
    token: &str,
    audience: &str,
    bundle: &Bundle,
    oid: &BindingOid,
    now: u64,
    live: Option<&Live>,
) -> Result<(Value, Option<Binding>), Failure> {
    let svid = verify_jwt(token, audience, bundle, oid, now)?;
    if let Some(live) = live {
        live.check(since_epoch(), &svid)?;
    }
    let object = json!({
        "kind": "jwt-svid",
        "spiffe_id": svid.id.to_string(),
        "expires_at": output::time(svid.expires_at),
        "audience": svid.audience,
        "jti": svid.jti,
        "single_use": svid.single_use,
        "binding": binding_object(&svid.id, &svid.principal, svid.binding.as_ref()),
    });
    Ok((object, svid.binding))
}

/// Follows the feed of revocations as a strict verifier does. If no fresh heartbeat arrives, the check fails.
async fn follow_feed(global: &Global, acting: &Acting, trust_domain: &TrustDomain) -> Result<Following, Failure> {
    let channel = connect::as_identity_or_operator(global, acting).await?;
    // The kernel accepts connections for a process that is suspended, but nothing answers.
    let Ok(bundle) = tokio::time::timeout(PATIENCE, connect::fetch_bundle(channel.clone())).await else {
        let message = "it is not known whether the credential is revoked: the issuer does not answer";
        return Err(Failure::new(STALE, message));
    };
    let key = FeedKey::from_point(&bundle?.feed_key).map_err(|e| e.to_string())?;
    let following = follow_as(channel, key, trust_domain.clone(), Freshness::default());
    let started = Instant::now();
    // The check of the credential says what was not received in time.
    while following.live().fresh(since_epoch()).is_err() && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(following)
}

fn since_epoch() -> Duration {
    Duration::from_micros(Clock::system().now())
}

fn lines(object: &Value, binding: Option<&Binding>, names: &Names) -> Vec<String> {
    let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut lines = vec![format!("valid: {} until {}", field("spiffe_id"), field("expires_at"))];
    if let Some(binding) = binding {
        let user = binding.user.as_ref().map_or("nobody".into(), |user| names.of(&user.iss, &user.sub));
        lines.push(format!("acts for {user}"));
        lines.push(format!("spawned by {}", binding.parent_id()));
        lines.push(format!("may {}", binding.scopes.join(" ")));
    }
    lines
}

fn binding_object(id: &SpiffeId, principal: &Principal, binding: Option<&Binding>) -> Value {
    let Some(binding) = binding else { return Value::Null };
    let class = match principal {
        Principal::Agent(agent) => Some(agent.class.to_string()),
        _ => None,
    };
    let stamps = binding.stamps.iter().map(|s| json!({ "subject": hex::encode(s.subject.0), "since": s.since }));
    json!({
        "agent_id": id.to_string(),
        "parent_id": binding.parent_id(),
        "root_id": binding.root_id(),
        "class": class,
        "delegation_id": binding.delegation.map(|d| d.to_string()),
        "user": binding.user,
        "depth": binding.depth(),
        "mode": binding.mode,
        "scopes": binding.scopes,
        "lease_expires_at": output::time(binding.lease_expires_at),
        "revision": binding.revision,
        "incarnation": binding.incarnation.to_string(),
        "chain": binding.chain,
        "stamps": stamps.collect::<Vec<_>>(),
    })
}

/// Reads a bundle (JSON), by default the one beside the credential. A SPIFFE bundle does not name its trust domain, so it is
/// taken from the SPIFFE IDs of its roots.
fn read_bundle(path: Option<&Path>, credential: &Path) -> Result<Bundle, Failure> {
    let beside = credential.parent().unwrap_or_else(|| Path::new(".")).join("bundle.json");
    let path = path.unwrap_or(&beside);
    let json = std::fs::read(path)
        .map_err(|e| format!("`{}`: {e}; give the bundle of `{}` with --bundle", path.display(), credential.display()))?;
    let failure = |e: &dyn std::fmt::Display| Failure::new(FAILURE, format!("`{}`: {e}", path.display()));
    let placeholder = TrustDomain::new("unknown").map_err(|e| failure(&e))?;
    let roots = Bundle::from_json(placeholder, &json).map_err(|e| failure(&e))?;
    let Some(trust_domain) = roots.x509_authorities().iter().find_map(|der| trust_domain_of(der)) else {
        return Err(failure(&"no root in it carries a SPIFFE ID, so its trust domain is unknown"));
    };
    Bundle::from_json(trust_domain, &json).map_err(|e| failure(&e))
}

/// `None` also for a SPIFFE ID with a path: that of an authority has none.
fn trust_domain_of(root: &[u8]) -> Option<TrustDomain> {
    TrustDomain::new(&spiffe_id::of_certificate(root)?).ok()
}
