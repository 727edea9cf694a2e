//! Reads the configuration again while the issuer runs: whole or not at all.
//!
//! Steps that can fail come first. Then the record is made durable and the rules are swapped with it; nothing after that can fail.
//! A request whose evidence was verified under the old configuration is judged by the new one, or verified again.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mayfly_verify::{SpiffeId, Workload};
use tokio::sync::{mpsc, watch};

use crate::acts::configure::{self, Change, Compared, Configure, Order, Reloaded};
use crate::acts::webhook::Webhook;
use crate::acts::{Issuer, Providers};
use crate::assertion::{Assertions, Attestations, IssuerSettings};
use crate::authority::schedule::Schedule;
use crate::caller::{Caller, Origin};
use crate::config::{self, Config, Difference, Source};
use crate::denial::{Fault, No};
use crate::home::{Endpoint, Home};
use crate::keys::keystore::read_private;
use crate::telemetry;

/// How long the files of a configuration may take to be read: less than a request may take.
const READING: Duration = Duration::from_secs(5);

/// What a reload needs.
pub(super) struct Reloads {
    pub(super) issuer: Arc<Issuer>,
    /// `None` if the configuration was given by a program.
    pub(super) source: Option<Source>,
    /// The configuration in use, as it is written.
    pub(super) config: Config,
    /// Of development: its provider.
    pub(super) provider: Option<Provider>,
    pub(super) schedule: Arc<ArcSwap<Schedule>>,
    pub(super) client_audience: Option<String>,
    /// Notifies the tasks that read files by themselves.
    pub(super) told: watch::Sender<u64>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) home: Arc<Home>,
    pub(super) endpoint: Endpoint,
}

/// The provider of development, which is not in the configuration file.
#[derive(Clone)]
pub(super) struct Provider {
    pub(super) issuer: String,
    pub(super) ca_file: PathBuf,
    /// The URL of this issuer, for which the provider makes ID-JAGs. `None` if it has none.
    pub(super) own: Option<String>,
}

/// Carries out orders one after another, until the issuer stops.
pub(super) async fn keep(mut reloads: Reloads, mut orders: mpsc::Receiver<Order>) {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = reloads.stopped.wait_for(|stopped| *stopped) => return,
        };
        match order {
            None => return,
            // The order of a caller that has hung up is dropped.
            Some(Order::Reload(_, _, answer)) if answer.is_closed() => {}
            Some(Order::Reload(caller, origin, answer)) => {
                let done = reloads.reload(caller, origin).await;
                let outcome = if done.is_ok() { "ok" } else { "refused" };
                metrics::counter!("mayfly_reloads_total", "outcome" => outcome).increment(1);
                match &done {
                    Ok(reloaded) => tell(reloaded),
                    Err(no) => tracing::error!(%no, "the configuration was not reloaded, and stays"),
                }
                let _ = answer.send(done);
            }
            Some(Order::Compare(text, name, answer)) => drop(answer.send(reloads.compare(text, name).await)),
        }
    }
}

fn tell(reloaded: &Reloaded) {
    tracing::info!(revision = reloaded.revision, changes = reloaded.changes.len(), "the configuration was reloaded");
    for change in reloaded.changes.iter().filter(|change| change.needs_restart) {
        tracing::warn!(key = change.key, "changed in the file, and kept as it was until a restart");
    }
}

impl Reloads {
    async fn reload(&mut self, caller: Caller, origin: Option<Arc<Origin>>) -> Result<Reloaded, No> {
        let source = self.source.clone().ok_or_else(|| configure::refused("this issuer reads no file"))?;
        let read = within(move || source.load()).await?;
        let new = read.map_err(|faults| configure::refused(&faults.to_string()))?;
        let changes = self.changes(&new);
        let config = self.config.reloaded(new);
        // 1. The steps that can fail.
        if let Some(why) = config.misfit() {
            return Err(configure::refused(&why).into());
        }
        let refused = |e: &dyn std::fmt::Display| No::from(configure::refused(&e.to_string()));
        let issuers = issuers(&config, self.provider.as_ref());
        let filter = telemetry::filter(&config.log_filter).map_err(|e| refused(&e))?;
        let before = self.issuer.providers.load_full();
        let number = before.number + 1;
        let (known, wanted, asked) = (Arc::clone(&self.issuer.foreign), config.clone(), issuers.clone());
        let opened = within(move || {
            let assertions = before.assertions.again(asked).map_err(|e| e.to_string())?;
            let attestations = before.attestations.again(wanted.workload_issuers.clone(), wanted.attest.clone());
            let foreign = known.prepare(&wanted.foreign, listed(&wanted))?;
            let attestations = attestations.map_err(|e| e.to_string())?;
            keep_keys(&wanted, &assertions, &attestations)?;
            Ok::<_, String>((assertions, attestations, foreign, webhook(&wanted)?))
        });
        let (assertions, attestations, foreign, webhook) = opened.await?.map_err(|e| refused(&e))?;
        let own = &self.issuer.iss;
        if let Some(other) = issuers.iter().chain(&config.workload_issuers).find(|other| other.issuer == *own) {
            return Err(refused(&format!("`{own}` is the URL of the issuer `{}` and our own", other.name)));
        }
        let with_provider = Config { issuers, ..config.clone() };
        let rules = with_provider.rules(self.client_audience.clone(), number);
        // ORDER: before the record names the new set. The previous set was in force until now, so the time for which it is kept
        // begins now.
        let sets = [self.issuer.ledger.rules().policies.clone(), rules.policies.clone()];
        let issuer = Arc::clone(&self.issuer);
        let kept = tokio::task::spawn_blocking(move || issuer.sets.in_force(sets.iter().flatten()));
        if let Err(cause) = kept.await.map_err(|e| Fault::new("reload", e))? {
            tracing::warn!(%cause, "the set of policies is not kept: decisions under it cannot be decided again by it");
        }
        // 2. The record, by the new rules. Durable from here, and judged by them from here.
        let ledger = self.issuer.ledger.clone();
        let configured = Configure { classes: config.digest(), written: config.digest_of_written() };
        let recorded = move || configure::reconfigure(&ledger, caller, origin, configured, rules);
        let revision = tokio::task::spawn_blocking(recorded).await.map_err(|e| Fault::new("reload", e))??;
        // 3. The steps that cannot fail.
        let urls = urls(&with_provider.issuers);
        self.issuer.providers.store(Arc::new(Providers {
            number,
            assertions,
            attestations,
            urls: urls.clone(),
            notified: config.notified.clone(),
            webhook,
        }));
        self.issuer.foreign.replace(foreign, &self.stopped);
        self.issuer.throttle.replace(config.writes.clone());
        self.schedule.store(Arc::new(config.schedule(self.schedule.load().root_ends_at)));
        // Without a change of the file's filter, the filter of the environment stays, which development may have.
        if config.log_filter != self.config.log_filter {
            telemetry::refilter(filter);
        }
        self.told.send_modify(|n| *n += 1);
        self.config = config;
        self.endpoint.issuers = urls;
        if let Err(cause) = self.home.announce(&self.endpoint) {
            tracing::error!(%cause, "`endpoint.json` still has the issuers from before");
        }
        Ok(Reloaded { revision, changes })
    }

    async fn compare(&self, text: String, name: String) -> Result<Compared, No> {
        let source = self.source.clone().ok_or_else(|| configure::refused("this issuer reads no file"))?;
        // The text may name other files, such as those of policies.
        let new = within(move || source.parse(&text, &name)).await?.map_err(|faults| configure::refused(&faults.to_string()))?;
        let changes = self.changes(&new);
        let mut config = self.config.reloaded(new);
        config.issuers = issuers(&config, self.provider.as_ref());
        let (agents, affected) = self.issuer.affected(&config.rules(self.client_audience.clone(), 0));
        Ok(Compared { changes, agents, affected })
    }

    fn changes(&self, new: &Config) -> Vec<Change> {
        let change = |d: Difference| Change { key: d.key, before: d.before, after: d.after, needs_restart: d.needs_restart };
        config::differences(&self.config, new).into_iter().map(change).collect()
    }
}

/// Reads files within a time limit. A pipe in the place of a file, or an unreachable file system, would otherwise block every later
/// reload, and the shutdown.
async fn within<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Result<T, No> {
    let read = tokio::time::timeout(READING, tokio::task::spawn_blocking(read)).await;
    let late = |_| configure::refused(&format!("the files were not read within {} seconds", READING.as_secs()));
    Ok(read.map_err(late)?.map_err(|e| Fault::new("reload", e))?)
}

/// The verifiers for the configuration of a start.
pub(super) fn providers(config: &Config) -> Result<Providers, String> {
    let assertions = Assertions::new(config.issuers.clone()).map_err(|e| e.to_string())?;
    let attestations = Attestations::new(config.workload_issuers.clone(), config.attest.clone()).map_err(|e| e.to_string())?;
    keep_keys(config, &assertions, &attestations)?;
    let (urls, notified, webhook) = (urls(&config.issuers), config.notified.clone(), webhook(config)?);
    Ok(Providers { number: 0, assertions, attestations, urls, notified, webhook })
}

/// Who is told of questions to people, with the secret. Blocks while that is read.
pub(super) fn webhook(config: &Config) -> Result<Option<Webhook>, String> {
    let Some(configured) = &config.webhook else { return Ok(None) };
    let file = &configured.secret_file;
    let fault = |e: &dyn std::fmt::Display| format!("approvals.webhook.secret_file: {e}");
    let secret = read_private(file).map_err(|e| fault(&e))?;
    let secret = secret.ok_or_else(|| fault(&format!("`{}` does not exist", file.display())))?;
    Webhook::new(configured.to.clone(), &secret).map(Some).map_err(|e| fault(&e))
}

/// Keeps the keys of all providers in the home, for a start while they are down.
fn keep_keys(config: &Config, assertions: &Assertions, attestations: &Attestations) -> Result<(), String> {
    let dir = config.home.join("providers");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
    assertions.keep(&dir);
    attestations.keep(&dir);
    Ok(())
}

/// The URLs of issuers, by the names that people write.
pub(super) fn urls(issuers: &[IssuerSettings]) -> std::collections::BTreeMap<String, String> {
    issuers.iter().map(|i| (i.name.clone(), i.issuer.clone())).collect()
}

/// The configured issuers, and that of development if there is one.
pub(super) fn issuers(config: &Config, provider: Option<&Provider>) -> Vec<IssuerSettings> {
    let mut issuers = config.issuers.clone();
    issuers.extend(provider.map(|provider| super::users::development(config, provider)));
    issuers
}

/// The foreign workloads that some class lists.
pub(super) fn listed(config: &Config) -> impl Iterator<Item = Arc<SpiffeId>> + use<> {
    super::users::spawners(config).into_iter().filter_map(|w| if let Workload::Foreign(id) = w { Some(id) } else { None })
}
