//! Attest: the token of a workload's platform and a key become the first certificate of the workload, once.
//!
//! It is recorded as a ticket and its redemption, as if the token were a join token. So a token can be used once, its record is
//! dropped after it expires, and it is revoked by whatever revokes a join token.

use mayfly_verify::{Target, Workload, WorkloadName, sha256};

use super::redeem::{self, Permit, Source};
use super::{Certified, Issuer, configure};
use crate::assertion::{Attested, Refusal, Unattested};
use crate::authority::Seal;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::csr::Key;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Act, Certification, Chance, Check, Judgement, Note};
use crate::ledger::{Either, Recorded};
use crate::pipeline::{Behalf, Issue};
use crate::state::authority::Kind as AuthorityKind;
use crate::state::{Holder, State, View};
use std::sync::Arc;

/// The attestation of a workload.
#[derive(Clone, Debug)]
pub struct Attest {
    /// What the token says.
    pub attested: Attested,
    /// SHA-256 of the whole token.
    pub token: [u8; 32],
    /// The key that is to be certified.
    pub key: Key,
    /// The number of the rules by which the token proved its workload.
    pub number: u64,
}

/// A certificate for a workload, by the token of its platform. `workload` may be empty if the token proves only one.
pub async fn attest(issuer: &Issuer, token: &str, workload: &str, csr: Vec<u8>) -> Result<Certified, No> {
    let asked: Option<WorkloadName> = match workload {
        "" => None,
        name => Some(name.parse().map_err(|_| Denial::malformed("WORKLOAD_MALFORMED", "the name of the workload is malformed"))?),
    };
    let mut tries = 0;
    loop {
        let providers = issuer.providers.load_full();
        let attested = providers.attestations.verify(token, issuer.clock.seconds(), asked.as_ref()).await.map_err(refused)?;
        issuer.throttle_attestation(&attested.workload)?;
        let (token, key) = (sha256(token.as_bytes()), Key::Request(csr.clone()));
        let answer = issuer.pipeline.issue(Caller::Stranger, Attest { attested, token, key, number: providers.number }).await;
        tries += 1;
        match answer {
            // T165: the configuration was replaced meanwhile, so the request is decided again by the new one.
            Err(No::Denial(denial)) if denial.code == configure::CHANGED && tries < configure::TRIES => {}
            answer => return answer,
        }
    }
}

impl Attest {
    /// The key under which the use of the token is recorded. It cannot equal the hash of a ticket's secret, because of its prefix.
    fn hash(&self) -> [u8; 32] {
        sha256(&[b"mayfly: the token of a platform\n".as_slice(), &self.attested.proof].concat())
    }
}

impl Act for Attest {
    type Permit = Permit;

    fn judge(&self, j: &mut Judgement<'_>, _: &Caller, chance: &Chance) -> Result<Permit, No> {
        configure::check_number(j, self.number)?;
        let (hash, name) = (self.hash(), &self.attested.workload);
        let key = self.key.proved()?.digest();
        j.check_key(&key)?;
        j.checking(Check::WorkloadKnown);
        if !j.rules().workloads.contains(name) {
            let message = format!("workload `{name}` is not configured: add it to `workloads` in the file");
            return Err(Denial::new(Kind::NotFound, "WORKLOAD_UNKNOWN", message).into());
        }
        j.check_workload(&Workload::Own(name.clone()))?;
        j.checking(Check::Ticket);
        if j.at() >= crate::state::seconds(self.attested.ends_at) {
            return Err(
                Denial::denied("WORKLOAD_TOKEN_EXPIRED", "the token has expired: get a fresh one from the platform").into()
            );
        }
        // Tokens carry whole seconds, so a token from the second of the revocation may be from before it and is refused.
        let of = |target: &Target| j.view().revoked_at(target);
        let since = of(&Target::Workload(Workload::Own(name.clone()))).max(of(&Target::TrustDomain));
        if since.is_some_and(|since| self.attested.issued_at <= since / SECOND) {
            let message = "the token is from before the workload's revocation: get a fresh one from the platform";
            return Err(Denial::denied("WORKLOAD_TOKEN_EXPIRED", message).into());
        }
        if let Some(ticket) = j.view().ticket(&hash).cloned() {
            // The same key gets the same answer; another key belongs to somebody who should not have the token.
            let same = matches!(&ticket.holder, Holder::Workload(of) if of == name);
            if let Some(certificate) = ticket.redeemed.filter(|certificate| same && certificate.key == key) {
                let authority = Arc::clone(&j.signer(AuthorityKind::X509)?.id);
                return Ok(Either::First(Certification::new(name.clone(), certificate, authority)));
            }
            j.note(Note::WorkloadTokenReused(name.clone()));
            let message = "this token has been used with another key: get a fresh one from the platform";
            return Err(Denial::denied("WORKLOAD_TOKEN_USED", message).into());
        }
        let source = Source::Token { hash, token: self.token, attested: &self.attested };
        redeem::certify(j, &Caller::Stranger, name, key, source, chance).map(Either::First)
    }
}

impl Issue for Attest {
    type Answer = Certified;

    fn behalf<'a>(&'a self, _: &'a State) -> Behalf<'a> {
        Behalf::Workload(&self.attested.workload)
    }

    fn prove(&mut self) -> Result<(), Denial> {
        self.key.prove()
    }

    fn sign(&self, permit: Recorded<Permit>, seal: &Seal) -> Result<Certified, Fault> {
        redeem::sign(permit, &self.key, seal)
    }

    fn look_again(answer: &Certified, state: &State) -> Result<(), Denial> {
        redeem::look_again(answer, state)
    }
}

fn refused(why: Unattested) -> Denial {
    let refusal = match why {
        Unattested::Unmatched => {
            let message = "the token does not have the claims of a workload: its operator can list them under `attest`";
            return Denial::denied("WORKLOAD_TOKEN_UNMATCHED", message);
        }
        Unattested::Ambiguous => {
            let message = "the token has the claims of several workloads: say which";
            return Denial::denied("WORKLOAD_TOKEN_UNMATCHED", message);
        }
        Unattested::Token(refusal) => refusal,
    };
    let message = refusal.to_string().replace("the user token", "the token").replace("user tokens", "tokens");
    match refusal {
        Refusal::IssuerUnavailable => Denial::new(Kind::Unavailable, "WORKLOAD_ISSUER_UNAVAILABLE", message),
        Refusal::Busy => Denial::new(Kind::Exhausted, "BUSY", message),
        Refusal::Expired | Refusal::TooOld => Denial::denied("WORKLOAD_TOKEN_EXPIRED", message),
        _ => Denial::denied("WORKLOAD_TOKEN_REFUSED", message),
    }
}
