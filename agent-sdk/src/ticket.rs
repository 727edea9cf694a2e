//! Tickets: one string with everything that a first, safe connection needs.
//!
//! A ticket is `mayfly1.` and the base64url (without padding) of: version 1; length and address; length and trust domain (the
//! lengths in one byte each); SHA-256 of the root's key; secret. A ticket has exactly one spelling.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{MAX_TRUST_DOMAIN, TrustDomain};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::channel::{Address, ChannelSettings, Trust};

/// Every ticket begins with this.
pub const PREFIX: &str = "mayfly1.";

const VERSION: u8 = 1;
const KEY: usize = 32;
/// Bytes of the longest ticket before base64: it has two strings of at most 255 bytes.
const MAX: usize = 1 + (1 + 255) + (1 + 255) + KEY + KEY;

/// Why a string is not a ticket. The error never repeats the string, which may contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin with `mayfly`, a number and a dot.
    #[error("this is not a ticket: give the whole string, which begins with `{PREFIX}`, without spaces and line breaks")]
    NotATicket,
    /// It has another version.
    #[error("this ticket has an unknown version: use the client that belongs to the issuer's release")]
    Version,
    /// It was cut short, extended or changed.
    #[error("this ticket is damaged: copy the whole string again, without spaces and line breaks, or ask for a new one")]
    Damaged,
    /// Its address is not `host:port` with at most 255 bytes.
    #[error("the ticket's address is not host:port: ask the issuer's operator to correct the address it announces")]
    Address,
    /// Its trust domain is not valid, or not in canonical form.
    #[error("the ticket's trust domain is not valid: ask the issuer's operator for a new ticket")]
    TrustDomain,
}

impl TicketError {
    /// Stable label for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotATicket => "not_a_ticket",
            Self::Version => "version",
            Self::Damaged => "damaged",
            Self::Address => "address",
            Self::TrustDomain => "trust_domain",
        }
    }
}

/// The secret that redeems a ticket, once. It is zeroized on drop and has no `Debug`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; KEY]);

impl Secret {
    /// Makes a secret of 32 random bytes.
    pub fn new(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// The bytes, for `RedeemRequest.secret` and for their hash.
    pub fn expose(&self) -> &[u8; KEY] {
        &self.0
    }
}

/// The issuer's address, its root, and the secret. It has no `Debug`, because of the secret.
pub struct Ticket {
    address: String,
    trust_domain: TrustDomain,
    root: [u8; KEY],
    secret: Secret,
}

impl Ticket {
    /// Makes a ticket for the issuer at `address` (`host:port`, at most 255 bytes), whose root has this
    /// [pin](crate::channel::root_pin).
    pub fn new(address: &str, trust_domain: TrustDomain, root: [u8; KEY], secret: Secret) -> Result<Self, TicketError> {
        let address = Address::parse(address).map_err(|_| TicketError::Address)?.text().to_owned();
        if trust_domain.as_str().len() > MAX_TRUST_DOMAIN {
            return Err(TicketError::TrustDomain);
        }
        Ok(Self { address, trust_domain, root, secret })
    }

    /// Parses a ticket strictly: it is refused unless [`to_string`](Self::to_string) would write it in the same way.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let encoded = text.strip_prefix(PREFIX).ok_or_else(|| foreign(text))?;
        let mut buffer = Zeroizing::new([0; MAX]);
        // This fails if the ticket is longer than the buffer, has padding, or has bits that decoding would drop.
        let len = URL_SAFE_NO_PAD.decode_slice(encoded, buffer.as_mut_slice()).map_err(|_| TicketError::Damaged)?;
        let (version, rest) = buffer.get(..len).and_then(<[u8]>::split_first).ok_or(TicketError::Damaged)?;
        if *version != VERSION {
            return Err(TicketError::Version);
        }
        let (address, rest) = string(rest)?;
        let (name, rest) = string(rest)?;
        let (root, rest) = rest.split_first_chunk().ok_or(TicketError::Damaged)?;
        // INVARIANT: no bytes follow the secret.
        let secret = Secret(rest.try_into().map_err(|_| TicketError::Damaged)?);
        // `TrustDomain` also parses whole SPIFFE IDs.
        let trust_domain = TrustDomain::new(name).ok().filter(|td| td.as_str() == name).ok_or(TicketError::TrustDomain)?;
        Self::new(address, trust_domain, *root, secret)
    }

    /// The ticket as a string. It contains the secret, and is zeroized on drop.
    pub fn to_string(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX));
        bytes.push(VERSION);
        for text in [self.address.as_str(), self.trust_domain.as_str()] {
            // Both have at most 255 bytes, which was checked. A longer one would not parse.
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.secret.0);
        // Allocated in full at once: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + MAX.div_ceil(3) * 4));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        text
    }

    /// `host:port` of the issuer.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The issuer's trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// SHA-256 of the `SubjectPublicKeyInfo` of the issuer's root.
    pub fn root(&self) -> &[u8; KEY] {
        &self.root
    }

    /// The secret that redeems it.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Settings for the channel on which to redeem it: the root is pinned, and we present no certificate.
    pub fn channel_settings(&self, connect_timeout: Duration) -> ChannelSettings {
        ChannelSettings {
            address: self.address.clone(),
            trust_domain: self.trust_domain.clone(),
            trust: Trust::Pin(self.root),
            identity: None,
            connect_timeout,
        }
    }
}

/// The error for a string that does not begin with [`PREFIX`].
fn foreign(text: &str) -> TicketError {
    let number = text.strip_prefix("mayfly").and_then(|rest| rest.split_once('.')).map(|(number, _)| number);
    match number {
        Some(n) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => TicketError::Version,
        _ => TicketError::NotATicket,
    }
}

/// Splits off a length byte and that many bytes of UTF-8.
fn string(bytes: &[u8]) -> Result<(&str, &[u8]), TicketError> {
    let (len, rest) = bytes.split_first().ok_or(TicketError::Damaged)?;
    let (text, rest) = rest.split_at_checked(usize::from(*len)).ok_or(TicketError::Damaged)?;
    Ok((std::str::from_utf8(text).map_err(|_| TicketError::Damaged)?, rest))
}

#[cfg(test)]
mod tests;
