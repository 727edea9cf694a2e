//! Why a user token is no proof.

/// Why a user token is refused. [`Refusal::IssuerUnavailable`] says nothing about the token and may be retried; all others are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not three base64url parts of JSON objects, or a member name occurs twice.
    #[error("the user token is no compact JWS of two JSON objects: send the token exactly as the provider issued it")]
    Malformed,
    /// Over [`MAX_TOKEN`](super::MAX_TOKEN) bytes.
    #[error("the user token has more than 16384 bytes: ask the provider for fewer claims")]
    TooLarge,
    /// A header member that would change how the token is checked or with which key.
    #[error(
        "the user token's header has a member that is not accepted (`crit`, `b64`, `jku`, `jwk`, `x5u`, `x5c`, `zip`, `enc`)"
    )]
    Header,
    /// Neither an ID token nor an RFC 9068 access token, or one that needs more than possession.
    #[error("the user token is neither an ID token nor an access token of type `at+jwt`")]
    Type,
    /// `iss` is not, byte for byte, a configured issuer.
    #[error("the user token's `iss` is no configured issuer")]
    IssuerUnknown,
    /// `alg` is not allowed, or not the algorithm of the key.
    #[error("the user token's `alg` is not allowed, or is not the algorithm of its key")]
    Algorithm,
    /// The issuer publishes no such key.
    #[error("the user token's key is not among the keys its issuer publishes")]
    KeyUnknown,
    /// The signature does not hold.
    #[error("the user token's signature does not hold")]
    Signature,
    /// A claim is missing, of the wrong JSON type, or out of range.
    #[error("a claim of the user token is missing or of the wrong form")]
    Claim,
    /// It already speaks of an actor; only the user's own token is a proof.
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
    /// Not exactly one configured audience.
    #[error("the user token's `aud` does not name exactly one configured audience")]
    Audience,
    /// The provider's keys cannot be had right now.
    #[error("the keys of the user token's issuer cannot be had at the moment: try again")]
    IssuerUnavailable,
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
            Refusal::Signature => "USER_TOKEN_SIGNATURE",
            Refusal::Claim => "USER_TOKEN_CLAIM",
            Refusal::Actor => "USER_TOKEN_ACTOR",
            Refusal::Expired => "USER_TOKEN_EXPIRED",
            Refusal::NotYetValid => "USER_TOKEN_NOT_YET_VALID",
            Refusal::TooOld => "USER_TOKEN_TOO_OLD",
            Refusal::Audience => "USER_TOKEN_AUDIENCE",
            Refusal::IssuerUnavailable => "USER_ISSUER_UNAVAILABLE",
        }
    }
}
