//! Room 6: what is to be signed. From a recorded permit to an unsigned document; nothing else leads here.

pub mod jwt;
pub mod x509;
