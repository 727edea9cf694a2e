//! `mayfly verify`: offline, against a bundle in a file; with `--live` also against what is revoked.

use std::path::Path;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Binding, BindingOid, Bundle, Principal, Reject, SpiffeId, TrustDomain, verify_jwt, verify_x509};
use serde_json::{Value, json};

use super::act::operator;
use super::{Common, Failure, USAGE, show};
use crate::clock::Clock;
use crate::folder;

/// How long a fresh heartbeat is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn verify(
    common: &Common,
    file: &Path,
    bundle: Option<&Path>,
    audience: Option<&str>,
    oid: &str,
    live: bool,
) -> Result<(), Failure> {
    let oid: BindingOid = oid.parse().map_err(|e: String| Failure::new(USAGE, e))?;
    let beside = file.parent().unwrap_or_else(|| Path::new(".")).join("bundle.json");
    let bundle = read_bundle(bundle.unwrap_or(&beside), file)?;
    let now = Clock::system().seconds();
    let text = std::fs::read_to_string(file).map_err(|e| format!("`{}`: {e}", file.display()))?;
    let feed = if live { Some(follow_live(common, bundle.trust_domain()).await?) } else { None };
    let live = feed.as_ref().map(Following::live);
    let (object, binding) = if text.contains("-----BEGIN") {
        let chain = folder::certificates(file)?;
        let svid = verify_x509(&chain, &bundle, &oid, now).map_err(|e| refused(&e))?;
        live.map_or(Ok(()), |live| live.check(since_epoch(), &svid)).map_err(|e| refused(&e))?;
        let object = json!({ "kind": "x509-svid", "spiffe_id": svid.id.to_string(), "expires_at": show::time(svid.not_after),
            "serial": hex::encode(&svid.serial), "binding": binding_json(&svid.id, &svid.principal, svid.binding.as_ref()) });
        (object, svid.binding)
    } else {
        let audience = audience.ok_or_else(|| Failure::new(USAGE, "a JWT-SVID is for somebody: say for whom with --audience"))?;
        let svid = verify_jwt(text.trim(), audience, &bundle, &oid, now).map_err(|e| refused(&e))?;
        live.map_or(Ok(()), |live| live.check(since_epoch(), &svid)).map_err(|e| refused(&e))?;
        let object = json!({ "kind": "jwt-svid", "spiffe_id": svid.id.to_string(), "expires_at": show::time(svid.expires_at),
            "audience": svid.audience, "jti": svid.jti,
            "binding": binding_json(&svid.id, &svid.principal, svid.binding.as_ref()) });
        (object, svid.binding)
    };
    show::either(common, &object, || {
        let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut text = format!("holds: {} until {}", field("spiffe_id"), field("expires_at"));
        if let Some(binding) = &binding {
            let user = binding.user.as_ref().map_or("nobody".into(), |u| format!("{} of {}", u.sub, u.iss));
            text += &format!("\nacts for {user}\nspawned by {}\nmay {}", binding.parent_id(), binding.scopes.join(" "));
        }
        text
    })
}

fn refused(e: &Reject) -> Failure {
    let code = match e {
        Reject::Cut => super::REVOKED,
        Reject::Stale(_) => super::STALE,
        _ => 4,
    };
    Failure::new(code, format!("the credential does not hold: {}: {e}", e.code()))
}

/// What is revoked now, as a strict verifier has it. Without a fresh word of the issuer nothing is known, and that is told.
async fn follow_live(common: &Common, td: &TrustDomain) -> Result<Following, Failure> {
    let channel = operator(common).await?;
    let mut bundles = BundlesClient::new(channel.clone());
    // An issuer that stands still accepts connections and says nothing.
    let got = tokio::time::timeout(PATIENCE, bundles.get_bundle(v1::GetBundleRequest {})).await;
    let silent = |_| Failure::new(super::STALE, "whether the credential is revoked is not known: the issuer does not answer");
    let got = got.map_err(silent)??.into_inner();
    let point = got.bundle.unwrap_or_default().feed_key;
    let key = FeedKey::from_point(&point).map_err(|e| Failure::new(1, e.to_string()))?;
    let feed = follow(channel, key, td.clone(), Freshness::default());
    let started = tokio::time::Instant::now();
    // The check itself tells what was not heard.
    while feed.live().fresh(since_epoch()).is_err() && started.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(feed)
}

fn since_epoch() -> Duration {
    Duration::from_micros(Clock::system().now())
}

fn binding_json(id: &SpiffeId, principal: &Principal, binding: Option<&Binding>) -> Value {
    let Some(b) = binding else { return Value::Null };
    let class = if let Principal::Agent(agent) = principal { Some(agent.class.to_string()) } else { None };
    json!({
        "agent_id": id.to_string(), "parent_id": b.parent_id(), "root_id": b.root_id(), "class": class,
        "delegation_id": b.delegation.map(|d| d.to_string()), "user": b.user, "depth": b.depth(), "mode": b.mode,
        "scopes": b.scopes, "lease_expires_at": show::time(b.lease_expires_at), "revision": b.revision,
        "incarnation": b.incarnation.to_string(), "chain": b.chain,
        "stamps": b.stamps.iter().map(|s| json!({ "subject": hex::encode(s.subject.0), "since": s.since })).collect::<Vec<_>>(),
    })
}

/// A SPIFFE bundle says not whose it is: the trust domain is that of its roots' SPIFFE IDs.
fn read_bundle(path: &Path, file: &Path) -> Result<Bundle, Failure> {
    let text = std::fs::read(path).map_err(|e| {
        Failure::new(1, format!("`{}`: {e}; give the bundle of `{}` with --bundle", path.display(), file.display()))
    })?;
    let bad = |e: &dyn std::fmt::Display| Failure::new(1, format!("`{}`: {e}", path.display()));
    let any = TrustDomain::new("unknown").map_err(|e| bad(&e))?;
    let roots = Bundle::from_json(any, &text).map_err(|e| bad(&e))?;
    let td = roots.x509_authorities().iter().find_map(|der| trust_domain_of(der));
    let td = td.ok_or_else(|| bad(&"no root in it carries a SPIFFE ID, so its trust domain is unknown"))?;
    Bundle::from_json(td, &text).map_err(|e| bad(&e))
}

fn trust_domain_of(der: &[u8]) -> Option<TrustDomain> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let san = cert.subject_alternative_name().ok()??;
    let uri = san.value.general_names.iter().find_map(|n| if let GeneralName::URI(uri) = n { Some(*uri) } else { None })?;
    TrustDomain::new(uri.strip_prefix("spiffe://")?).ok()
}
