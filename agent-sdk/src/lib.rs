//! What an agent or orchestrator needs to hold a Mayfly identity.
//!
//! | module | what it gives |
//! |---|---|
//! | [`ticket`] | the string an operator hands out: where the issuer is, whom to believe there, and a secret for one use |
//! | [`channel`] | connections to the issuer on which both ends are verified |
//! | [`identity`] | an identity that rotates itself, from a ticket, by spawning or from files; JWT-SVIDs; its end |
//! | [`workload`] | an identity from any SPIFFE Workload API: that of `mayfly run`, or of a SPIRE |
//! | [`bearer`] | a JWT-SVID on its way into a request |
//! | [`revocation`] | what is revoked, followed live for every check in the process |
//! | [`peers`] | whose credentials hold right now, and who of them may be a peer |
//! | [`tls`] | complete TLS settings by SPIFFE ID, for services and their clients |
//! | [`listen`] | connections with verified peers, ended when their peers are nobody any more |
//! | [`delegation`] | a layer that proves for each request what its agent may do and for whom |
//! | [`api`] | the messages and a client for each service |
//!
//! # From a ticket to an identity
//!
//! A ticket is all that a new process needs. It pins the key of the issuer's root, so that the first connection is as safe
//! as every later one. The key that is certified never leaves the process; only a certificate signing request does.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::api::v1::RedeemRequest;
//! use mayfly_agent::api::v1::identities_client::IdentitiesClient;
//! use mayfly_agent::channel::{ChannelSettings, Identity, Trust, connect};
//! use mayfly_agent::ticket::Ticket;
//! use rustls_pki_types::{CertificateDer, PrivateKeyDer};
//!
//! # async fn example(csr: Vec<u8>, key: PrivateKeyDer<'static>) -> Result<(), Box<dyn std::error::Error>> {
//! // From a file, standard input or the environment; never from the command line, which everybody can read.
//! let ticket = Ticket::parse(std::env::var("MAYFLY_JOIN_TOKEN")?.trim())?;
//!
//! let channel = connect(ticket.channel_settings(Duration::from_secs(5))).await?;
//! let request = RedeemRequest { secret: ticket.secret().expose().to_vec(), csr };
//! let response = IdentitiesClient::new(channel).redeem(request).await?.into_inner();
//!
//! // From here on we show our own certificate, and trust what the bundle holds.
//! let (svid, bundle) = response.svid.zip(response.bundle).ok_or("the answer is incomplete")?;
//! let settings = ChannelSettings {
//!     trust: Trust::Roots(bundle.x509_authorities.into_iter().map(CertificateDer::from).collect()),
//!     identity: Some(Identity { chain: svid.certificates.into_iter().map(CertificateDer::from).collect(), key }),
//!     ..ticket.channel_settings(Duration::from_secs(5))
//! };
//! let mut identities = IdentitiesClient::new(connect(settings).await?);
//! # let _ = &mut identities;
//! # Ok(())
//! # }
//! ```
//!
//! # Processes that live for moments
//!
//! AWS-LC gathers entropy from the jitter of the clock before a process's first random number: some 70 ms, and 240 under load.
//! With `AWS_LC_SYS_NO_JITTER_ENTROPY=1` in the environment of the build its seed is the kernel's alone, and takes no time.
//!
//! # Where an identity comes from
//!
//! | what there is | where to begin | what it gives |
//! |---|---|---|
//! | a ticket or join token | [`Identity::redeem`](identity::Identity::redeem) | an agent or a workload that renews itself |
//! | a channel of who may spawn | [`Identity::spawn`](identity::Identity::spawn), `spawn_child` | an agent that renews itself |
//! | files that `mayfly spawn --out` wrote | [`Identity::take_over`](identity::Identity::take_over) | an agent that renews itself |
//! | a socket, of `mayfly run` or of a SPIRE agent | [`Source::open`](workload::Source::open) | what that socket says, renewed by others |
//!
//! From files, once: the certificate is renewed at once under a key that is made here, and the files are a copy from then on.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::Duration;
//!
//! use mayfly_agent::identity::{Identity, Issuer, Saved};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let saved = Saved::from_folder(Path::new("researcher"))?;
//! let at = Issuer {
//!     address: "issuer.internal:8443".into(),
//!     trust_domain: saved.trust_domain().clone(),
//!     connect_timeout: Duration::from_secs(5),
//! };
//! let identity = Identity::take_over(&saved, at).await?;
//! println!("we are {} until {:?}", identity.current().spiffe_id(), identity.current().expires_at());
//! # Ok(())
//! # }
//! ```
//!
//! From a socket, wherever the program was started: both ends of a call follow what the socket says.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::bearer;
//! use mayfly_agent::peers::Authorize;
//! use mayfly_agent::workload::{Endpoint, Source};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::open(&Endpoint::from_env()?, Duration::from_secs(10)).await?;
//! let ours = Authorize::trust_domain(source.trust_domain().clone());
//! let channel = source.channel("search.internal:8443", ours, Duration::from_secs(5)).await?;
//!
//! let mut call = tonic::Request::new("what is asked");
//! bearer::attach(&source.jwt("https://search.example").await?, &mut call)?;
//!
//! // Another certificate, another bundle, or nothing any more.
//! let mut changed = source.changed();
//! while changed.changed().await.is_ok() {
//!     match changed.borrow_and_update().svid() {
//!         Some(svid) => println!("we are {}", svid.spiffe_id()),
//!         None => println!("stop what you do"),
//!     }
//! }
//! # let _ = (channel, call);
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! [`ConnectError`](channel::ConnectError) and [`TicketError`](ticket::TicketError) say what to do, and have a `code()` that
//! stays the same between releases. A denial is a `tonic::Status` with `google.rpc.ErrorInfo`.
//!
//! # What it does not do yet
//!
//! Refused handshakes are counted ([`Counts`](listen::Counts)) and not logged.

pub mod api;
pub mod bearer;
pub mod channel;
pub mod delegation;
pub mod docs;
pub mod identity;
pub mod listen;
pub mod peers;
pub mod reason;
pub mod revocation;
pub mod ticket;
pub mod tls;
pub mod workload;

pub use mayfly_verify::TrustDomain;
