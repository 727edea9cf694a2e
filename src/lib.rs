//! Mayfly: the identity issuer for short-lived AI agents.
//!
//! A request walks through the house from the top:
//!
//! ```text
//! doors     grpc, http, listen              wire <-> domain; `status` maps denials, `access` says who may call what
//! stories   issue  revoke  inspect  rotate  columns of steps; `desk` takes them in groups: verify, commit, sign, release
//! rooms  1  caller                          a peer's certificates -> Caller
//!        2  assertion                       a user token -> Delegator
//!        3  policy                          (class, grant, what is asked, now) -> Permit | Denial; pure
//!        4  registry                        the only owner of state, with one writer: admit, commit, apply, answer
//!        5  journal                         the records, and SQLite that keeps them; durable from here
//!        6  svid, authority                 a recorded permit -> unsigned -> signed and read back
//! publish   bundle  feed                    what verifiers get: follows the records, and no request waits for it
//! foreign   bundles of trusted foreign trust domains, each fetched and kept for itself; no request waits for it
//! run       the other program in this binary: beside one agent, with its identity; uses nothing of the issuer
//! app       builds everything once; beside it config, home, folder, telemetry, cli, dev
//! ```
//!
//! A room uses the types of rooms above it and `mayfly-verify`, never of rooms below. `tests/house.rs` holds the list of
//! arrows. There is no way to a signature but through a commit: [`svid`] takes [`registry::Admission`], [`registry::Mint`]
//! and [`registry::Certification`], and only the registry makes them, from what is durable.
//!
//! **Time.** [`clock::Clock`] is microseconds; rooms get `now` as an argument. Records carry their time, and
//! [`registry::state::State::apply`] knows no other.
//!
//! **The journal is its own snapshot.** When something has been over for an hour its records are dropped, with the commit that
//! follows; so the table holds what lives, and a restart replays that and no more.

pub mod app;
pub mod cli;
pub mod config;
pub mod dev;
pub mod folder;
pub mod home;
pub mod telemetry;

pub mod doors;

pub mod stories;

pub mod publish;

pub mod caller;

pub mod assertion;

pub mod policy;

pub mod registry;

pub mod journal;

pub mod svid;

pub mod authority;

pub mod foreign;

#[cfg(target_os = "linux")]
pub mod run;

pub mod clock;
pub mod denial;
