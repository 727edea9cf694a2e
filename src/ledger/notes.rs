//! Reports the notes for the operator: writes them to the log, or counts them if there may be one for each request.

use std::time::{Duration, Instant};

use crate::judge::Note;

/// Least time between two log lines about candidate policies. The metric counts every difference.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells of notes.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When a difference of the candidate policies was last logged.
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
