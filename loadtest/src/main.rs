//! Measures a Mayfly issuer against the floor of this machine.

fn main() {}
