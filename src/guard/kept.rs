//! A cache of credentials whose signatures were verified, by digest. An entry does not mean that a credential is valid *now*:
//! expiry and revocation are checked for every answer (T112).

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mayfly_verify::{AccessToken, Binding, JwtSvid, Principal, Reliance, SpiffeId, Unproved, X509Svid};

/// Slots of the cache. A digest has one slot, so the memory is bounded and a look-up takes no lock; two credentials with the same
/// slot replace each other.
const PLACES: usize = 4096;
/// Seconds after which signatures are verified again, because authorities expire too.
const AGE: u64 = 60;

/// A verified credential.
#[derive(Clone)]
pub(super) enum Svid {
    X509(Arc<X509Svid>),
    Jwt(Arc<JwtSvid>),
    Access(Arc<Access>),
}

/// A cache entry: a verified credential, or an access token whose holder has to prove possession in each request.
#[derive(Clone)]
pub(super) enum Verified {
    Svid(Svid),
    Access(Arc<Unproved>),
}

impl Verified {
    pub(super) fn reliance(&self) -> Reliance<'_> {
        match self {
            Verified::Svid(svid) => svid.reliance(),
            Verified::Access(token) => Reliance::from(&**token),
        }
    }
}

/// An access token whose holder has proved in this request the key or certificate that it is bound to.
pub(super) struct Access {
    pub(super) token: AccessToken,
    pub(super) id: SpiffeId,
    pub(super) principal: Principal,
}

impl Svid {
    pub(super) fn id(&self) -> &SpiffeId {
        match self {
            Svid::X509(svid) => &svid.id,
            Svid::Jwt(svid) => &svid.id,
            Svid::Access(access) => &access.id,
        }
    }

    pub(super) fn principal(&self) -> &Principal {
        match self {
            Svid::X509(svid) => &svid.principal,
            Svid::Jwt(svid) => &svid.principal,
            Svid::Access(access) => &access.principal,
        }
    }

    pub(super) fn binding(&self) -> Option<&Binding> {
        match self {
            Svid::X509(svid) => svid.binding.as_ref(),
            Svid::Jwt(svid) => svid.binding.as_ref(),
            Svid::Access(access) => Some(&access.token.binding),
        }
    }

    /// Unix seconds.
    pub(super) fn ends_at(&self) -> u64 {
        match self {
            Svid::X509(svid) => svid.not_after,
            Svid::Jwt(svid) => svid.expires_at,
            Svid::Access(access) => access.token.expires_at,
        }
    }

    pub(super) fn reliance(&self) -> Reliance<'_> {
        match self {
            Svid::X509(svid) => Reliance::from(&**svid),
            Svid::Jwt(svid) => Reliance::from(&**svid),
            Svid::Access(access) => Reliance::from(&access.token),
        }
    }
}

pub(super) struct Kept(Box<[ArcSwapOption<Entry>]>);

struct Entry {
    digest: [u8; 32],
    /// The generation of the bundles that verified it.
    generation: u64,
    /// Unix seconds.
    verified_at: u64,
    verified: Verified,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept((0..PLACES).map(|_| ArcSwapOption::empty()).collect())
    }
}

impl Kept {
    /// The credential with this digest, if it was verified by the bundles of this generation, not long ago.
    pub(super) fn get(&self, digest: &[u8; 32], generation: u64, now: u64) -> Option<Verified> {
        let entry = self.place(digest)?.load();
        let entry = entry.as_ref()?;
        let recent = entry.verified_at <= now && now - entry.verified_at < AGE;
        (entry.digest == *digest && entry.generation == generation && recent).then(|| entry.verified.clone())
    }

    pub(super) fn put(&self, digest: [u8; 32], generation: u64, now: u64, verified: Verified) {
        if let Some(place) = self.place(&digest) {
            place.store(Some(Arc::new(Entry { digest, generation, verified_at: now, verified })));
        }
    }

    fn place(&self, digest: &[u8; 32]) -> Option<&ArcSwapOption<Entry>> {
        let [a, b, ..] = digest;
        self.0.get(usize::from(u16::from_be_bytes([*a, *b])) % PLACES)
    }
}
