//! Commands that ask a running issuer: as an operator over its socket, or with an identity over mTLS.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::{ChannelSettings, ConnectError, Trust, connect, connect_unix};
use mayfly_agent::ticket::Ticket;
use mayfly_verify::TrustDomain;
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Acting, BundleFormat, Common, Failure, Output, SpawnArgs, USAGE, show};
use crate::authority::keystore::write_private;
use crate::dev::provider;
use crate::folder::{self, Key};
use crate::home;

/// For connection and handshake.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

impl From<ConnectError> for Failure {
    fn from(e: ConnectError) -> Failure {
        let ours = matches!(e, ConnectError::Address(_) | ConnectError::Identity(_) | ConnectError::Roots(_));
        let code = if ours { 1 } else { 5 };
        Failure::new(code, e.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let code = match status.code() {
            Code::Unavailable => 5,
            Code::InvalidArgument | Code::Internal | Code::Unknown => 1,
            _ => 3,
        };
        let kind = if code == 3 { "denied" } else { "failed" };
        let reason = if reason.is_empty() { format!("{:?}", status.code()) } else { reason };
        Failure::new(code, format!("{kind}: {reason}: {}", status.message()))
    }
}

pub(super) async fn join(common: &Common, workload: String, ttl: u64) -> Result<(), Failure> {
    let request = v1::CreateJoinTokenRequest { workload, ttl_seconds: ttl };
    let made = OperationsClient::new(operator(common).await?).create_join_token(request).await?.into_inner();
    let expires_at = show::stamp(made.expires_at.as_ref());
    let object =
        json!({ "token": made.token, "workload_id": made.workload_id, "expires_at": expires_at, "revision": made.revision });
    show::either(common, &object, || made.token.clone())
}

pub(super) async fn redeem(common: &Common, ticket_file: &Path, out: &Path) -> Result<(), Failure> {
    let text = read_text(ticket_file)?;
    let ticket = Ticket::parse(text.trim()).map_err(|e| e.to_string())?;
    let channel = connect(ticket.channel_settings(TIMEOUT)).await?;
    let key = Key::new()?;
    let request = v1::RedeemRequest { secret: ticket.secret().expose().to_vec(), csr: key.csr.clone() };
    let got = IdentitiesClient::new(channel).redeem(request).await?.into_inner();
    certified(common, out, &key, got.svid, got.bundle, got.agent.as_ref(), got.revision)
}

pub(super) async fn renew(common: &Common, acting: &Acting) -> Result<(), Failure> {
    let dir = acting.identity.clone().ok_or_else(|| Failure::new(USAGE, "say whose identity to renew with --as DIR"))?;
    let key = Key::new()?;
    let channel = as_identity(common, acting, &dir).await?;
    let got = IdentitiesClient::new(channel).renew(v1::RenewRequest { csr: key.csr.clone() }).await?.into_inner();
    certified(common, &dir, &key, got.svid, got.bundle, got.agent.as_ref(), got.revision)
}

fn certified(
    common: &Common,
    out: &Path,
    key: &Key,
    svid: Option<v1::X509Svid>,
    bundle: Option<v1::Bundle>,
    agent: Option<&v1::Agent>,
    revision: u64,
) -> Result<(), Failure> {
    let (Some(svid), Some(bundle)) = (svid, bundle) else { return Err(incomplete()) };
    folder::write(out, key, &svid, &bundle)?;
    let expires_at = show::stamp(svid.expires_at.as_ref());
    let mut object = agent.map_or_else(|| json!({}), show::agent);
    if let Some(map) = object.as_object_mut() {
        map.insert("spiffe_id".into(), svid.spiffe_id.clone().into());
        map.insert("svid_expires_at".into(), expires_at.clone().into());
        map.insert("revision".into(), revision.into());
    }
    show::either(common, &object, || format!("{} until {expires_at}, in {}", svid.spiffe_id, out.display()))
}

pub(super) async fn spawn(common: &Common, args: SpawnArgs) -> Result<(), Failure> {
    let user_token = args.user_token.as_deref().map(read_text).transpose()?.unwrap_or_default();
    let default = common.home.join("workloads").join("orchestrator");
    let dir = args.acting.identity.clone().unwrap_or(default);
    let mut request = v1::SpawnRequest {
        request_id: args.request_id,
        class: args.class,
        csr: Vec::new(),
        user_token: user_token.trim().to_owned(),
        mode: if args.autonomous { v1::Mode::Autonomous } else { v1::Mode::Unspecified }.into(),
        scopes: args.scopes.scopes,
        audiences: vec![],
        lease_seconds: args.scopes.lease,
        max_depth: args.scopes.max_depth,
        excess: if args.scopes.clip { v1::Excess::Clip } else { v1::Excess::Deny }.into(),
        jwt_audience: args.audience.unwrap_or_default(),
        ticket: args.ticket,
        delegation: args.delegation.unwrap_or_default(),
    };
    let channel = as_identity(common, &args.acting, &dir).await?;
    if let Some(count) = args.count {
        return spawn_many(common, channel, request, count, &args.out).await;
    }
    let key = if args.ticket { None } else { Some(Key::new()?) };
    request.csr = key.as_ref().map(|k| k.csr.clone()).unwrap_or_default();
    let got = IdentitiesClient::new(channel).spawn(request).await?.into_inner();
    let bundle = got.bundle.clone();
    let (agent, object) = spawned(&args.out, key.as_ref(), &got, bundle.as_ref())?;
    show::either(common, &object, || {
        let clipped = if got.clipped.is_empty() { String::new() } else { format!("\nclipped: {}", got.clipped.join(" ")) };
        format!(
            "{}\nacts for {} until {}\nmay {}{clipped}\nin {}",
            agent.agent_id,
            show::user(&agent),
            show::stamp(agent.lease_expires_at.as_ref()),
            agent.scopes.join(" "),
            args.out.display()
        )
    })
}

/// Writes what a spawn gave, and says what it is.
fn spawned(
    out: &Path,
    key: Option<&Key>,
    got: &v1::SpawnResponse,
    bundle: Option<&v1::Bundle>,
) -> Result<(v1::Agent, serde_json::Value), Failure> {
    let agent = got.agent.clone().ok_or_else(incomplete)?;
    match (key, &got.svid, bundle) {
        (Some(key), Some(svid), Some(bundle)) => folder::write(out, key, svid, bundle)?,
        (None, None, _) if !got.ticket.is_empty() => {
            std::fs::create_dir_all(out).map_err(|e| format!("`{}`: {e}", out.display()))?;
            write_private(&out.join("ticket"), got.ticket.as_bytes()).map_err(|e| e.to_string())?;
        }
        _ => return Err(incomplete()),
    }
    if let Some(jwt) = &got.jwt {
        write_private(&out.join("svid.jwt"), jwt.token.as_bytes()).map_err(|e| e.to_string())?;
    }
    let mut object = show::agent(&agent);
    if let Some(map) = object.as_object_mut() {
        if !got.clipped.is_empty() {
            map.insert("clipped".into(), json!(got.clipped));
        }
        map.insert("dir".into(), out.display().to_string().into());
    }
    Ok((agent, object))
}

/// One batch: a line for each as it comes. What was denied makes the whole a denial, when all have been told.
async fn spawn_many(
    common: &Common,
    channel: Channel,
    template: v1::SpawnRequest,
    count: u32,
    out: &Path,
) -> Result<(), Failure> {
    let keys = if template.ticket { Vec::new() } else { (0..count).map(|_| Key::new()).collect::<Result<Vec<_>, _>>()? };
    let request = v1::SpawnBatchRequest {
        count: if template.ticket { count } else { 0 },
        csrs: keys.iter().map(|k| k.csr.clone()).collect(),
        template: Some(template),
    };
    let mut answers = BatchesClient::new(channel).spawn(request).await?.into_inner();
    let (mut bundle, mut denied, mut told) = (None, 0u32, 0u32);
    while let Some(answer) = answers.message().await? {
        let index = usize::try_from(answer.index).unwrap_or(usize::MAX);
        let dir = out.join(format!("{:04}", index.saturating_add(1)));
        told += 1;
        let line = match answer.result {
            Some(v1::spawn_batch_response::Result::Spawned(got)) => {
                bundle = bundle.or_else(|| got.bundle.clone());
                let (agent, object) = spawned(&dir, keys.get(index), &got, bundle.as_ref())?;
                if common.output == Output::Json {
                    object.to_string()
                } else {
                    format!("{} in {}", agent.agent_id, dir.display())
                }
            }
            Some(v1::spawn_batch_response::Result::Denied(status)) => {
                denied += 1;
                let failure = Failure::from(from_proto(&status));
                let object = json!({ "dir": dir.display().to_string(), "error": failure.message });
                if common.output == Output::Json { object.to_string() } else { format!("{}: {}", dir.display(), failure.message) }
            }
            None => return Err(incomplete()),
        };
        show::line(&line)?;
    }
    match denied {
        0 if told == count => Ok(()),
        0 => Err(Failure::new(1, format!("{told} of {count} were answered: ask `mayfly agents list` for the rest"))),
        denied => Err(Failure::new(3, format!("{denied} of {count} were denied"))),
    }
}

/// The status of one of many, as a call of its own would have ended.
fn from_proto(status: &tonic_types::Status) -> Status {
    let code = Code::from(status.code);
    let message = status.message.clone();
    Status::with_details(code, message, prost::Message::encode_to_vec(status).into())
}

pub(super) async fn mint(
    common: &Common,
    acting: &Acting,
    audience: String,
    out: Option<&Path>,
    request_id: String,
) -> Result<(), Failure> {
    let dir = acting.identity.clone().ok_or_else(|| Failure::new(USAGE, "say which agent mints with --as DIR"))?;
    let channel = as_identity(common, acting, &dir).await?;
    let got = IdentitiesClient::new(channel)
        .mint_jwt(v1::MintJwtRequest { request_id, audience, ..Default::default() })
        .await?
        .into_inner();
    let jwt = got.svid.ok_or_else(incomplete)?;
    let expires_at = show::stamp(jwt.expires_at.as_ref());
    let mut object = json!({ "spiffe_id": jwt.spiffe_id, "expires_at": expires_at, "revision": got.revision });
    if let Some(out) = out {
        write_private(out, jwt.token.as_bytes()).map_err(|e| e.to_string())?;
        return show::either(common, &object, || {
            format!("a token of {} until {expires_at}, in {}", jwt.spiffe_id, out.display())
        });
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("token".into(), jwt.token.clone().into());
    }
    show::either(common, &object, || jwt.token.clone())
}

pub(super) async fn end(common: &Common, acting: &Acting, agent: Option<String>) -> Result<(), Failure> {
    let channel = match &acting.identity {
        Some(dir) => as_identity(common, acting, dir).await?,
        None if agent.is_none() => {
            return Err(Failure::new(USAGE, "say which agent: an id, or --as DIR for the one in a folder"));
        }
        None => operator(common).await?,
    };
    let request = v1::EndRequest { agent: agent.unwrap_or_default() };
    let got = IdentitiesClient::new(channel).end(request).await?.into_inner();
    let object = json!({ "agent_id": got.agent_id, "revision": got.revision });
    show::either(common, &object, || format!("{} ended at revision {}", got.agent_id, got.revision))
}

pub(super) async fn list(common: &Common, all: bool, tree: bool) -> Result<(), Failure> {
    let mut client = InspectionClient::new(operator(common).await?);
    let (mut agents, mut page_token) = (Vec::new(), String::new());
    let revision = loop {
        let request = v1::ListAgentsRequest { page_size: 1000, page_token, all };
        let page = client.list_agents(request).await?.into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            break page.revision;
        }
        page_token = page.next_page_token;
    };
    let line = |a: &v1::Agent| {
        let until = show::stamp(a.svid_expires_at.as_ref());
        format!("{}  {:<8} for {:<12} until {until}", a.agent_id, show::state(a), show::user(a))
    };
    if !tree {
        let object = json!({ "agents": agents.iter().map(show::agent).collect::<Vec<_>>(), "revision": revision });
        return show::either(common, &object, || match agents.as_slice() {
            [] => "no agents".to_owned(),
            agents => agents.iter().map(line).collect::<Vec<_>>().join("\n"),
        });
    }
    let mut below: BTreeMap<&str, Vec<&v1::Agent>> = BTreeMap::new();
    for agent in &agents {
        below.entry(&agent.parent_id).or_default().push(agent);
    }
    let roots: std::collections::BTreeSet<&str> = agents.iter().map(|a| a.root_id.as_str()).collect();
    let object = json!({ "revision": revision, "roots": roots.iter().map(|r| branch(r, &below)).collect::<Vec<_>>() });
    show::either(common, &object, || {
        let mut text = Vec::new();
        // A stack of what is still to be printed, with its indent.
        for root in &roots {
            text.push((*root).to_owned());
            let mut open: Vec<(&v1::Agent, usize)> = below.get(root).into_iter().flatten().rev().map(|a| (*a, 1)).collect();
            while let Some((agent, depth)) = open.pop() {
                text.push(format!("{}{}", "  ".repeat(depth), line(agent)));
                open.extend(below.get(agent.agent_id.as_str()).into_iter().flatten().rev().map(|a| (*a, depth + 1)));
            }
        }
        if text.is_empty() { "no agents".to_owned() } else { text.join("\n") }
    })
}

fn branch(id: &str, below: &BTreeMap<&str, Vec<&v1::Agent>>) -> serde_json::Value {
    let children: Vec<_> = below
        .get(id)
        .into_iter()
        .flatten()
        .map(|agent| {
            let mut object = show::agent(agent);
            if let (Some(map), Some(children)) = (object.as_object_mut(), branch(&agent.agent_id, below).get("agents")) {
                map.insert("agents".into(), children.clone());
            }
            object
        })
        .collect();
    json!({ "id": id, "agents": children })
}

pub(super) async fn agent(common: &Common, agent: String) -> Result<(), Failure> {
    let got = InspectionClient::new(operator(common).await?).get_agent(v1::GetAgentRequest { agent }).await?.into_inner();
    let agent = got.agent.ok_or_else(incomplete)?;
    let object = show::agent(&agent);
    show::either(common, &object, || {
        let fields = object.as_object().into_iter().flatten();
        let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        fields.map(|(k, v)| format!("{k:<17} {}", text(v))).collect::<Vec<_>>().join("\n")
    })
}

pub(super) async fn bundle(common: &Common, format: BundleFormat) -> Result<(), Failure> {
    let got = BundlesClient::new(operator(common).await?).get_bundle(v1::GetBundleRequest {}).await?.into_inner();
    let bundle = got.bundle.ok_or_else(incomplete)?;
    match format {
        BundleFormat::Spiffe => show::line(&String::from_utf8_lossy(&bundle.spiffe_json)),
        BundleFormat::Pem => {
            let pems: String = bundle.x509_authorities.iter().map(|d| crate::authority::pem("CERTIFICATE", d)).collect();
            show::line(pems.trim_end())
        }
        BundleFormat::Jwks => {
            let td = TrustDomain::new(&bundle.trust_domain).map_err(|e| e.to_string())?;
            let read = mayfly_verify::Bundle::from_json(td, &bundle.spiffe_json).map_err(|e| e.to_string())?;
            show::line(&read.oidc_jwks().to_string())
        }
    }
}

pub(super) async fn token(common: &Common, user: &str, audience: &str) -> Result<(), Failure> {
    let at = home::endpoint(&common.home).map_err(|e| Failure::new(5, e))?;
    let (issuer, ca) = at
        .oidc
        .zip(at.oidc_ca)
        .ok_or_else(|| Failure::new(1, "only `mayfly dev` has a provider of its own: get a token from yours"))?;
    let token = provider::fetch_token(&issuer, &ca, user, audience).await.map_err(|e| e.to_string())?;
    show::either(common, &json!({ "token": token, "user": { "iss": issuer, "sub": user } }), || token.clone())
}

pub(super) async fn backup(common: &Common, out: &Path) -> Result<(), Failure> {
    let path = std::path::absolute(out).map_err(|e| e.to_string())?;
    let request = v1::BackupRequest { path: path.display().to_string() };
    let got = OperationsClient::new(operator(common).await?).backup(request).await?.into_inner();
    let object = json!({ "path": request_path(&path), "revision": got.revision, "bytes": got.bytes });
    show::either(common, &object, || format!("{} bytes up to revision {}, in {}", got.bytes, got.revision, path.display()))
}

fn request_path(path: &Path) -> String {
    path.display().to_string()
}

pub(super) async fn operator(common: &Common) -> Result<Channel, Failure> {
    let at = home::endpoint(&common.home).map_err(|e| Failure::new(5, e))?;
    Ok(connect_unix(&at.socket).await?)
}

/// Connects with the identity of a folder, to the issuer of the home or to `--server`.
pub(super) async fn as_identity(common: &Common, acting: &Acting, dir: &Path) -> Result<Channel, Failure> {
    Ok(connect(settings_of(common, acting, dir)?).await?)
}

/// How to connect with the identity of a folder.
pub(super) fn settings_of(common: &Common, acting: &Acting, dir: &Path) -> Result<ChannelSettings, Failure> {
    let identity = folder::identity(dir)?;
    let address = match &acting.server {
        Some(address) => address.clone(),
        None => home::endpoint(&common.home).map_err(|e| Failure::new(5, e))?.grpc,
    };
    let roots = folder::certificates(&dir.join("bundle.pem"))?;
    let trust_domain = identity.chain.first().and_then(|leaf| trust_domain_of(leaf));
    let trust_domain =
        trust_domain.ok_or_else(|| Failure::new(1, format!("`{}` holds no SPIFFE identity", dir.join("svid.pem").display())))?;
    let trust = Trust::Roots(roots);
    Ok(ChannelSettings { address, trust_domain, trust, identity: Some(identity), connect_timeout: TIMEOUT })
}

/// Connects without an identity, and believes what a bundle holds: a file, or what the operator socket of the home says.
pub(super) async fn as_stranger(common: &Common, server: Option<&str>, bundle: Option<&Path>) -> Result<Channel, Failure> {
    let endpoint = || home::endpoint(&common.home).map_err(|e| Failure::new(5, e));
    let address = server.map_or_else(|| endpoint().map(|at| at.grpc), |address| Ok(address.to_owned()))?;
    let roots = match bundle {
        Some(file) => folder::certificates(file)?,
        None => {
            let got = BundlesClient::new(operator(common).await?).get_bundle(v1::GetBundleRequest {}).await?.into_inner();
            got.bundle.ok_or_else(incomplete)?.x509_authorities.into_iter().map(Into::into).collect()
        }
    };
    let trust_domain = match roots.first().and_then(|root| trust_domain_of(root)) {
        Some(trust_domain) => trust_domain,
        None => TrustDomain::new(&endpoint()?.trust_domain).map_err(|e| e.to_string())?,
    };
    let trust = Trust::Roots(roots);
    Ok(connect(ChannelSettings { address, trust_domain, trust, identity: None, connect_timeout: TIMEOUT }).await?)
}

fn trust_domain_of(leaf: &[u8]) -> Option<TrustDomain> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, cert) = X509Certificate::from_der(leaf).ok()?;
    let san = cert.subject_alternative_name().ok()??;
    let uri = san.value.general_names.iter().find_map(|n| if let GeneralName::URI(uri) = n { Some(*uri) } else { None })?;
    TrustDomain::new(uri.strip_prefix("spiffe://")?.split('/').next()?).ok()
}

pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().take(1 << 20).read_to_string(&mut text).map_err(|e| e.to_string())?;
    } else {
        text = std::fs::read_to_string(path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    }
    Ok(text)
}

pub(super) fn incomplete() -> Failure {
    Failure::new(1, "the issuer's answer is incomplete: is it of another version?")
}
