//! The renewal of an identity in its folder, which `renew`, `keep` and `relay` share.

use std::path::Path;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::validity::{self, Validity};

use super::connect;
use super::exit::{Failure, UNREACHABLE};
use super::global::Global;
use crate::folder::{self, Key, Locked};
use crate::follow;

/// How long to wait for another program that renews the same folder.
const LOCKED: Duration = Duration::from_secs(30);
/// Time limit for the issuer's answer.
const ANSWER: Duration = Duration::from_secs(15);

/// When an identity is renewed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Now.
    Now,
    /// If half of the certificate's life has passed.
    Due,
}

/// Renews the identity in a folder, under the folder's lock. `None` if it is not due, perhaps because another program has just
/// renewed it.
pub(super) async fn renew(
    global: &Global,
    server: Option<&str>,
    dir: &Path,
    when: When,
) -> Result<Option<v1::RenewResponse>, Failure> {
    // The lock would make a missing folder, so this is checked first.
    folder::identity(dir)?;
    // ORDER: the folder is locked before the certificate is read. The issuer would refuse one that another program has just
    // replaced.
    let locked = Locked::soon(dir, LOCKED).await.map_err(|e| e.to_string())?;
    let settings = connect::settings(global, server, dir)?;
    if when == When::Due && validity_of(dir)?.half() > validity::now() {
        return Ok(None);
    }
    let (key, address) = (Key::new()?, settings.address.clone());
    let mut client = IdentitiesClient::new(mayfly_agent::channel::connect(settings).await?);
    let answer = client.renew(v1::RenewRequest { csr: key.csr.clone() });
    let Ok(got) = tokio::time::timeout(ANSWER, answer).await else {
        return Err(Failure::new(UNREACHABLE, "the issuer did not answer in time"));
    };
    let got = got?.into_inner();
    let svid = got.svid.as_ref().ok_or_else(Failure::incomplete_answer)?;
    let bundle = got.bundle.as_ref().ok_or_else(Failure::incomplete_answer)?;
    folder::write_locked(&locked, &key, svid, bundle, Some(&address))?;
    if got.agent.is_none() {
        follow::present(connect::settings(global, server, dir)?).await;
    }
    Ok(Some(got))
}

/// From when and until when the certificate in a folder is valid.
pub(super) fn validity_of(dir: &Path) -> Result<Validity, Failure> {
    Ok(folder::validity(dir)?)
}
