//! Names of classes, and of workloads of our own trust domain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NameError;

fn label(s: &str, max: usize) -> Result<String, NameError> {
    let ok = s.len() <= max
        && s.starts_with(|c: char| c.is_ascii_lowercase())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok { Ok(s.to_owned()) } else { Err(NameError::Label(s.chars().take(64).collect(), max)) }
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                label(s, $max).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label_type!(
    /// A kind of agent in the catalogue: `[a-z][a-z0-9-]*`, at most 32 characters.
    ClassName,
    32
);
label_type!(
    /// A long-lived program that may spawn agents: `[a-z][a-z0-9-]*`, at most 48 characters.
    WorkloadName,
    48
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t01_hostile_names_never_become_part_of_an_id() {
        for bad in ["..", ".", "a/b", "a//b", "%2e%2e", "a%2Fb", "a\\b", "a\0", "a\u{2024}b", "A", "", "-a", "1a", "ä"] {
            assert!(bad.parse::<ClassName>().is_err(), "class {bad}");
            assert!(bad.parse::<WorkloadName>().is_err(), "workload {bad}");
        }
        assert!("a".repeat(33).parse::<ClassName>().is_err());
        assert!("a".repeat(2049).parse::<WorkloadName>().is_err());
    }
}
