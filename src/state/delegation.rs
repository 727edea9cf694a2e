//! A delegation in the state.

use mayfly_verify::{DelegationId, Salt, Stamp, Subject, Target, User, Workload};

use super::{Misfit, fixed};
use crate::journal::record;

/// What a user lets a workload do. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// SHA-256 of its canonical JSON.
    pub id: DelegationId,
    /// The delegating user.
    pub user: User,
    /// The workload that it names.
    pub workload: Workload,
    /// SHA-256 of the bytes that the token's signature covers.
    pub proof: [u8; 32],
    /// SHA-256 of the whole token, as it was verified.
    pub token: [u8; 32],
    /// Ceiling of scopes. `None` means that the delegation adds no ceiling.
    pub scopes: Option<Vec<String>>,
    /// How the user signed in (`acr`). `None` if their provider did not say.
    pub acr: Option<Box<str>>,
    /// When the user signed in (`auth_time`), in Unix seconds. `None` if their provider did not say.
    pub signed_in_at: Option<u64>,
    /// The groups of the user, sorted, as their provider named them.
    pub groups: Box<[String]>,
    /// The name by which the provider knows the user in a `login_hint`. `None` if it is no claim of their tokens.
    pub hint: Option<Box<str>>,
    /// Unix microseconds.
    pub ends_at: u64,
    /// Revision of its record.
    pub revision: u64,
    // The subjects of its user and of their issuer, and its own.
    subjects: [Subject; 3],
}

impl Delegation {
    /// The delegation that a record describes, in an epoch of the journal with this salt.
    pub(crate) fn recorded(revision: u64, d: &record::Delegated, salt: &Salt) -> Result<Delegation, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let id = DelegationId(fixed(&d.id).ok_or(misfit("delegation id"))?);
        let user = User { iss: d.iss.clone(), sub: d.sub.clone() };
        Ok(Delegation {
            subjects: [
                Target::User(user.clone()).subject(salt),
                Target::Issuer(user.iss.clone()).subject(salt),
                Target::Delegation(id).unsalted(),
            ],
            id,
            user,
            workload: d.workload.parse().map_err(|_| misfit("workload"))?,
            proof: fixed(&d.proof).ok_or(misfit("proof"))?,
            token: fixed(&d.token).ok_or(misfit("token"))?,
            scopes: d.scopes_limited.then(|| d.scopes.clone()),
            acr: Some(d.acr.as_str()).filter(|acr| !acr.is_empty()).map(Box::from),
            signed_in_at: Some(d.signed_in_at).filter(|at| *at > 0),
            groups: d.groups.clone().into_boxed_slice(),
            hint: Some(d.hint.as_str()).filter(|hint| !hint.is_empty()).map(Box::from),
            ends_at: d.ends_at,
            revision,
        })
    }

    /// The subject of its user.
    pub fn user_subject(&self) -> Subject {
        let [user, ..] = self.subjects;
        user
    }

    /// The stamps of everything that relies on it.
    pub fn stamps(&self) -> [Stamp; 3] {
        self.subjects.map(|subject| Stamp { subject, since: self.revision })
    }
}
