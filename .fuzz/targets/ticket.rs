//! A ticket has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_agent::ticket::{Secret, Ticket};
use mayfly_fuzz::{seed, td};

fuzz_target!(init: seed("ticket", tickets()), |text: &str| {
    if let Ok(ticket) = Ticket::parse(text) {
        assert_eq!(ticket.to_string().as_str(), text);
    }
});

fn tickets() -> impl Iterator<Item = Vec<u8>> {
    let of = |address| Ticket::new(address, td(), [7; 32], Secret::new([9; 32])).unwrap().to_string().as_bytes().to_vec();
    ["localhost:8443", "[::1]:1", "203.0.113.7:65535", "issuer.mayfly.example.org:443"].into_iter().map(of)
}
