//! The consent of a user: its proof, the delegation that records it, and whether the user is open.

use std::sync::Arc;

use mayfly_verify::{DelegationId, Stamp, Target, User, Workload, sha256};
use serde_json::json;

use super::id_jag::IdJag;
use super::{Ceiling, Chance, Check, Judgement, Note};
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record;
use crate::state::mandate::EVERYTHING;
use crate::state::{Delegation, View, seconds};

/// The proof that a user lets the caller act.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A token that was just verified.
    Token {
        /// The user.
        user: User,
        /// SHA-256 of the bytes that the signature covers. It identifies the token even if its signature is replaced by an
        /// equivalent one.
        proof: [u8; 32],
        /// SHA-256 of the whole token.
        token: [u8; 32],
        /// Unix seconds.
        issued_at: u64,
        /// When the token expires, in Unix seconds.
        ends_at: u64,
        /// The configured audience that it names. The rules at the time of judging say what such a token allows.
        audience: String,
        /// How the user signed in (`acr`). `None` if their provider did not say.
        acr: Option<String>,
        /// When the user signed in (`auth_time`), in Unix seconds. `None` if their provider did not say.
        signed_in_at: Option<u64>,
        /// The groups of the user, sorted.
        groups: Vec<String>,
        /// The name of the user in a `login_hint`. `None` if it is no claim of theirs.
        hint: Option<Box<str>>,
    },
    /// A token whose exact bytes were verified and recorded as a delegation before. The value is its SHA-256, as in
    /// `Token::proof`.
    Recorded([u8; 32]),
    /// A delegation that was recorded before and names the caller.
    Delegation(DelegationId),
    /// An ID-JAG that was just verified.
    IdJag(Box<IdJag>),
}

/// A verified token of either kind.
struct Fresh<'p> {
    user: &'p User,
    proof: &'p [u8; 32],
    token: &'p [u8; 32],
    issued_at: u64,
    ends_at: u64,
    audience: &'p str,
    acr: Option<&'p str>,
    signed_in_at: Option<u64>,
    groups: &'p [String],
    hint: Option<&'p str>,
    jag: Option<&'p IdJag>,
}

impl Proof {
    /// The ID-JAG that it is, if it is one.
    pub fn id_jag(&self) -> Option<&IdJag> {
        match self {
            Proof::IdJag(jag) => Some(jag),
            _ => None,
        }
    }

    fn fresh(&self) -> Option<Fresh<'_>> {
        match self {
            Proof::Token { user, proof, token, issued_at, ends_at, audience, acr, signed_in_at, groups, hint } => Some(Fresh {
                user,
                proof,
                token,
                issued_at: *issued_at,
                ends_at: *ends_at,
                audience,
                acr: acr.as_deref(),
                signed_in_at: *signed_in_at,
                groups,
                hint: hint.as_deref(),
                jag: None,
            }),
            Proof::IdJag(jag) => Some(Fresh {
                user: &jag.user,
                proof: &jag.proof,
                token: &jag.token,
                issued_at: jag.issued_at,
                ends_at: jag.ends_at,
                audience: &jag.audience,
                acr: jag.acr.as_deref(),
                signed_in_at: jag.signed_in_at,
                groups: &jag.groups,
                hint: jag.hint.as_deref(),
                jag: Some(jag),
            }),
            Proof::Recorded(_) | Proof::Delegation(_) => None,
        }
    }
}

/// The consent in a user's token, apart from a delegation that may record it.
#[derive(Clone, Debug)]
pub struct Consent {
    /// The user.
    pub user: User,
    /// SHA-256 of what the token's signature covers.
    pub proof: [u8; 32],
    /// Ceiling of scopes. `None` means no ceiling.
    pub scopes: Option<Vec<String>>,
    /// Unix seconds.
    pub ends_at: u64,
}

impl Judgement<'_> {
    /// The delegation behind a proof that `by` presents, and its record if the proof is new.
    pub fn grant(
        &mut self,
        by: &Workload,
        proof: &Proof,
        chance: &Chance,
    ) -> Result<(Arc<Delegation>, Option<record::Delegated>), No> {
        self.checking(Check::Grant);
        let at = self.at();
        let known = match proof {
            Proof::Token { proof, .. } | Proof::Recorded(proof) => self.view().delegation_by_proof(proof, at).cloned(),
            Proof::Delegation(id) => self.view().delegation(id, at).cloned(),
            // An ID-JAG can be used once, so an earlier delegation of it is not reused.
            Proof::IdJag(_) => None,
        };
        match (known, proof.fresh()) {
            (Some(known), _) => {
                self.check_recorded(by, &known, proof)?;
                Ok((known, None))
            }
            (None, Some(fresh)) => {
                let (scopes, ends_at) = self.allowed(by, &fresh)?;
                fresh.jag.map_or(Ok(()), |jag| self.check_once(jag))?;
                let user = fresh.user;
                // RFC 8785: members are sorted, without white space; there are only integers and strings.
                let mut canonical = json!({ "ends_at": ends_at, "iss": user.iss, "nonce": hex::encode(chance.nonce()),
                    "scopes": scopes, "sub": user.sub, "workload": by.to_string() });
                canonical.sort_all_objects();
                let body = record::Delegated {
                    id: sha256(canonical.to_string().as_bytes()).to_vec(),
                    iss: user.iss.clone(),
                    sub: user.sub.clone(),
                    workload: by.to_string(),
                    proof: fresh.proof.to_vec(),
                    token: fresh.token.to_vec(),
                    scopes_limited: scopes.is_some(),
                    scopes: scopes.unwrap_or_default(),
                    ends_at: seconds(ends_at),
                    acr: fresh.acr.unwrap_or_default().to_owned(),
                    signed_in_at: fresh.signed_in_at.unwrap_or(0),
                    groups: fresh.groups.to_vec(),
                    hint: fresh.hint.unwrap_or_default().to_owned(),
                    once: fresh.jag.map(|jag| jag.grant.once.to_vec()).unwrap_or_default(),
                    once_ends_at: fresh.jag.map_or(0, |jag| jag.ends_at),
                };
                let delegation = Delegation::recorded(self.view().revision() + 1, &body, self.view().salt())
                    .map_err(|e| Fault::new("judge", e))?;
                Ok((Arc::new(delegation), Some(body)))
            }
            (None, None) => match proof {
                Proof::Delegation(id) => Err(unknown_delegation(id).into()),
                _ => Err(Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token").into()),
            },
        }
    }

    /// The ceiling of scopes of a token, and when its consent ends, in Unix seconds. Fails if it allows `by` nothing.
    fn allowed(&self, by: &Workload, fresh: &Fresh<'_>) -> Result<(Option<Vec<String>>, u64), Denial> {
        let Ceiling { scopes, longest, .. } = self.check_fresh(by, fresh.user, fresh.issued_at, fresh.ends_at, fresh.audience)?;
        let scopes = fresh.jag.map_or_else(|| scopes.clone(), |jag| jag.narrow(scopes));
        // A delegation lasts no longer than the configured maximum, even if the provider's token does.
        Ok((scopes, fresh.ends_at.min(self.now().saturating_add(*longest))))
    }

    /// The consent in a token that is presented for a live agent below `by`. No delegation is recorded.
    pub fn consent(&mut self, by: &Workload, proof: &Proof) -> Result<Consent, No> {
        self.checking(Check::Grant);
        let at = self.at();
        let known = match proof {
            Proof::Token { proof, .. } | Proof::Recorded(proof) => self.view().delegation_by_proof(proof, at).cloned(),
            Proof::Delegation(_) | Proof::IdJag(_) => None,
        };
        match (known, proof.fresh()) {
            (Some(known), _) => {
                self.check_recorded(by, &known, proof)?;
                let Delegation { user, proof, scopes, ends_at, .. } = &*known;
                Ok(Consent { user: user.clone(), proof: *proof, scopes: scopes.clone(), ends_at: ends_at / SECOND })
            }
            (None, Some(fresh)) => {
                self.check_issuer(fresh.user)?;
                let (scopes, ends_at) = self.allowed(by, &fresh)?;
                Ok(Consent { user: fresh.user.clone(), proof: *fresh.proof, scopes, ends_at })
            }
            (None, None) => {
                Err(Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token").into())
            }
        }
    }

    /// Checks that a recorded delegation still lets `by` act.
    fn check_recorded(&mut self, by: &Workload, known: &Delegation, proof: &Proof) -> Result<(), Denial> {
        if known.workload != *by {
            // T13: an id is no proof, so a delegation of another caller looks as if it did not exist.
            if let Proof::Delegation(id) = proof {
                return Err(unknown_delegation(id));
            }
            self.note(Note::TokenOfAnother { recorded: known.workload.clone(), presented: by.clone() });
            let message = "this user token belongs to another workload: every workload brings its own";
            return Err(Denial::denied("USER_TOKEN_OF_ANOTHER", message));
        }
        self.check_issuer(&known.user)?;
        self.check_user(&known.user, None)?;
        let everything = Stamp { subject: *EVERYTHING, since: known.revision };
        if known.stamps().iter().chain([&everything]).any(|stamp| self.view().kills(stamp)) {
            let message = "what this user token allowed was revoked: bring one that was issued after that";
            return Err(Denial::denied("DELEGATION_REVOKED", message));
        }
        Ok(())
    }

    /// Checks that a token may record a delegation.
    fn check_fresh<'r>(
        &'r self,
        by: &Workload,
        user: &User,
        issued_at: u64,
        ends_at: u64,
        audience: &str,
    ) -> Result<&'r Ceiling, Denial> {
        // T165: the present configuration counts, not the one under which the token was verified.
        let ceiling = self.rules().tokens.get(&user.iss).and_then(|audiences| audiences.get(audience));
        let Some(ceiling) = ceiling.filter(|ceiling| ceiling.workloads.contains(by)) else {
            let message = format!("workload `{by}` may not present tokens of this audience");
            return Err(Denial::denied("USER_TOKEN_AUDIENCE", message));
        };
        self.check_user(user, Some(issued_at))?;
        if self.at() >= seconds(ends_at) {
            return Err(Denial::denied("USER_TOKEN_EXPIRED", "the user token has expired: bring a fresh one"));
        }
        Ok(ceiling)
    }

    /// Checks that the user and their issuer are open. A token must have been issued (Unix seconds) after the user's last
    /// revocation or reopening; `None` is for a recorded delegation.
    fn check_user(&self, user: &User, issued_at: Option<u64>) -> Result<(), Denial> {
        let standing = self.view().target(&Target::User(user.clone()));
        if standing.is_some_and(|s| s.closed) {
            return Err(Denial::denied("USER_CLOSED", "this user was revoked: an operator must reopen them"));
        }
        check_issuer_open(self.view(), &user.iss)?;
        issued_at.map_or(Ok(()), |issued_at| check_token(self.view(), user, issued_at))
    }
}

/// Checks that an issuer of users is open.
pub fn check_issuer_open(view: &impl View, iss: &str) -> Result<(), Denial> {
    if view.is_closed(&Target::Issuer(iss.to_owned())) {
        let message = "the issuer of this user was revoked: an operator must reopen it";
        return Err(Denial::denied("USER_ISSUER_CLOSED", message));
    }
    Ok(())
}

/// Checks that a user's token, issued at `issued_at` (Unix seconds), is from after their last revocation or reopening.
pub fn check_token(view: &impl View, user: &User, issued_at: u64) -> Result<(), Denial> {
    let of = |target: &Target| view.revoked_at(target);
    let since = of(&Target::User(user.clone())).max(of(&Target::Issuer(user.iss.clone()))).max(of(&Target::TrustDomain));
    // Tokens carry whole seconds, so a token from the second of the revocation may be from before it and is refused.
    if since.is_some_and(|since| issued_at <= since / SECOND) {
        let message = "the user token is from before the revocation of the user or of their issuer: bring a fresh one";
        return Err(Denial::denied("USER_TOKEN_TOO_EARLY", message));
    }
    Ok(())
}

fn unknown_delegation(id: &DelegationId) -> Denial {
    let message = format!("there is no delegation `{id}` that names this workload, or it has ended: bring a user token");
    Denial::new(Kind::NotFound, "DELEGATION_UNKNOWN", message)
}
