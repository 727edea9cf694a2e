//! A spawn as the history keeps it, so that a denial can be decided again: what was asked, on what, and when. No token, key or ticket is in
//! it, only the digests by which the journal knows them.

use mayfly_verify::{DelegationId, Mode, User};
use serde::{Deserialize, Serialize};

use super::{Credential, Spawn, SpawnRequest, TICKET_LIFE};
use crate::caller::Question;
use crate::judge::Proof;
use crate::judge::policy::Asked;

/// Longest request that is kept, in bytes. A longer one was denied for what no agent asks for.
const LONGEST: usize = 8 << 10;

/// A spawn that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskedSpawn {
    /// The journal's head when it was asked for.
    pub(crate) revision: u64,
    /// Unix microseconds.
    pub(crate) at: u64,
    class: String,
    scopes: Vec<String>,
    audiences: Vec<String>,
    lease: u64,
    depth: Option<u32>,
    clip: bool,
    mode: Option<String>,
    audience: String,
    /// A delegation that was named, in hex.
    delegation: Option<String>,
    /// The digest of a token that had recorded a delegation before, in hex.
    proof: Option<String>,
    token: Option<Token>,
}

/// What a fresh token of the user said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    iss: String,
    sub: String,
    proof: String,
    token: String,
    issued_at: u64,
    ends_at: u64,
    audience: String,
    acr: Option<String>,
    signed_in_at: Option<u64>,
    groups: Vec<String>,
}

impl Question for AskedSpawn {
    fn text(&self) -> String {
        serde_json::to_string(self).ok().filter(|text| text.len() <= LONGEST).unwrap_or_default()
    }
}

impl AskedSpawn {
    /// A request with its proof, on the journal's head at a time. `None` for an ID-JAG, which counts once, and for an agent without a key:
    /// what they rely on is proved by the connection.
    pub(super) fn new(request: &SpawnRequest, proof: Option<&Proof>, (revision, at): (u64, u64)) -> Option<AskedSpawn> {
        if matches!(proof, Some(Proof::IdJag(_))) || request.keyless.is_some() {
            return None;
        }
        let asked = &request.asked;
        let token = match proof {
            Some(Proof::Token { user, proof, token, issued_at, ends_at, audience, acr, signed_in_at, groups, .. }) => {
                Some(Token {
                    iss: user.iss.clone(),
                    sub: user.sub.clone(),
                    proof: hex::encode(proof),
                    token: hex::encode(token),
                    issued_at: *issued_at,
                    ends_at: *ends_at,
                    audience: audience.clone(),
                    acr: acr.clone(),
                    signed_in_at: *signed_in_at,
                    groups: groups.clone(),
                })
            }
            _ => None,
        };
        Some(AskedSpawn {
            revision,
            at,
            class: request.class.to_string(),
            scopes: asked.scopes.clone(),
            audiences: asked.audiences.clone(),
            lease: asked.lease,
            depth: asked.depth,
            clip: asked.clip,
            mode: asked.mode.map(|mode| mode.as_str().to_owned()),
            audience: request.audience.clone(),
            delegation: if let Some(Proof::Delegation(id)) = proof { Some(hex::encode(id.0)) } else { None },
            proof: if let Some(Proof::Recorded(proof)) = proof { Some(hex::encode(proof)) } else { None },
            token,
        })
    }

    /// What the history kept. `None` if it is of another version.
    pub(crate) fn parse(text: &str) -> Option<AskedSpawn> {
        serde_json::from_str(text).ok()
    }

    /// The spawn, with a ticket in place of the key.
    pub(crate) fn act(&self) -> Option<Spawn> {
        let digest = |text: &str| {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest).ok().map(|()| digest)
        };
        let proof = match (&self.delegation, &self.proof, &self.token) {
            (Some(id), None, None) => Some(Proof::Delegation(DelegationId(digest(id)?))),
            (None, Some(proof), None) => Some(Proof::Recorded(digest(proof)?)),
            (None, None, Some(token)) => Some(Proof::Token {
                user: User { iss: token.iss.clone(), sub: token.sub.clone() },
                proof: digest(&token.proof)?,
                token: digest(&token.token)?,
                issued_at: token.issued_at,
                ends_at: token.ends_at,
                audience: token.audience.clone(),
                acr: token.acr.clone(),
                signed_in_at: token.signed_in_at,
                groups: token.groups.clone(),
                // Decides nothing.
                hint: None,
            }),
            (None, None, None) => None,
            _ => return None,
        };
        let mode = match self.mode.as_deref() {
            None => None,
            Some(named) => Some([Mode::Delegated, Mode::Autonomous].into_iter().find(|mode| mode.as_str() == named)?),
        };
        Some(Spawn {
            class: self.class.parse().ok()?,
            credential: Credential::Ticket { nonce: [0; 16], hash: [0; 32], life: TICKET_LIFE },
            proof,
            asked: Asked {
                scopes: self.scopes.clone(),
                audiences: self.audiences.clone(),
                lease: self.lease,
                depth: self.depth,
                clip: self.clip,
                mode,
            },
            audience: Some(self.audience.clone()).filter(|audience| !audience.is_empty()),
            request: None,
        })
    }
}
