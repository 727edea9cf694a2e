//! Mayfly: the identity issuer for short-lived AI agents.
//!
//! This page is the architecture. Rooms are listed in the order in which a request visits them; acts stand over them, one file
//! each:
//!
//! ```text
//! listen     connections: their places, budgets and ends; who may not call is told before a body is read
//! doors      peer  grpc  http              wire <-> act; `status` maps denials to the wire; a door decides nothing
//! acts       spawn redeem renew mint end join | revoke reopen | authorities rotate | configure inspect
//! why        explain who_can what_if replay governance           questions: judged as acts are, and nothing is recorded, signed or charged
//! pipeline                                 lanes and turns; groups of acts through prove | commit | sign | release; knows no act
//! rooms   1  caller  assertion  csr        evidence -> who: a peer's certificates, a user's token, a key's holder
//!            policies                         texts with owners, in Cedar: forbid or permit what classes and limits allow; pure
//!         2  judge                         (view, act, time, chance) -> verdict: checks, records, permit or denial; pure
//!         3  state                         what the records say; apply
//!         4  ledger                        one writer, one order; watermark, observers, backup, restore; knows records only
//!         5  journal                       the port, the records, and SQLite that keeps them; durable from here
//!         6  authority  svid               a recorded permit -> unsigned -> signed and read back
//! history    an entry for each record, denial and look: behind the ledger, and no request waits for it
//! publish    bundle  feed  crl             what verifiers get: follows the records, and no request waits for it
//! foreign    bundles of trusted foreign trust domains, each fetched and kept for itself; no request waits for it
//! login      the sign-in of a person at their provider, and the tokens that it leaves; context: named places, of which each may have one
//! follow     a program beside the issuer with an identity in a folder: a relay, a guard
//! run        the other program in this binary: beside one agent, with its identity; uses nothing of the issuer
//! witness    what followers of the feed saw last, told to an issuer that starts
//! guard      beside one service: says whether a credential is valid now; uses nothing of the issuer
//! sds envoy  secrets of an identity for Envoy, and its API; the guard and `run` share them
//! deploy     configurations of proxies that ask a guard
//! https jose the HTTPS client and the JSON Web Keys that assertion and foreign share
//! claims     whether a token says what the configuration expects of a workload, an operator or an auditor
//! lenient    what stock gRPC clients need of a Unix socket; the operator socket and that of `run` share it
//! process    what others see of this process's memory, and what a panic does to it; all long-lived work starts there
//! app        builds everything once; beside it config, home, folder, telemetry, cli, dev
//! ```
//!
//! A room may use the types of rooms above it and of those it is built on, `mayfly-verify`, and of `mayfly-agent` what both sides
//! share: the kinds of denials, and tickets. There is no circle.
//! `tests/house.rs` holds the list of allowed arrows.
//!
//! **The way of a request.** A door finds out who asks ([`doors::peer`]) and calls an act. The act's evidence is proved, the act
//! is judged where the order is decided, and its records are made durable with those of its group ([`ledger`]). Only then does its
//! permit become [`ledger::Recorded`], and only a recorded permit can be signed, once ([`authority::Seal`]). Before the signature
//! leaves, the caller and the agent are looked at again ([`judge::release`]).
//!
//! **Who decides.** Everything that may be said yes or no to is decided in [`judge`]: who the caller is now, who may ask for what,
//! whose an agent is, what class, user and parent allow, and the limits. Judging draws no randomness, knows no clock, and logs
//! nothing, so an act that is judged again gets the same verdict.
//!
//! **Time.** [`clock::Clock`] is microseconds; rooms get `now` as an argument. Records carry their time, and
//! [`state::State::apply`] knows no other.
//!
//! **The journal is its own snapshot.** An hour after something has ended its records are dropped, together with a later commit
//! or after some seconds without one. So the table holds what lives, and a restart replays that and no more.

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
