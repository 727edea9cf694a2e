//! The authorities: one set, which each record replaces as a whole.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Misfit, seconds};
use crate::journal::record;

/// Most authorities of a kind that are prepared, active or retired at once (T57: relying parties read no more keys).
pub const PUBLISHED: usize = 20;

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// X.509-SVIDs: an intermediate below the root.
    X509,
    /// JWT-SVIDs and access tokens, with ES256.
    Jwt,
    /// JWT-SVIDs and access tokens with RS256, for audiences that ask for it.
    Rs256,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::X509, Kind::Jwt, Kind::Rs256];

    /// Whether it signs tokens. A token's key has to be published before it is used; an X.509 authority comes with every certificate.
    pub fn is_jwt(self) -> bool {
        self != Kind::X509
    }

    /// `x509`, `jwt` or `rs256`. None of these is a prefix of another, because files of keys are found by the prefix of their
    /// names.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::X509 => "x509",
            Kind::Jwt => "jwt",
            Kind::Rs256 => "rs256",
        }
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(s: &str) -> Result<Kind, String> {
        match s {
            "x509" => Ok(Kind::X509),
            "jwt" => Ok(Kind::Jwt),
            "rs256" => Ok(Kind::Rs256),
            _ => Err(format!("`{s}` is no kind of authority: write `x509`, `jwt` or `rs256`")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The stage of an authority's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Published, and signs nothing yet.
    Prepared,
    /// Signs. There is at most one of each kind.
    Active,
    /// Signs no more, but credentials that it signed stay valid.
    Retired,
    /// Nothing that it ever signed is valid.
    Tainted,
}

impl Status {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Prepared => "prepared",
            Status::Active => "active",
            Status::Retired => "retired",
            Status::Tainted => "tainted",
        }
    }
}

/// An authority without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it signs.
    pub kind: Kind,
    /// X.509: its key id in hex. JWT: its `kid`.
    pub id: Arc<str>,
    /// The stage of its life.
    pub status: Status,
    /// X.509: its certificate, DER. JWT: its public key, an uncompressed P-256 point. RS256: its public key, `SubjectPublicKeyInfo` in DER.
    pub public: Vec<u8>,
    /// When it expires, Unix seconds. Nothing that it signs lasts longer (XL-13).
    pub ends_at: u64,
    /// Unix microseconds.
    pub prepared_at: u64,
    /// Unix microseconds; 0 before.
    pub activated_at: u64,
    /// Unix microseconds; 0 before. For a tainted authority, the time at which it was tainted.
    pub retired_at: u64,
    /// Unix microseconds until which a credential it signed may be valid; 0 before it has retired.
    pub keep_until: u64,
}

impl Slot {
    /// A new authority. Its times are set when it is recorded.
    pub fn new(kind: Kind, id: Arc<str>, public: Vec<u8>, ends_at: u64) -> Slot {
        let status = Status::Prepared;
        Slot { kind, id, status, public, ends_at, prepared_at: 0, activated_at: 0, retired_at: 0, keep_until: 0 }
    }

    /// The id that credentials carry: the key id of an X.509 authority as bytes, the `kid` of a JWT key as text.
    pub fn key_id(&self) -> Vec<u8> {
        match self.kind {
            Kind::X509 => hex::decode(&*self.id).unwrap_or_default(),
            Kind::Jwt | Kind::Rs256 => self.id.as_bytes().to_vec(),
        }
    }

    /// Whether nothing that the authority signed, or could sign, is valid at `now` (Unix microseconds) any longer.
    pub fn is_over(&self, now: u64) -> bool {
        match self.status {
            Status::Retired | Status::Tainted => self.keep_until <= now,
            Status::Prepared => seconds(self.ends_at) <= now,
            Status::Active => false,
        }
    }

    pub(crate) fn read(revision: u64, a: &record::Authority) -> Result<Slot, Misfit> {
        use record::authority as wire;
        let misfit = |what| Misfit { revision, what };
        let kind = match a.kind() {
            wire::Kind::X509 => Kind::X509,
            wire::Kind::Jwt => Kind::Jwt,
            wire::Kind::Rs256 => Kind::Rs256,
            wire::Kind::Unspecified => return Err(misfit("kind of authority")),
        };
        let status = match a.status() {
            wire::Status::Prepared => Status::Prepared,
            wire::Status::Active => Status::Active,
            wire::Status::Retired => Status::Retired,
            wire::Status::Tainted => Status::Tainted,
            wire::Status::Unspecified => return Err(misfit("status of an authority")),
        };
        Ok(Slot {
            kind,
            id: a.id.as_str().into(),
            status,
            public: a.public.clone(),
            ends_at: a.ends_at,
            prepared_at: a.prepared_at,
            activated_at: a.activated_at,
            retired_at: a.retired_at,
            keep_until: a.keep_until,
        })
    }

    pub(crate) fn write(&self) -> record::Authority {
        use record::authority as wire;
        let kind = match self.kind {
            Kind::X509 => wire::Kind::X509,
            Kind::Jwt => wire::Kind::Jwt,
            Kind::Rs256 => wire::Kind::Rs256,
        };
        let status = match self.status {
            Status::Prepared => wire::Status::Prepared,
            Status::Active => wire::Status::Active,
            Status::Retired => wire::Status::Retired,
            Status::Tainted => wire::Status::Tainted,
        };
        record::Authority {
            kind: kind.into(),
            id: self.id.to_string(),
            status: status.into(),
            public: self.public.clone(),
            ends_at: self.ends_at,
            prepared_at: self.prepared_at,
            activated_at: self.activated_at,
            retired_at: self.retired_at,
            keep_until: self.keep_until,
        }
    }
}

/// All authorities, as of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// Revision of the record; 0 if there is none yet. Also the sequence number of the bundle (BU-2).
    pub revision: u64,
    /// In order of preparation.
    pub slots: Vec<Slot>,
    active: [Option<usize>; 3],
}

impl Authorities {
    pub(crate) fn new(revision: u64, slots: Vec<Slot>) -> Authorities {
        let active = |kind| slots.iter().position(|s| s.kind == kind && s.status == Status::Active);
        Authorities { revision, active: Kind::ALL.map(active), slots }
    }

    /// The authority that signs.
    pub fn active(&self, kind: Kind) -> Option<&Slot> {
        let [x509, jwt, rs256] = self.active;
        let index = match kind {
            Kind::X509 => x509?,
            Kind::Jwt => jwt?,
            Kind::Rs256 => rs256?,
        };
        self.slots.get(index)
    }

    /// The authority that signs next.
    pub fn prepared(&self, kind: Kind) -> Option<&Slot> {
        self.of(kind).find(|s| s.status == Status::Prepared)
    }

    /// All authorities of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |s| s.kind == kind)
    }

    /// Whether an authority is tainted, by the id of its slot.
    pub fn is_tainted(&self, id: &str) -> bool {
        self.slots.iter().any(|s| s.status == Status::Tainted && &*s.id == id)
    }

    /// Whether an authority is tainted, by the id that credentials carry.
    pub fn tainted(&self, id: &[u8]) -> bool {
        self.slots.iter().any(|s| s.status == Status::Tainted && s.key_id() == id)
    }
}
