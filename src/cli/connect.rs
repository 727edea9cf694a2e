//! Connections to an issuer: as an operator over its socket, with an identity over mTLS, with a person's token, or with none of these.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
pub(super) use mayfly_agent::channel::Authorized as Channel;
use mayfly_agent::channel::{
    ChannelSettings, Identity, Trust, connect, connect_unix, with_user_token, without_user_token as plain,
};
use mayfly_agent::validity::{self, OutOfTime, Validity};
use mayfly_verify::TrustDomain;

use super::exit::{FAILURE, Failure, INVALID};
use super::global::Global;
use super::{place, spiffe_id};
use crate::authority::pem as pem_block;
use crate::folder;

/// How long to wait for a program that renews the identity.
const PATIENCE: Duration = Duration::from_secs(15);
/// For connection and handshake.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
pub(super) struct Acting {
    /// Act with the identity in this folder, or as a workload of `mayfly dev` by its name
    #[arg(long = "as", global = true, value_name = "DIR")]
    pub(super) identity: Option<PathBuf>,
    /// host:port of the issuer; by default that of the context, or that of the issuer in --home [env: MAYFLY_SERVER]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(super) server: Option<String>,
}

impl Acting {
    /// The folder of `--as`. Without one, fails with the usage error `usage`.
    pub(super) fn required(&self, usage: &str) -> Result<&Path, Failure> {
        self.identity.as_deref().ok_or_else(|| Failure::usage(usage))
    }
}

/// Connects to the operator socket of the home.
pub(super) async fn as_operator(global: &Global) -> Result<Channel, Failure> {
    Ok(plain(connect_unix(&place::endpoint(global)?.socket).await?))
}

/// Connects with the identity of a folder.
pub(super) async fn as_identity(global: &Global, server: Option<&str>, dir: &Path) -> Result<Channel, Failure> {
    // ORDER: the lock is held until the issuer has seen the certificate. A keeper that renews meanwhile would make it an outdated
    // one.
    let _reading = folder::reading(dir, PATIENCE);
    Ok(plain(connect(settings(global, server, dir)?).await?))
}

/// Connects with the identity of `--as`. Without `--as`, connects with the identity of the context, or as the person who has signed
/// in there; without a context, as an operator.
pub(super) async fn as_identity_or_operator(global: &Global, acting: &Acting) -> Result<Channel, Failure> {
    let server = acting.server.as_deref();
    if let Some(dir) = &acting.identity {
        return as_identity(global, server, dir).await;
    }
    let Some(context) = place::of(global)? else { return as_operator(global).await };
    if let Some(dir) = &context.settings.identity {
        return as_identity(global, server, dir).await;
    }
    let Some(token) = place::token(global).await? else {
        let nobody = format!("the context `{}` says neither as whom to ask nor where you sign in: give --as DIR", context.name);
        return Err(Failure::usage(nobody));
    };
    // T244: the token goes to the issuer that these roots vouch for, whatever its address is.
    Ok(with_user_token(stranger(global, server, None).await?, &token)?)
}

/// Connects without an identity. The issuer is verified by the bundle in a file; without a file, by that of the context, or by the
/// one from the operator socket of the home.
pub(super) async fn as_stranger(global: &Global, server: Option<&str>, bundle: Option<&Path>) -> Result<Channel, Failure> {
    Ok(plain(stranger(global, server, bundle).await?))
}

async fn stranger(global: &Global, server: Option<&str>, bundle: Option<&Path>) -> Result<tonic::transport::Channel, Failure> {
    let address = address(global, server)?;
    let context = if bundle.is_none() { place::of(global)? } else { None };
    let roots = match bundle.map(Path::to_owned).or_else(|| context.map(|context| context.bundle())) {
        Some(file) => folder::certificates(&file)?,
        None => {
            let authorities = fetch_bundle(as_operator(global).await?).await?.x509_authorities;
            authorities.into_iter().map(Into::into).collect()
        }
    };
    let trust_domain = match roots.first().and_then(|root| trust_domain_of(root)) {
        Some(trust_domain) => trust_domain,
        None => TrustDomain::new(&place::endpoint(global)?.trust_domain).map_err(|e| e.to_string())?,
    };
    let trust = Trust::Roots(roots);
    Ok(connect(ChannelSettings { address, trust_domain, trust, identity: None, connect_timeout: TIMEOUT }).await?)
}

/// Channel settings with the identity and the trust bundle in the folder `dir`.
pub(super) fn settings(global: &Global, server: Option<&str>, dir: &Path) -> Result<ChannelSettings, Failure> {
    let named = global.home.join("workloads").join(dir);
    let in_home = !dir.exists() && named.is_dir();
    if in_home {
        place::believe(global)?;
    }
    let dir = if in_home { named.as_path() } else { dir };
    let identity = folder::identity(dir)?;
    in_time(dir, &identity)?;
    let trust = Trust::Roots(folder::roots(dir)?);
    let Some(trust_domain) = identity.chain.first().and_then(|leaf| trust_domain_of(leaf)) else {
        let file = dir.join("svid.pem");
        return Err(Failure::new(FAILURE, format!("`{}` holds no SPIFFE identity", file.display())));
    };
    let address = address_of(global, server, dir, &trust_domain)?;
    Ok(ChannelSettings { address, trust_domain, trust, identity: Some(identity), connect_timeout: TIMEOUT })
}

/// `host:port`: that of `--server`, of the environment or of a context that the command names; then that of the issuer of the home,
/// if its trust domain is the identity's; then that in the folder, and last that of the chosen context.
fn address_of(global: &Global, server: Option<&str>, dir: &Path, trust_domain: &TrustDomain) -> Result<String, Failure> {
    if let Some(address) = place::server(global, server)? {
        return Ok(address);
    }
    let local = place::endpoint(global);
    if let Ok(at) = &local
        && at.trust_domain == trust_domain.as_str()
    {
        return Ok(at.grpc.clone());
    }
    match (folder::issuer(dir), local) {
        (Some(address), _) => Ok(address),
        (None, Ok(at)) => Ok(at.grpc),
        (None, Err(e)) => place::of(global)?.map(|context| context.settings.server).ok_or(e),
    }
}

/// Fails if the certificate cannot be used now, before any connection is made, and says what to do.
fn in_time(dir: &Path, identity: &Identity) -> Result<(), Failure> {
    let Some(leaf) = identity.chain.first() else { return Ok(()) };
    let Some(Err(e)) = Validity::of(leaf).map(|validity| validity.check(validity::now())) else { return Ok(()) };
    let id = spiffe_id::of_certificate(leaf).unwrap_or_default();
    let help = match (e, id.split_once("/workload/")) {
        (OutOfTime::ClockBehind { .. }, _) => String::new(),
        (_, Some((_, name))) => format!(": join again with a token of `mayfly join {name}`, and let `mayfly keep` renew it"),
        _ => ": spawn another agent, and let `mayfly keep` renew it".to_owned(),
    };
    Err(Failure::new(INVALID, format!("the certificate in `{}` {e}{help}", dir.display())))
}

/// The trust bundle of the issuer at the other end of a channel.
pub(super) async fn fetch_bundle(channel: Channel) -> Result<v1::Bundle, Failure> {
    let got = BundlesClient::new(channel).get_bundle(v1::GetBundleRequest {}).await?.into_inner();
    got.bundle.ok_or_else(Failure::incomplete_answer)
}

/// `host:port` of `--server`, the environment or the context; without these, of the issuer of the home.
pub(super) fn address(global: &Global, server: Option<&str>) -> Result<String, Failure> {
    if let Some(address) = place::server(global, server)? {
        return Ok(address);
    }
    match place::of(global)? {
        Some(context) => Ok(context.settings.server),
        None => Ok(place::endpoint(global)?.grpc),
    }
}

/// The roots of a bundle as PEM.
pub(super) fn pem(bundle: &v1::Bundle) -> String {
    bundle.x509_authorities.iter().map(|der| pem_block("CERTIFICATE", der)).collect()
}

fn trust_domain_of(certificate: &[u8]) -> Option<TrustDomain> {
    let id = spiffe_id::of_certificate(certificate)?;
    TrustDomain::new(id.split('/').next()?).ok()
}
