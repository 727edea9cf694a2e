//! Credentials in the state: certificates, tokens and tickets, the owners of keys, and the outcomes of earlier requests.

use std::num::NonZeroU64;

use mayfly_verify::{User, WorkloadName};
use uuid::Uuid;

use super::{Misfit, fixed};
use crate::journal::record;

/// Who owns a certified key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// An agent. While the issuer remembers the agent, its keys are certified for nobody else.
    Agent(Uuid),
    /// A workload, until its certificate ends, in Unix seconds.
    Workload(&'a WorkloadName, u64),
}

/// Who may redeem a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A workload: the ticket is a join token.
    Workload(WorkloadName),
    /// The agent that was admitted with the ticket.
    Agent(Uuid),
}

/// A ticket, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Who may redeem it.
    pub holder: Holder,
    /// The operator that made it, if that is a workload, because revoking the operator also revokes its join tokens.
    pub by: Option<WorkloadName>,
    /// Unix microseconds.
    pub ends_at: u64,
    /// The certificate that a workload got for it. `None` before that, and for an agent's ticket.
    pub redeemed: Option<Certificate>,
    /// Revision of its record.
    pub revision: u64,
}

/// A certificate of a workload or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the public key.
    pub key: [u8; 32],
    /// Serial number.
    pub serial: [u8; 16],
    /// Unix seconds.
    pub begins_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// Revision of its record. It is never zero, so that an `Option` of a certificate is not larger.
    pub revision: NonZeroU64,
}

impl Certificate {
    /// The certificate that a record describes. Times are Unix seconds.
    pub(super) fn recorded(
        revision: u64,
        key: &[u8],
        serial: &[u8],
        begins_at: u64,
        ends_at: u64,
    ) -> Result<Certificate, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let key = fixed(key).ok_or(misfit("key"))?;
        let serial = fixed(serial).ok_or(misfit("serial number"))?;
        let revision = NonZeroU64::new(revision).ok_or(misfit("revision"))?;
        Ok(Certificate { key, serial, begins_at, ends_at, revision })
    }
}

/// A JWT-SVID that was permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The agent that it identifies.
    pub agent: Uuid,
    /// The audiences that may accept it.
    pub audiences: Vec<String>,
    /// Unique id.
    pub jti: [u8; 16],
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// The scopes of the token if they are fewer than the agent's; `None` means all of the agent's.
    pub narrowed: Option<Vec<String>>,
    /// SHA-256 of the certificate that its holder must prove. `None` for the token of an agent with a key of its own.
    pub certificate: Option<[u8; 32]>,
    /// Revision of its record.
    pub revision: u64,
}

impl Token {
    /// The token that a record describes.
    pub fn recorded(revision: u64, m: &record::Minted) -> Result<Token, Misfit> {
        let misfit = |what| Misfit { revision, what };
        Ok(Token {
            agent: Uuid::from_slice(&m.agent).map_err(|_| misfit("agent"))?,
            audiences: std::iter::once(&m.audience).chain(&m.further_audiences).cloned().collect(),
            jti: fixed(&m.jti).ok_or(misfit("jti"))?,
            issued_at: m.issued_at,
            ends_at: m.ends_at,
            narrowed: m.narrowed.then(|| m.scopes.clone()),
            certificate: match m.certificate.as_slice() {
                [] => None,
                digest => Some(fixed(digest).ok_or(misfit("certificate"))?),
            },
            revision,
        })
    }
}

/// The key or certificate that the holder of an access token must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The key of a DPoP proof, by its SHA-256 thumbprint (RFC 7638).
    Key([u8; 32]),
    /// A client certificate, by the SHA-256 of its DER.
    Certificate([u8; 32]),
}

impl Confirmation {
    /// Its member of the claim `cnf`: the name (RFC 9449 6.1, RFC 8705 3.1), and the bytes that its value encodes in base64url.
    pub fn member(&self) -> (&'static str, &[u8; 32]) {
        match self {
            Confirmation::Key(thumbprint) => ("jkt", thumbprint),
            Confirmation::Certificate(digest) => ("x5t#S256", digest),
        }
    }
}

/// An access token that was permitted (RFC 9068).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// The agent that it was issued to.
    pub agent: Uuid,
    /// The audience that may accept it.
    pub audience: String,
    /// Unique id.
    pub jti: [u8; 16],
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub ends_at: u64,
    /// Sorted.
    pub scopes: Vec<String>,
    /// Its `sub`.
    pub subject: String,
    /// The key or certificate that its holder must prove. `None` for a bearer token.
    pub confirmation: Option<Confirmation>,
    /// The actions that it allows: a JSON array in the form of RFC 8785, or empty.
    pub details: String,
    /// The approval that it uses, and the person who gave it. `None` if it needs none.
    pub approval: Option<([u8; 16], User)>,
    /// Revision of its record.
    pub revision: u64,
}

impl AccessToken {
    /// The token that a record describes.
    pub fn recorded(revision: u64, e: &record::Exchanged) -> Result<AccessToken, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let confirmation = match (e.confirmation.as_slice(), e.certificate.as_slice()) {
            ([], []) => None,
            (thumbprint, []) => Some(Confirmation::Key(fixed(thumbprint).ok_or(misfit("confirmation"))?)),
            ([], digest) => Some(Confirmation::Certificate(fixed(digest).ok_or(misfit("certificate"))?)),
            _ => return Err(misfit("confirmation")),
        };
        let approval = match (e.approval.as_slice(), &e.approved_by) {
            ([], None) => None,
            (id, Some(by)) => Some((fixed(id).ok_or(misfit("approval"))?, User { iss: by.iss.clone(), sub: by.sub.clone() })),
            _ => return Err(misfit("approval")),
        };
        Ok(AccessToken {
            agent: Uuid::from_slice(&e.agent).map_err(|_| misfit("agent"))?,
            audience: e.audience.clone(),
            jti: fixed(&e.jti).ok_or(misfit("jti"))?,
            issued_at: e.issued_at,
            ends_at: e.ends_at,
            scopes: e.scopes.clone(),
            subject: e.subject.clone(),
            confirmation,
            details: e.details.clone(),
            approval,
            revision,
        })
    }
}

/// The outcome of a request that came with a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// SHA-256 of the request.
    pub digest: [u8; 32],
    /// The agent, if the request was a spawn.
    pub agent: Option<Uuid>,
    /// The token, if the request was a mint, or a spawn with a first token.
    pub token: Option<Box<Token>>,
}
