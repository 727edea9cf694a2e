//! What judging leaves for the operator: written to the log, or where there may be one for each request, counted.

use std::time::{Duration, Instant};

use crate::judge::Note;

/// Between two lines of the log about shadow policies. The metric counts every difference.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells of notes.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When the log last heard of a shadow policy.
    shadow: Option<Instant>,
}

impl Told {
    pub(super) fn tell(&mut self, note: &Note) {
        if let Note::ShadowDiffers { action, allowed, .. } = note {
            let outcome = if *allowed { "allowed" } else { "denied" };
            metrics::counter!("mayfly_policy_shadow_differs_total", "action" => action.as_str(), "outcome" => outcome)
                .increment(1);
            if self.shadow.is_some_and(|last| last.elapsed() < PAUSE) {
                return;
            }
            self.shadow = Some(Instant::now());
        }
        tracing::warn!("{note}");
    }
}
