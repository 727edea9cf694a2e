//! An identity that the issuer has just certified: written into a folder, and reported.

use std::path::Path;

use mayfly_agent::api::v1;
use serde_json::json;

use super::exit::Failure;
use super::output::{self, Format};
use crate::folder::{self, Key};

/// The result of redeeming a ticket or renewing an identity.
pub(super) struct Certified {
    svid: Option<v1::X509Svid>,
    bundle: Option<v1::Bundle>,
    /// `None` for a workload.
    agent: Option<v1::Agent>,
    revision: u64,
}

impl From<v1::RedeemResponse> for Certified {
    fn from(got: v1::RedeemResponse) -> Certified {
        Certified { svid: got.svid, bundle: got.bundle, agent: got.agent, revision: got.revision }
    }
}

impl From<v1::AttestResponse> for Certified {
    fn from(got: v1::AttestResponse) -> Certified {
        Certified { svid: got.svid, bundle: got.bundle, agent: None, revision: got.revision }
    }
}

impl From<v1::RenewResponse> for Certified {
    fn from(got: v1::RenewResponse) -> Certified {
        Certified { svid: got.svid, bundle: got.bundle, agent: got.agent, revision: got.revision }
    }
}

impl Certified {
    /// Writes the identity with its key into a folder, and prints it. `issuer` is `host:port`.
    pub(super) fn save(self, format: Format, dir: &Path, key: &Key, issuer: &str) -> Result<(), Failure> {
        let svid = self.svid.as_ref().ok_or_else(Failure::incomplete_answer)?;
        let bundle = self.bundle.as_ref().ok_or_else(Failure::incomplete_answer)?;
        folder::write(dir, key, svid, bundle, Some(issuer))?;
        self.report(format, dir)
    }

    /// Prints whose the identity in a folder is and how long it is valid.
    pub(super) fn report(self, format: Format, dir: &Path) -> Result<(), Failure> {
        let svid = self.svid.ok_or_else(Failure::incomplete_answer)?;
        let expires_at = output::timestamp(svid.expires_at.as_ref());
        let mut object = self.agent.as_ref().map_or_else(|| json!({}), output::agent::object);
        output::insert(&mut object, "spiffe_id", svid.spiffe_id.as_str());
        output::insert(&mut object, "svid_expires_at", expires_at.as_str());
        output::insert(&mut object, "revision", self.revision);
        output::print(format, &object, || format!("{} until {expires_at}, in {}", svid.spiffe_id, dir.display()))
    }
}
