//! Gives an agent or orchestrator its Mayfly identity, and verifies the identities of others.
//!
//! # From a ticket to an identity
//!
//! A ticket is all that a new process needs. It pins the key of the issuer's root, so the first connection is as safe as every
//! later one. The private key never leaves the process; only a certificate signing request does.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use mayfly_agent::identity::Identity;
//! use mayfly_agent::ticket::Ticket;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // From a file, standard input or the environment; never from the command line, which every process can read.
//! let ticket = Ticket::parse(std::env::var("MAYFLY_TICKET")?.trim())?;
//! let identity = Identity::redeem(&ticket, Duration::from_secs(5)).await?;
//! println!("we are {}", identity.current().spiffe_id());
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! | module | what it is for |
//! |---|---|
//! | [`ticket`] | the string that an operator hands out: the issuer's address, its root, and a secret for one use |
//! | [`identity`] | an identity that renews itself; JWT-SVIDs; revocation |
//! | [`folder`] | an identity in files, as `mayfly spawn --out` writes them |
//! | [`workload`] | an identity from any SPIFFE Workload API, such as that of `mayfly run` or of a SPIRE agent |
//! | [`bearer`] | sending a JWT-SVID with a request |
//! | [`peers`] | verifying credentials, and deciding who may be a peer |
//! | [`proofs`] | remembering DPoP proofs, and the nonces that they must have |
//! | [`reason`] | the reason codes of denials: what each means, who has to act, and whether the identity has ended |
//! | [`resource`] | a service as a resource server of OAuth: its metadata, access tokens with their proofs, challenges |
//! | [`revocation`] | following the issuer's feed of revocations |
//! | [`tls`] | TLS settings by SPIFFE ID, for services and their clients |
//! | [`listen`] | accepting connections with verified peers, and closing them when a peer is revoked |
//! | [`delegation`] | a layer that verifies for each request what its agent may do, and for which user |
//! | [`channel`] | connections to the issuer on which both ends are verified |
//! | [`api`] | the issuer's messages, and a client for each service |
//!
//! # Where an identity comes from
//!
//! | you have | begin with | you get |
//! |---|---|---|
//! | a ticket or join token | [`Identity::redeem`](identity::Identity::redeem) | an agent or a workload that renews itself |
//! | the channel of a caller that may spawn | [`Identity::spawn`](identity::Identity::spawn), `spawn_child` | an agent that renews itself |
//! | files that `mayfly spawn --out` wrote | [`Identity::take_over`](identity::Identity::take_over) | an agent that renews itself |
//! | a socket of `mayfly run` or of a SPIRE agent | [`Source::open`](workload::Source::open) | the identities that the socket serves, renewed by others |
//!
//! From files, once: the certificate is renewed immediately under a key that is made here, and from then on the files are only an
//! outdated copy.
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
//! From a socket, in whatever way the program was started:
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
//! let mut call = tonic::Request::new("a question");
//! bearer::attach(&source.jwt("https://search.example").await?, &mut call)?;
//!
//! // A new certificate, a new bundle, or the loss of the identity.
//! let mut changed = source.changed();
//! while changed.changed().await.is_ok() {
//!     match changed.borrow_and_update().svid() {
//!         Some(svid) => println!("we are {}", svid.spiffe_id()),
//!         None => println!("stop working"),
//!     }
//! }
//! # let _ = (channel, call);
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! The error types say what to do, and have a `code()` that stays the same between releases. The issuer's denials arrive as a
//! `tonic::Status` with `google.rpc.ErrorInfo`; [`reason`] lists the codes.
//!
//! # Short-lived processes
//!
//! Before a process's first random number, AWS-LC gathers entropy from clock jitter, which takes about 70 ms, and 240 ms under
//! load. With `AWS_LC_SYS_NO_JITTER_ENTROPY=1` in the environment of the build it uses the kernel's entropy alone, without delay.
//!
//! # Limitations
//!
//! Refused handshakes are counted ([`Counts`](listen::Counts)) but not logged.

pub mod api;
pub mod bearer;
pub mod channel;
pub mod delegation;
pub mod docs;
pub mod folder;
pub mod identity;
pub mod listen;
pub mod peers;
pub mod proofs;
mod random;
pub mod reason;
pub mod resource;
pub mod revocation;
mod stream;
pub mod ticket;
pub mod tls;
mod uses;
pub mod validity;
pub mod workload;

pub use mayfly_verify::TrustDomain;
