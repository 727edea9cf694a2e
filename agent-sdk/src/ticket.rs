//! A ticket: one string that holds enough to connect safely from nothing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::TrustDomain;
use zeroize::Zeroizing;

/// What a ticket begins with.
const PREFIX: &str = "mayfly1.";

/// Why a ticket is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no ticket: it begins with `mayfly1.` and is copied whole, without blanks")]
pub struct TicketError;

/// Address, trust domain, root and secret. Has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// `host:port` of the issuer.
    pub address: String,
    /// Of the issuer.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root's `SubjectPublicKeyInfo`.
    pub root: [u8; 32],
    /// What is redeemed, 256 bits.
    pub secret: Zeroizing<[u8; 32]>,
}

impl Ticket {
    /// Reads the string, exactly as it was printed.
    pub fn parse(text: &str) -> Result<Ticket, TicketError> {
        let body = text.strip_prefix(PREFIX).filter(|b| b.len() <= 1024).ok_or(TicketError)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| TicketError)?);
        let mut rest = bytes.as_slice();
        let address = String::from_utf8(short(&mut rest)?.to_vec()).map_err(|_| TicketError)?;
        let td = std::str::from_utf8(short(&mut rest)?).map_err(|_| TicketError)?;
        let (root, secret) = rest.split_at_checked(32).ok_or(TicketError)?;
        if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(TicketError);
        }
        Ok(Ticket {
            address,
            trust_domain: TrustDomain::new(td).map_err(|_| TicketError)?,
            root: root.try_into().map_err(|_| TicketError)?,
            secret: Zeroizing::new(secret.try_into().map_err(|_| TicketError)?),
        })
    }
}

fn short<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], TicketError> {
    let (length, after) = rest.split_first().ok_or(TicketError)?;
    let (part, after) = after.split_at_checked(usize::from(*length)).ok_or(TicketError)?;
    *rest = after;
    Ok(part)
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(Vec::with_capacity(128));
        for part in [self.address.as_bytes(), self.trust_domain.as_str().as_bytes()] {
            bytes.push(u8::try_from(part.len()).map_err(|_| fmt::Error)?);
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(self.secret.as_slice());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t03_a_ticket_is_read_exactly_or_not_at_all() {
        let secret = Zeroizing::new([7; 32]);
        let ticket =
            Ticket { address: "127.0.0.1:8443".into(), trust_domain: TrustDomain::new("td").unwrap(), root: [3; 32], secret };
        let text = ticket.to_string();
        assert!(Ticket::parse(&text).is_ok_and(|t| t == ticket));
        for bad in
            ["", "mayfly1.", &text[1..], &text[..text.len() - 1], &format!("{text} "), &format!("{text}A"), &text.to_uppercase()]
        {
            assert!(Ticket::parse(bad).is_err(), "{bad}");
        }
    }
}
