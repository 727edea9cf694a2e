//! The rules by which acts are judged, from the configuration.

use super::Config;
use crate::assertion::AudienceSettings;
use crate::judge::{Ceiling, Rules};

/// Longest delegation by default, in seconds: thirty days.
const LONGEST: u64 = 30 * 86_400;

impl Config {
    /// The rules of this configuration. `client_audience` is the audience of JWT-SVIDs for our own endpoints, `number` counts the
    /// reloads of this process.
    pub fn rules(&self, client_audience: Option<String>, number: u64) -> Rules {
        let ceiling = |a: &AudienceSettings| Ceiling {
            workloads: a.workloads.clone(),
            scopes: a.scopes.clone(),
            longest: a.max_lease.map_or(LONGEST, |most| most.as_secs()),
        };
        Rules {
            trust_domain: self.trust_domain.clone(),
            number,
            classes: self.classes.clone(),
            audiences: self.audiences.clone(),
            workloads: self.workloads.clone(),
            issuers: self.issuers.iter().map(|issuer| (issuer.issuer.clone(), issuer.name.clone())).collect(),
            tokens: (self.issuers.iter())
                .map(|issuer| {
                    let audiences = issuer.audiences.iter().map(|a| (a.audience.clone(), ceiling(a)));
                    (issuer.issuer.clone(), audiences.collect())
                })
                .collect(),
            serves: self.serves.clone(),
            gateways: self.gateways.clone(),
            client_audience,
            operators: self.operators.clone(),
            auditors: self.auditors.clone(),
            assignments: self.assignments.clone(),
            actions: self.actions.clone(),
            waiting: self.waiting,
            limits: self.limits.clone(),
            workload_ttl: self.workload_ttl,
            jwt_ttl: self.jwt_ttl,
            publish_ahead: self.schedule(0).ahead,
            taken_back: self.taken_back,
            policies: self.policies.clone(),
            shadow: self.shadow.clone(),
        }
    }
}
