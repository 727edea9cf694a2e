//! The key or certificate to which an access token is bound. It depends on the configuration of the audience and on the keys that
//! the client proves (RFC 8705, 9449).

use mayfly_verify::Possession;

use super::Judgement;
use crate::denial::Denial;
use crate::state::Confirmation;

/// What the tokens for an audience must be bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// To nothing, unless the client sends a DPoP proof.
    #[default]
    None,
    /// To the client certificate of the connection.
    Certificate,
    /// To the key of a DPoP proof.
    Key,
    /// To either of the two: the key if there is a proof, otherwise the certificate.
    Either,
}

/// Every kind, with the name that a configuration has for it.
pub const BOUNDS: [(&str, Bound); 4] =
    [("none", Bound::None), ("mtls", Bound::Certificate), ("dpop", Bound::Key), ("any", Bound::Either)];

/// The keys that a client has proved to hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proved {
    /// The key or certificate that its token can be bound to.
    pub held: Possession,
    /// Unix seconds at which its certificate expires.
    pub certificate_ends_at: u64,
}

impl Judgement<'_> {
    /// What a token for an audience is bound to, and when that expires, in Unix seconds. Fails if the audience requires bound
    /// tokens, and the client has proved no suitable key.
    pub fn bind(&self, audience: &str, proved: &Proved) -> Result<(Option<Confirmation>, u64), Denial> {
        let bound = self.rules().audiences.get(audience).map_or(Bound::None, |known| known.bound);
        bind(bound, proved)
    }
}

fn bind(bound: Bound, proved: &Proved) -> Result<(Option<Confirmation>, u64), Denial> {
    let needed = |what: &str| {
        let message = format!("tokens for this audience are bound: {what}");
        Err(Denial::denied("TOKEN_BINDING_NEEDED", message))
    };
    // RFC 8705 3: the token can only be used on a connection with the certificate, so it need not outlast it.
    let certificate = |digest| Ok((Some(Confirmation::Certificate(digest)), proved.certificate_ends_at));
    match (bound, proved.held.key, proved.held.certificate) {
        (Bound::Certificate, _, Some(digest)) | (Bound::Either, None, Some(digest)) => certificate(digest),
        (Bound::None | Bound::Key | Bound::Either, Some(thumbprint), _) => Ok((Some(Confirmation::Key(thumbprint)), u64::MAX)),
        (Bound::None, None, _) => Ok((None, u64::MAX)),
        (Bound::Certificate, _, None) => needed("ask with the agent's certificate, at an address of `mtls_endpoint_aliases`"),
        (Bound::Key, None, _) => needed("send a DPoP proof to the token endpoint"),
        (Bound::Either, None, None) => needed("send a DPoP proof, or ask with the agent's certificate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t188_an_audience_that_wants_bound_tokens_gets_no_others() {
        let (key, certificate) = ([1; 32], [2; 32]);
        let to = |bound, key, certificate| {
            let proved = Proved { held: Possession { key, certificate }, certificate_ends_at: 9 };
            bind(bound, &proved).map_err(|denial| denial.code)
        };
        let (of_key, of_certificate) =
            (Ok((Some(Confirmation::Key(key)), u64::MAX)), Ok((Some(Confirmation::Certificate(certificate)), 9)));
        let needed = Err("TOKEN_BINDING_NEEDED");
        for (bound, nothing, with_key, with_certificate, with_both) in [
            (Bound::None, Ok((None, u64::MAX)), of_key, Ok((None, u64::MAX)), of_key),
            (Bound::Certificate, needed, needed, of_certificate, of_certificate),
            (Bound::Key, needed, of_key, needed, of_key),
            (Bound::Either, needed, of_key, of_certificate, of_key),
        ] {
            assert_eq!(to(bound, None, None), nothing, "{bound:?}");
            assert_eq!(to(bound, Some(key), None), with_key, "{bound:?}");
            assert_eq!(to(bound, None, Some(certificate)), with_certificate, "{bound:?}");
            assert_eq!(to(bound, Some(key), Some(certificate)), with_both, "{bound:?}");
        }
    }
}
