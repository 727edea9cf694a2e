//! The seal: the only way to a signature on an SVID. It takes a recorded permit, so that each is signed once, and nothing is signed
//! that is not durable.

use std::sync::Arc;

use super::{Authority, Signed};
use crate::csr::PublicKey;
use crate::denial::Fault;
use crate::judge::{Access, Admission, Certification, Mint};
use crate::ledger::Recorded;
use crate::svid;

/// Signs what is recorded.
pub struct Seal {
    authority: Arc<Authority>,
    iss: String,
}

impl Seal {
    /// A seal over the signing keys. `iss` is that of every token.
    pub fn new(authority: Arc<Authority>, iss: String) -> Seal {
        Seal { authority, iss }
    }

    /// An agent's certificate.
    pub fn agent(&self, permit: Recorded<Admission>, key: &PublicKey) -> Result<(Admission, Signed), Fault> {
        let unsigned = svid::x509::agent(&permit, key, self.authority.oid())?;
        let signed = self.authority.sign_x509(permit.authority(), &unsigned)?;
        Ok((permit.spend(), signed))
    }

    /// A workload's certificate.
    pub fn workload(&self, permit: Recorded<Certification>, key: &PublicKey) -> Result<(Certification, Signed), Fault> {
        let unsigned = svid::x509::workload(&permit, key, &self.authority.trust_domain)?;
        let signed = self.authority.sign_x509(permit.authority(), &unsigned)?;
        Ok((permit.spend(), signed))
    }

    /// An agent's token.
    pub fn token(&self, permit: Recorded<Mint>) -> Result<(Mint, String), Fault> {
        let unsigned = svid::jwt::agent(&permit, &self.iss, self.authority.oid())?;
        let token = self.authority.sign_jwt(permit.authority(), &unsigned)?;
        Ok((permit.spend(), token))
    }

    /// An agent's access token.
    pub fn access(&self, permit: Recorded<Access>) -> Result<(Access, String), Fault> {
        let unsigned = svid::access::agent(&permit, &self.iss, self.authority.oid())?;
        let token = self.authority.sign_jwt(permit.authority(), &unsigned)?;
        Ok((permit.spend(), token))
    }
}
