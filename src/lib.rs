//! Mayfly: the identity issuer for short-lived AI agents.
//!
//! This page is the architecture. A *room* is a module with one task. Rooms are listed in the order in which a request visits them;
//! the acts, one file each, call them:
//!
//! ```text
//! listen     connections: limits on their number, memory and time; a caller without access is refused before its body is read
//! doors      peer  grpc  http              the APIs: decode a request, call an act, encode the answer; a door decides nothing
//! acts       spawn redeem renew mint end join | revoke reopen | authorities rotate | configure inspect
//! why        explain who_can what_if replay governance           questions, judged like acts; nothing is recorded, signed or charged
//! pipeline                                 queues; takes groups of acts through prove | commit | sign | release; knows no particular act
//! rooms   1  caller  assertion  csr        evidence -> caller: from a peer's certificates, a user's token, a proof of a key
//!            policies                         policies with owners, in Cedar: forbid or permit acts that classes and limits allow; pure
//!         2  judge                         (view, act, time, chance) -> verdict: checks, records, permit or denial; pure
//!         3  state                         the result of applying all records
//!         4  ledger                        one writer, one order; watermark, observers, backup, restore; knows only records
//!         5  journal                       the trait of a store, the records, and the store in SQLite; durable from here
//!         6  authority  svid               a recorded permit -> unsigned document -> signed and read back
//! history    an entry for each record, for each denial and for each read of an operator; follows the ledger, and no request waits for it
//! publish    bundle  feed  crl             for verifiers; follows the records, and no request waits for it
//! foreign    bundles of trusted foreign trust domains, each fetched and stored by itself; no request waits for it
//! login      the sign-in of a person at their provider, and its tokens; context: which issuer a command uses, and as whom
//! follow     a program beside the issuer with an identity in a folder: a relay, a guard
//! run        `mayfly run`, beside one agent, with its identity; uses no code of the issuer
//! witness    the last heartbeat that a follower of the feed saw, for an issuer that starts
//! guard      `mayfly guard`, beside one service: says whether a credential is valid now; uses no code of the issuer
//! sds envoy  secrets of an identity for Envoy, and its API; the guard and `run` share them
//! deploy     configurations of proxies that ask a guard
//! https jose the HTTPS client and the JSON Web Keys that assertion and foreign share
//! claims     compares the claims of a token with those that the configuration expects of a workload, an operator or an auditor
//! lenient    lets stock gRPC clients use a Unix socket; the operator socket and that of `run` share it
//! process    protection of the memory, and the effect of a panic; starts everything that runs as long as the process
//! app        builds everything once; beside it config, home, folder, telemetry, cli, dev
//! ```
//!
//! A room may use the types of rooms above it and of those it is built on, `mayfly-verify`, and of `mayfly-agent` the parts that both
//! sides share: the kinds of denials, and tickets. There are no cycles. `tests/house.rs` holds the list of allowed dependencies.
//!
//! **The path of a request.** A door authenticates the caller ([`doors::peer`]) and calls an act. The signatures in the act's evidence
//! are verified, the act is judged by the writer, in the order of the journal, and its records are made durable with those of its group
//! ([`ledger`]). Only then does its permit become [`ledger::Recorded`], and only a recorded permit can be signed, once
//! ([`authority::Seal`]). Before the signed credential is sent, the caller and the agent are checked again ([`judge::release`]).
//!
//! **Decisions.** Every decision is made in [`judge`]: whether a caller is still valid, who may ask for what, who owns an agent, what
//! class, user and parent allow, and the limits. Judging draws no randomness, reads no clock, and logs nothing, so an act that is judged
//! again gets the same verdict.
//!
//! **Time.** [`clock::Clock`] is microseconds; rooms get `now` as an argument. Records carry their time, and
//! [`state::State::apply`] uses no other.
//!
//! **The journal is its own snapshot.** An hour after something has ended its records are dropped, together with a later commit
//! or after some seconds without one. So the table holds only what still matters, and a restart replays no more than that.
//!
//! **Words of the code.** The README has the words of the product. Comments also use these:
//!
//! | word | meaning |
//! |---|---|
//! | stranger | a caller without a credential that may call anything |
//! | lane | a queue of the pipeline and its priority: revocations, authorities, issuance, questions |
//! | turn | the permission of one caller, or one network, to go next in a queue |
//! | place | a permit that limits a number: of open connections, of acts in the pipeline |
//! | root | the workload at the top of a tree of agents, for which turns and places are counted |
//! | stamp | (subject, since): the credential relies on this subject since the record at that revision |
//! | standing | whether an agent is live, expired, ended or revoked; of a target, whether it is closed |
//! | seat | a counter of the live agents of one subject |
//! | line | the certificates of one holder of a workload's identity, each renewed from the one before |
//! | generation | the position of a certificate in such a line: current, next, replaced or past |
//! | row, obsolete | a record in the journal's table; obsolete if no later replay needs it |
//! | chance | the random bytes for one act, drawn before it is judged |
//! | look | in the history, a read by an operator or an auditor of what others do |

/// The version of this crate, with the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("MAYFLY_COMMIT"), ")");

pub mod app;
pub mod cli;
pub mod config;
pub mod context;
pub mod dev;
pub mod folder;
pub mod home;
pub mod login;
pub mod process;
pub mod telemetry;

pub mod listen;

pub mod doors;

pub mod acts;

pub mod why;

pub mod pipeline;

pub mod publish;

pub mod caller;

pub mod assertion;

pub mod csr;

pub mod policies;

pub mod judge;

pub mod state;

pub mod ledger;

pub mod history;

pub mod journal;

pub mod keys;

pub mod authority;

pub mod svid;

pub mod foreign;

pub mod follow;

pub mod guard;

pub mod sds;

pub mod envoy;

pub mod witness;

pub mod deploy;

#[cfg(target_os = "linux")]
pub mod run;

pub mod claims;
pub mod clock;
pub mod denial;
pub mod docs;
pub mod https;
mod jose;
pub mod lenient;
