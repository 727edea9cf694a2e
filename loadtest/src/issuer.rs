//! The issuer under test: a `mayfly dev` that this program starts, or an issuer that runs already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mayfly::folder::{self, Key};
use mayfly::home;
use mayfly_agent::api::v1;
use mayfly_agent::channel::{ChannelSettings, Trust, connect, connect_unix};
use mayfly_agent::ticket::Ticket;
use mayfly_verify::TrustDomain;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::Options;
use crate::client::{Client, Counts};
use crate::load::{Call, boxed};
use crate::machine::Process;
use crate::seed::{self, Trees};
use crate::server::{Server, Standing};

/// Agents in one batch at most.
pub(crate) const BATCH: usize = 1000;

/// For connection and handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Limits of every kind, so that their cost is measured; none is ever reached.
const LIMITS: &str = r#"
[writes]
mint = { caller = "1000000/s", root = "1000000/s" }
exchange = { caller = "1000000/s", root = "1000000/s" }
renew = { caller = "1000000/s", root = "1000000/s" }
redeem = { root = "1000000/s" }
end = { caller = "1000000/s", root = "1000000/s" }
revoke = { caller = "1000000/s", root = "1000000/s" }
taken_back_below = 1000000

[[limits]]
name = "live-of-a-user"
per = "user"
live = 100000000

[[limits]]
name = "live-below-an-agent"
per = "parent"
live = 100000000

[[limits]]
name = "rate-of-a-workload"
per = "workload"
rate = "1000000/s"
burst = 1000000

[[limits]]
name = "total-of-a-class"
per = "class"
total = 1000000000
window = "1h"
"#;

/// Whom we load.
pub(crate) struct Issuer {
    /// The process whose CPU and memory are measured. `None` if it runs on another machine.
    pub(crate) process: Option<Process>,
    /// Every call of ours.
    pub(crate) counts: Arc<Counts>,
    /// A user's token, which the workload may present.
    pub(crate) token: String,
    /// The class of the agents that are spawned.
    pub(crate) class: String,
    /// The audience of the tokens that are minted.
    pub(crate) audience: String,
    /// Seconds from its start until it was ready, if this program started it.
    pub(crate) started_in: f64,
    // The class whose agents may spawn `class`. `None` if only the workload may.
    parent: Option<String>,
    binary: PathBuf,
    pin: bool,
    grpc: String,
    http: Option<String>,
    socket: Option<PathBuf>,
    trust_domain: TrustDomain,
    workload: PathBuf,
    folders: AtomicUsize,
    // The process that this program started. It is killed when this is dropped.
    child: Option<Child>,
    dir: tempfile::TempDir,
}

impl Issuer {
    /// The issuer that the options name, or a fresh one.
    pub(crate) async fn start(options: &Options) -> Result<Issuer, String> {
        match (&options.home, &options.address) {
            (Some(home), _) => Issuer::of_home(options, home).await,
            (None, Some(address)) => Issuer::at(options, address).await,
            (None, None) => Issuer::own(options).await,
        }
    }

    /// Starts a fresh issuer with live agents in its journal. Also returns the SPIFFE IDs of the topmost agents of each entry.
    pub(crate) async fn seeded(options: &Options, trees: &[Trees]) -> Result<(Issuer, Vec<Vec<String>>), String> {
        let mut issuer = Issuer::own(options).await?;
        issuer.stop().await?;
        let (journal, trees) = (issuer.home().join("journal.db"), trees.to_vec());
        eprintln!("writing {} live agents into the journal", trees.iter().map(|t| t.agents()).sum::<usize>());
        let tops = tokio::task::spawn_blocking(move || seed::seed(&journal, &trees)).await.map_err(|e| e.to_string())??;
        issuer.launch().await?;
        let td = issuer.trust_domain.clone();
        let id = |uuid: &Uuid| format!("spiffe://{td}/agent/researcher/{uuid}");
        Ok((issuer, tops.iter().map(|ids| ids.iter().map(id).collect()).collect()))
    }

    async fn own(options: &Options) -> Result<Issuer, String> {
        let mut issuer = Issuer::bare(options)?;
        std::fs::write(issuer.dir.path().join("limits.toml"), LIMITS).map_err(|e| e.to_string())?;
        issuer.launch().await?;
        issuer.token = issuer.user_token(&issuer.home()).await?;
        Ok(issuer)
    }

    /// A running `mayfly dev`, by its home.
    async fn of_home(options: &Options, home: &Path) -> Result<Issuer, String> {
        let mut issuer = Issuer::bare(options)?;
        let endpoint = home::endpoint(home)?;
        issuer.take(&endpoint)?;
        issuer.process = Process::holding(&home.join("lock"));
        issuer.workload = home.join("workloads/orchestrator");
        issuer.token = match &options.user_token {
            Some(file) => text(file)?,
            None => issuer.user_token(home).await?,
        };
        if let Some(file) = &options.join_token {
            issuer.join(&text(file)?).await?;
        }
        Ok(issuer)
    }

    /// A running issuer on any machine, which this program joins with a join token.
    async fn at(options: &Options, address: &str) -> Result<Issuer, String> {
        let mut issuer = Issuer::bare(options)?;
        let missing = |what: &str| format!("--address needs {what}");
        let join = options.join_token.as_ref().ok_or_else(|| missing("--join-token FILE"))?;
        issuer.class = options.class.clone().ok_or_else(|| missing("--class CLASS"))?;
        issuer.token = text(options.user_token.as_ref().ok_or_else(|| missing("--user-token FILE"))?)?;
        issuer.join(&text(join)?).await?;
        // The address that the issuer gives for itself may not be reachable from here.
        address.clone_into(&mut issuer.grpc);
        Ok(issuer)
    }

    fn bare(options: &Options) -> Result<Issuer, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        Ok(Issuer {
            process: None,
            counts: Arc::default(),
            token: String::new(),
            class: options.class.clone().unwrap_or_else(|| "worker".into()),
            audience: options.audience.clone(),
            started_in: 0.0,
            parent: options.class.is_none().then(|| "researcher".into()),
            binary: binary(options)?,
            pin: options.pin,
            grpc: String::new(),
            http: None,
            socket: None,
            trust_domain: TrustDomain::new("dev.mayfly.test").map_err(|e| e.to_string())?,
            workload: dir.path().join(".mayfly/workloads/orchestrator"),
            folders: AtomicUsize::new(0),
            child: None,
            dir,
        })
    }

    /// Starts the binary in our folder, and waits until it says that it is ready.
    pub(crate) async fn launch(&mut self) -> Result<(), String> {
        let mut command = if self.pin { Command::new("taskset") } else { Command::new(&self.binary) };
        if self.pin {
            command.args(["-c", "0"]).arg(&self.binary);
        }
        command.args(["dev", "-o", "json", "--config", "limits.toml"]).current_dir(self.dir.path());
        // A Ctrl-C reaches this program alone: the issuer runs on until the report is written.
        command.env_remove("MAYFLY_HOME").kill_on_drop(true).process_group(0).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().map_err(|e| self.missing(&e))?;
        let out = child.stdout.take().ok_or("the issuer has no output")?;
        let line = tokio::io::BufReader::new(out).lines().next_line().await.map_err(|e| e.to_string())?.unwrap_or_default();
        self.started_in = started.elapsed().as_secs_f64();
        let endpoint: home::Endpoint = serde_json::from_str(&line).map_err(|e| format!("the issuer did not start: {e}"))?;
        self.process = child.id().map(Process);
        self.child = Some(child);
        self.take(&endpoint)
    }

    fn missing(&self, e: &std::io::Error) -> String {
        format!("`{}`: {e}; build it with `cargo build --release`, or name it with --mayfly", self.binary.display())
    }

    /// Kills the issuer that this program started, as a crash would.
    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        match self.child.take() {
            Some(mut child) => child.kill().await.map_err(|e| e.to_string()),
            None => Err("this issuer is not ours to stop".into()),
        }
    }

    fn take(&mut self, endpoint: &home::Endpoint) -> Result<(), String> {
        self.trust_domain = TrustDomain::new(&endpoint.trust_domain).map_err(|e| e.to_string())?;
        self.grpc.clone_from(&endpoint.grpc);
        self.http = Some(endpoint.http.clone());
        self.socket = Some(self.dir.path().join(&endpoint.socket));
        Ok(())
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join(".mayfly")
    }

    async fn user_token(&self, home: &Path) -> Result<String, String> {
        let home = std::path::absolute(home).map_err(|e| e.to_string())?;
        let out = Command::new(&self.binary).args(["token", "demo", "--home"]).arg(home).output().await;
        let out = out.map_err(|e| self.missing(&e))?;
        let token = String::from_utf8(out.stdout).map_err(|e| e.to_string())?.trim().to_owned();
        if token.is_empty() { Err(String::from_utf8_lossy(&out.stderr).into_owned()) } else { Ok(token) }
    }

    /// Redeems a join token: this program is then the workload.
    async fn join(&mut self, token: &str) -> Result<(), String> {
        let ticket = Ticket::parse(token).map_err(|e| e.to_string())?;
        let channel = connect(ticket.channel_settings(TIMEOUT)).await.map_err(|e| e.to_string())?;
        let (key, client) = (Key::new()?, Client::new(channel, Arc::clone(&self.counts)));
        let request = v1::RedeemRequest { secret: ticket.secret().expose().to_vec(), csr: key.csr.clone() };
        let got = client.redeem(request).await?;
        let (svid, bundle) = got.svid.zip(got.bundle).ok_or("an incomplete answer")?;
        self.workload = self.dir.path().join("workload");
        folder::write(&self.workload, &key, &svid, &bundle, None)?;
        self.trust_domain = ticket.trust_domain().clone();
        ticket.address().clone_into(&mut self.grpc);
        Ok(())
    }

    /// A connection as the workload.
    pub(crate) async fn as_workload(&self) -> Result<Client, String> {
        self.as_identity(&self.workload).await
    }

    /// A connection with the identity of a folder.
    pub(crate) async fn as_identity(&self, folder: &Path) -> Result<Client, String> {
        self.dialer().connect(folder).await
    }

    /// What connects to it.
    pub(crate) fn dialer(&self) -> Dialer {
        Dialer { address: self.grpc.clone(), trust_domain: self.trust_domain.clone(), counts: Arc::clone(&self.counts) }
    }

    /// A connection for a ticket, and its secret.
    pub(crate) async fn with_ticket(ticket: &str, counts: Arc<Counts>) -> Result<(Client, Vec<u8>), String> {
        let ticket = Ticket::parse(ticket).map_err(|e| e.to_string())?;
        let channel = connect(ticket.channel_settings(TIMEOUT)).await.map_err(|e| e.to_string())?;
        Ok((Client::new(channel, counts), ticket.secret().expose().to_vec()))
    }

    /// A connection of a caller who may revoke: the operator if we have the operator socket, otherwise the workload.
    pub(crate) async fn as_revoker(&self) -> Result<Client, String> {
        match &self.socket {
            Some(socket) => {
                let channel = connect_unix(socket).await.map_err(|e| e.to_string())?;
                Ok(Client::new(channel, Arc::clone(&self.counts)))
            }
            None => self.as_workload().await,
        }
    }

    /// A request for one agent by the workload.
    pub(crate) fn request(&self, csr: Vec<u8>) -> v1::SpawnRequest {
        v1::SpawnRequest { class: self.class.clone(), csr, user_token: self.token.clone(), ..Default::default() }
    }

    /// The parent that spawns children, with its request: an agent, or the workload if no class of agents may spawn.
    pub(crate) async fn parent(&self) -> Result<(Client, v1::SpawnRequest), String> {
        match &self.parent {
            Some(class) => {
                let (folder, _) = self.agent(class).await?;
                let template = v1::SpawnRequest { class: self.class.clone(), ..Default::default() };
                Ok((self.as_identity(&folder).await?, template))
            }
            None => Ok((self.as_workload().await?, self.request(Vec::new()))),
        }
    }

    /// The identity of a fresh agent, in a folder, with the certification request of its key.
    pub(crate) async fn agent(&self, class: &str) -> Result<(PathBuf, Vec<u8>), String> {
        let key = Key::new()?;
        let request = v1::SpawnRequest { class: class.into(), ..self.request(key.csr.clone()) };
        let got = self.as_workload().await?.spawn(request).await?;
        let (svid, bundle) = got.svid.zip(got.bundle).ok_or("an incomplete answer")?;
        let folder = self.dir.path().join(format!("agent-{}", self.folders.fetch_add(1, Ordering::Relaxed)));
        folder::write(&folder, &key, &svid, &bundle, None)?;
        Ok((folder, key.csr.clone()))
    }

    /// Spawns `count` agents of the workload in batches, and returns the answers. `tickets` asks for tickets, not certificates.
    pub(crate) async fn batches(&self, count: usize, tickets: bool) -> Result<Vec<v1::SpawnResponse>, String> {
        let client = self.as_workload().await?;
        let mut spawned = Vec::with_capacity(count);
        while spawned.len() < count {
            let part = (count - spawned.len()).min(BATCH);
            let csrs = if tickets { Vec::new() } else { crate::supply::csrs(part).await? };
            let template = Some(v1::SpawnRequest { ticket: tickets, ..self.request(Vec::new()) });
            let count = if tickets { u32::try_from(part).map_err(|e| e.to_string())? } else { 0 };
            spawned.extend(client.batch(v1::SpawnBatchRequest { template, csrs, count }, part).await?);
        }
        Ok(spawned)
    }

    /// Every counter and gauge of `/metrics`, without the parts of histograms. `None` if the endpoint cannot be reached.
    pub(crate) async fn metrics(&self) -> Option<BTreeMap<String, f64>> {
        let http = self.http.as_ref()?;
        let mut stream = TcpStream::connect(http).await.ok()?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let line = |l: &str| l.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Some(text.lines().filter(|l| l.starts_with("mayfly_")).filter_map(line).collect())
    }
}

impl Server for Issuer {
    fn process(&self) -> Option<Process> {
        self.process
    }

    async fn empty(&self) -> Result<Call, String> {
        let client = self.as_workload().await?;
        Ok(boxed(move |_| {
            let client = client.clone();
            async move { client.empty().await }
        }))
    }

    async fn standing(&self) -> Standing {
        let live = self.metrics().await.and_then(|m| m.get("mayfly_agents_known").copied());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let live = live.map(|live| live as u64);
        let revision = match self.as_workload().await {
            Ok(client) => client.revision().await.ok(),
            Err(_) => None,
        };
        Standing { live, revision }
    }
}

/// Connects to the issuer.
pub(crate) struct Dialer {
    address: String,
    trust_domain: TrustDomain,
    counts: Arc<Counts>,
}

impl Dialer {
    /// A connection with the identity of a folder.
    pub(crate) async fn connect(&self, folder: &Path) -> Result<Client, String> {
        let settings = ChannelSettings {
            address: self.address.clone(),
            trust_domain: self.trust_domain.clone(),
            trust: Trust::Roots(folder::certificates(&folder.join("bundle.pem"))?),
            identity: Some(folder::identity(folder)?),
            connect_timeout: TIMEOUT,
        };
        let channel = connect(settings).await.map_err(|e| e.to_string())?;
        Ok(Client::new(channel, Arc::clone(&self.counts)))
    }
}

fn text(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("`{}`: {e}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// The binary under test: that of the options, or the `mayfly` beside this program.
fn binary(options: &Options) -> Result<PathBuf, String> {
    if let Some(given) = &options.mayfly {
        return std::path::absolute(given).map_err(|e| e.to_string());
    }
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = this.with_file_name("mayfly");
    if beside.is_file() {
        return Ok(beside);
    }
    let dir = this.parent().unwrap_or(&this).display();
    Err(format!("there is no `mayfly` in `{dir}`: build it with `cargo build --release`, or give --mayfly FILE"))
}
