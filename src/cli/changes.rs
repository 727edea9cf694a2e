//! How differences between configurations are printed.

use mayfly_agent::api::v1::ConfigurationChange;
use serde_json::{Value, json};

/// One difference. `null` stands for a key that is not written.
pub(super) fn object(change: &ConfigurationChange) -> Value {
    let value = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let (before, after) = (value(&change.before), value(&change.after));
    json!({ "key": change.key, "before": before, "after": after, "needs_restart": change.needs_restart })
}

/// One line for each difference.
pub(super) fn lines(changes: &[ConfigurationChange]) -> Vec<String> {
    let line = |change: &ConfigurationChange| {
        let value = |text: &str| if text.is_empty() { "not written".to_owned() } else { text.to_owned() };
        let restart = if change.needs_restart { "  (needs a restart, and is kept until then)" } else { "" };
        format!("{}: {} -> {}{restart}", change.key, value(&change.before), value(&change.after))
    };
    changes.iter().map(line).collect()
}
