//! Why a user token is refused.

/// Why a user token is refused. [`Refusal::IssuerUnavailable`] and [`Refusal::Busy`] are not about the token, and the request may be
/// retried; all others are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The token does not have three base64url parts, header and payload are not JSON objects, or a member name occurs twice.
    #[error("the user token is not a compact JWS with two JSON objects: send the token exactly as the provider issued it")]
    Malformed,
    /// The token has more than [`MAX_TOKEN`](super::MAX_TOKEN) bytes.
    #[error("the user token has more than 16384 bytes: ask the provider for fewer claims")]
    TooLarge,
    /// The header has a member that would change how the token is checked, or with which key.
    #[error(
        "the user token's header has a member that is not accepted (`crit`, `b64`, `jwk`, `zip`, `enc`; without a `kid` also `jku`, `x5u`, \
         `x5c`)"
    )]
    Header,
    /// The token is neither an ID token nor an RFC 9068 access token, or it is bound to a key of its client.
    #[error("the user token is neither an ID token nor an access token of type `at+jwt`")]
    Type,
    /// `iss` does not equal the URL of a configured issuer, byte for byte.
    #[error("the user token's `iss` is not a configured issuer")]
    IssuerUnknown,
    /// `alg` is not allowed for the issuer, or is not an algorithm of the key.
    #[error("the user token's `alg` is not allowed, or is not an algorithm of its key")]
    Algorithm,
    /// The issuer publishes no key with the token's `kid`.
    #[error("the user token's key is not among the keys that its issuer publishes")]
    KeyUnknown,
    /// The token has no `kid`, and its issuer publishes several keys for its algorithm.
    #[error("the user token names no key and its issuer has several: let the provider send a `kid`")]
    KeyUnnamed,
    /// No key of the issuer verifies the signature.
    #[error("the user token's signature is not valid")]
    Signature,
    /// This claim is missing, of the wrong JSON type, or out of range.
    #[error("the claim `{0}` of the user token is missing or malformed")]
    Claim(&'static str),
    /// The token has an `act` claim, so it was issued to an actor and not to the user.
    #[error("the user token has an `act` claim: present the token that was issued to the user")]
    Actor,
    /// `exp` has passed.
    #[error("the user token has expired: obtain a new one")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("the user token is not yet valid: check the clocks of provider and issuer")]
    NotYetValid,
    /// `iat` is longer ago than the issuer's configuration allows.
    #[error("the user token was issued too long ago: obtain a new one")]
    TooOld,
    /// `aud` does not name exactly one configured audience, or `azp` names another.
    #[error("the user token's `aud` does not name exactly one configured audience")]
    Audience,
    /// The provider's keys cannot be fetched at the moment.
    #[error("the keys of the user token's issuer cannot be fetched at the moment: try again")]
    IssuerUnavailable,
    /// Too many tokens wait to be verified.
    #[error("too many user tokens wait to be verified: ask again in a moment")]
    Busy,
}

impl Refusal {
    /// The stable label of this reason.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Malformed => "USER_TOKEN_MALFORMED",
            Refusal::TooLarge => "USER_TOKEN_TOO_LARGE",
            Refusal::Header => "USER_TOKEN_HEADER",
            Refusal::Type => "USER_TOKEN_TYPE",
            Refusal::IssuerUnknown => "USER_TOKEN_ISSUER_UNKNOWN",
            Refusal::Algorithm => "USER_TOKEN_ALGORITHM",
            Refusal::KeyUnknown => "USER_TOKEN_KEY_UNKNOWN",
            Refusal::KeyUnnamed => "USER_TOKEN_KEY_UNNAMED",
            Refusal::Signature => "USER_TOKEN_SIGNATURE",
            Refusal::Claim(_) => "USER_TOKEN_CLAIM",
            Refusal::Actor => "USER_TOKEN_ACTOR",
            Refusal::Expired => "USER_TOKEN_EXPIRED",
            Refusal::NotYetValid => "USER_TOKEN_NOT_YET_VALID",
            Refusal::TooOld => "USER_TOKEN_TOO_OLD",
            Refusal::Audience => "USER_TOKEN_AUDIENCE",
            Refusal::IssuerUnavailable => "USER_ISSUER_UNAVAILABLE",
            Refusal::Busy => "BUSY",
        }
    }
}
