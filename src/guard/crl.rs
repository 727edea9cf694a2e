//! `--crl`: keeps the certificate revocation lists in a folder, for a server beside the guard that reads no feed, and makes it
//! reload them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_verify::feed::Known;
use mayfly_verify::{Live, Staleness, Subscription};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

use super::lists::{List, Lists};
use super::reload::reload;

/// How often the lists are fetched if nothing was revoked. They are valid for ten minutes.
const EVERY: Duration = Duration::from_secs(60);
/// Pause after a failure, and the longest pause between two requests for a list that does not have all revocations yet.
const PAUSE: Duration = Duration::from_secs(5);
/// The shortest pause between such requests. The issuer makes at most one list a second, and takes longer for long ones.
const SOON: Duration = Duration::from_millis(250);
/// Shortest time between two reloads, because a reload costs the server more than a list costs us.
const GAP: Duration = Duration::from_secs(1);
/// How long the issuer may take for an answer, and the reload command for its work.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: a list of two hundred thousand certificates for each of several CAs.
const LONGEST: usize = 256 << 20;

/// What failed, as the label of a counter, and why.
type Failure = (&'static str, String);

/// The lists that a guard keeps.
pub struct Crl {
    lists: Arc<Lists>,
    client: BundlesClient<Channel>,
    live: Live,
    reload: Option<Arc<str>>,
    /// Whether a reload is due: files have changed, the last one failed, or there was none since the start.
    due: bool,
    /// The next reload must not begin before this.
    not_before: Instant,
    /// The digest of the cuts that the lists were last fetched for.
    seen: Option<[u8; 32]>,
    /// Epoch and revision of the lists that were written last.
    written: (Option<Uuid>, u64),
    heard: watch::Receiver<()>,
    _subscription: Subscription,
}

impl Crl {
    /// Writes the first lists into `dir`, so that a server can start with them. `reload` is a line of the shell. Fails if the issuer does not
    /// answer, if the folder cannot be written, or if another guard keeps it.
    pub async fn begin(dir: &Path, channel: Channel, live: Live, reload: Option<&str>) -> Result<Crl, String> {
        let lists = Arc::new(Lists::open(dir).map_err(|e| e.to_string())?);
        let client = BundlesClient::new(channel).max_decoding_message_size(LONGEST);
        let (news, heard) = watch::channel(());
        // ORDER: before the first lists, so that nothing that is revoked meanwhile is missed.
        let subscription = live.subscribe(move || {
            news.send_replace(());
        });
        // The previous guard may have ended between writing a list and the reload.
        let (reload, due) = (reload.map(Arc::from), reload.is_some());
        let not_before = Instant::now();
        let mut crl = Crl {
            lists,
            client,
            live,
            reload,
            due,
            not_before,
            seen: None,
            written: (None, 0),
            heard,
            _subscription: subscription,
        };
        for what in ["fetch", "write", "reload"] {
            metrics::counter!("mayfly_guard_crl_failures_total", "what" => what).increment(0);
        }
        crl.renew().await.map_err(|(_, cause)| cause)?;
        Ok(crl)
    }

    /// Renews the lists after each revocation, and every minute, until it is dropped.
    pub async fn keep(mut self) {
        let mut look = SOON;
        loop {
            let renewed = self.renew().await;
            // Even if fetching failed, a reload that failed before is still due.
            let reloaded = self.reloaded().await;
            for (what, cause) in [renewed.as_ref().err(), reloaded.as_ref().err()].into_iter().flatten() {
                metrics::counter!("mayfly_guard_crl_failures_total", "what" => *what).increment(1);
                tracing::error!(what, %cause, "the server goes on with the lists before: trying again in {PAUSE:?}");
            }
            match renewed.and_then(|complete| reloaded.map(|()| complete)) {
                Ok(true) => {
                    look = SOON;
                    let _ = timeout(EVERY, self.news()).await;
                }
                Ok(false) => {
                    sleep(look).await;
                    look = (look * 2).min(PAUSE);
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Returns when something was revoked since the lists were last fetched.
    async fn news(&mut self) {
        // A heartbeat arrives each second, and most of them bring no new revocation.
        while digest(self.live.known().as_deref()) == self.seen {
            if self.heard.changed().await.is_err() {
                // Unreachable: the subscription holds the sender.
                return std::future::pending().await;
            }
        }
    }

    /// Fetches the lists, and writes them if their content is new. Returns whether they have every revocation that was known when
    /// they were requested.
    async fn renew(&mut self) -> Result<bool, Failure> {
        let known = self.live.known();
        let (digest, head) = (digest(known.as_deref()), known.as_ref().map_or(0, |known| known.head));
        let epoch = known.map(|known| known.cuts.incarnation);
        let got = self.fetch().await.map_err(|cause| ("fetch", cause))?;
        self.believed(epoch, got.revision).map_err(|cause| ("fetch", cause))?;
        let lists: Vec<List> = got.crls.into_iter().map(|crl| List { issuer: crl.issuer, der: crl.der }).collect();
        let folder = Arc::clone(&self.lists);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let written = tokio::task::spawn_blocking(move || folder.write(&lists, now)).await;
        let written = written.map_err(|e| ("write", e.to_string()))?.map_err(|e| (e.what(), e.to_string()))?;
        self.due |= written.changed;
        self.written = (epoch, got.revision);
        let complete = got.revision >= head;
        if complete {
            self.seen = digest;
        }
        #[expect(clippy::cast_precision_loss, reason = "for gauges")]
        {
            metrics::gauge!("mayfly_guard_crl_revision").set(got.revision as f64);
            metrics::gauge!("mayfly_guard_crl_expires_timestamp_seconds").set(written.expires_at as f64);
        }
        Ok(complete)
    }

    /// Refuses lists of a lower revision, with which a server would forget revocations. After a restore, which the feed announces
    /// as a new epoch, revisions may begin lower.
    fn believed(&self, epoch: Option<Uuid>, revision: u64) -> Result<(), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Err(fork @ Staleness::Forked(_)) = self.live.fresh(now) {
            return Err(fork.to_string());
        }
        let (before, least) = self.written;
        if before == epoch && revision < least {
            return Err(format!("the issuer's lists are of revision {revision}, and those that are there of revision {least}"));
        }
        Ok(())
    }

    async fn fetch(&mut self) -> Result<v1::GetCrlsResponse, String> {
        let asked = timeout(PATIENCE, self.client.get_crls(v1::GetCrlsRequest {})).await;
        let got = asked.map_err(|_| "the issuer does not answer")?.map_err(|status| status.message().to_owned())?;
        Ok(got.into_inner())
    }

    /// Makes the server reload the lists, if that is due.
    async fn reloaded(&mut self) -> Result<(), Failure> {
        let Some(line) = self.reload.clone().filter(|_| self.due) else { return Ok(()) };
        sleep_until(self.not_before).await;
        let (file, ended) = (self.lists.all(), Ended::default());
        let stop = Arc::clone(&ended.0);
        let done = tokio::task::spawn_blocking(move || reload(&line, file.as_os_str(), PATIENCE, &stop)).await;
        self.not_before = Instant::now() + GAP;
        done.map_err(|e| ("reload", e.to_string()))?.map_err(|e| ("reload", e.to_string()))?;
        self.due = false;
        Ok(())
    }
}

/// The digest of everything that is revoked.
fn digest(known: Option<&Known>) -> Option<[u8; 32]> {
    known.and_then(|known| known.heartbeat.as_ref()).map(|heartbeat| heartbeat.digest)
}

/// Stops the command of a running reload when it is dropped, so that a guard leaves no command behind.
#[derive(Default)]
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::Mutex;

    use axum::Router;
    use axum::body::Body;
    use axum::http::header::CONTENT_TYPE;
    use axum::response::Response;
    use axum::routing::post;
    use mayfly_verify::Cuts;
    use mayfly_verify::feed::Heartbeat;
    use mayfly_verify::{Freshness, TrustDomain};
    use prost::Message as _;
    use tokio::net::TcpListener;

    use super::super::address::Socket;
    use super::super::lists::tests::list;
    use super::super::serve::serve;
    use super::*;

    /// An issuer that answers with a list of the first `serials` serial numbers, as of `revision`.
    struct Issuer {
        says: Arc<Mutex<(u64, u64)>>,
        channel: Channel,
        live: Live,
        _stop: watch::Sender<bool>,
    }

    impl Issuer {
        async fn begin() -> Issuer {
            let says = Arc::new(Mutex::new((0, 0)));
            let told = Arc::clone(&says);
            let answer = move || {
                let (serials, revision) = *told.lock().unwrap();
                let List { issuer, der } = list("a", &(1..=serials).collect::<Vec<_>>(), 2090);
                let message = v1::GetCrlsResponse { crls: vec![v1::Crl { issuer, der }], revision, expires_at: None };
                let message = message.encode_to_vec();
                let frame = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
                let response = Response::builder().header(CONTENT_TYPE, "application/grpc").header("grpc-status", "0");
                std::future::ready(response.body(Body::from(frame)).unwrap())
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let (stop, stopping) = watch::channel(false);
            let router = Router::new().route("/mayfly.v1.Bundles/GetCrls", post(answer));
            tokio::spawn(serve(Socket::Tcp(listener), router, stopping));
            let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            let live = Live::new(TrustDomain::new("td").unwrap(), Freshness::default());
            Issuer { says, channel, live, _stop: stop }
        }

        /// Publishes a list.
        fn say(&self, epoch: u128, serials: u64, revision: u64) {
            *self.says.lock().unwrap() = (serials, revision);
            let incarnation = Uuid::from_u128(epoch);
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&revision.to_be_bytes());
            let (trust_domain, as_of) = (self.live.trust_domain().clone(), 0);
            let heartbeat =
                Heartbeat { trust_domain, incarnation, head: revision, as_of, count: 0, digest, chain: None, signature: [0; 64] };
            let (cuts, heartbeat) = (Cuts::new(incarnation), Some(Arc::new(heartbeat)));
            self.live.publish(Arc::new(Known { cuts, head: revision, as_of, forgotten: 0, heartbeat }));
        }

        async fn keeper(&self, dir: &Path, reload: Option<&str>) -> Result<Crl, String> {
            Crl::begin(dir, self.channel.clone(), self.live.clone(), reload).await
        }
    }

    fn entries(crl: &Crl) -> usize {
        let list = pem::parse(std::fs::read(crl.lists.all()).unwrap()).unwrap();
        x509_parser::parse_x509_crl(list.contents()).unwrap().1.iter_revoked_certificates().count()
    }

    #[tokio::test]
    async fn t205_lists_of_an_issuer_that_went_back_replace_none() {
        let (issuer, dir) = (Issuer::begin().await, tempfile::tempdir().unwrap());
        issuer.say(1, 2, 10);
        let mut crl = issuer.keeper(dir.path(), None).await.unwrap();
        assert_eq!(entries(&crl), 2);
        issuer.say(1, 1, 9);
        let (what, cause) = crl.renew().await.unwrap_err();
        assert!(what == "fetch" && cause.contains("revision 9") && entries(&crl) == 2, "{cause}");
        issuer.say(1, 3, 11);
        assert_eq!((crl.renew().await, entries(&crl)), (Ok(true), 3));
        // A list that is older than the feed is written, and requested again.
        issuer.say(1, 4, 13);
        *issuer.says.lock().unwrap() = (4, 12);
        assert_eq!((crl.renew().await, entries(&crl)), (Ok(false), 4));
        // A restore begins a new epoch, in which everything issued before is revoked.
        issuer.say(2, 1, 5);
        assert_eq!((crl.renew().await, entries(&crl)), (Ok(true), 1));
        issuer.say(2, 2, 6);
        issuer.live.fork(5);
        let (_, cause) = crl.renew().await.unwrap_err();
        assert!(cause.contains("fork") && entries(&crl) == 1, "{cause}");
    }

    #[tokio::test]
    async fn t206_a_storm_of_revocations_is_one_reload_a_second_and_nothing_new_is_none() {
        let (issuer, dir) = (Issuer::begin().await, tempfile::tempdir().unwrap());
        issuer.say(1, 0, 1);
        let mark = dir.path().join("mark");
        let line = format!("cut -d' ' -f1 /proc/uptime >>{}", mark.display());
        let keeper = issuer.keeper(&dir.path().join("lists"), Some(&line)).await.unwrap();
        let keeping = tokio::spawn(keeper.keep());
        let times = || {
            let text = std::fs::read_to_string(&mark).unwrap_or_default();
            text.lines().map(|line| line.parse::<f64>().unwrap()).collect::<Vec<_>>()
        };
        let mut revision = 1;
        while times().len() < 4 {
            revision += 1;
            issuer.say(1, revision, revision);
            sleep(Duration::from_millis(10)).await;
        }
        // Each reload begins a second after the last one has ended; the kernel's times have hundredths of a second.
        let gaps: Vec<f64> = times().windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap > 0.97), "{gaps:?}");
        assert!(revision > 4, "{revision} revocations, and fewer reloads");
        keeping.abort();
    }
}
