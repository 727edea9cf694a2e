//! The providers of users: that of development, and what explanations need of all.

use std::time::Duration;

use mayfly_verify::Workload;

use crate::acts::asking::Provider;
use crate::assertion::{AudienceSettings, IssuerSettings};
use crate::config::Config;
use crate::dev::provider;

/// The provider of development, for every workload.
pub(super) fn development(config: &Config, provider: &super::reload::Provider) -> IssuerSettings {
    let of = |audience: &str| AudienceSettings { workloads: spawners(config), ..AudienceSettings::new(audience) };
    let mut audiences = vec![
        of(provider::AUDIENCE),
        AudienceSettings { revokes: true, ..AudienceSettings::new(provider::REVOKES) },
        AudienceSettings { user: true, sign_in: true, ..AudienceSettings::new(provider::USER) },
    ];
    audiences.extend(provider.own.iter().map(|own| AudienceSettings { id_jag: true, ..of(own) }));
    audiences.extend(config.operator_audiences("dev"));
    IssuerSettings {
        ca_file: Some(provider.ca_file.clone()),
        audiences,
        max_age: Duration::from_secs(24 * 3600),
        groups: Some("groups".to_owned()),
        ..IssuerSettings::new("dev", provider.issuer.clone())
    }
}

/// Every workload of ours, and every foreign one that some class lists.
pub(super) fn spawners(config: &Config) -> Vec<Workload> {
    let foreign = config.classes.values().flat_map(|class| &class.workloads).filter(|w| matches!(w, Workload::Foreign(_)));
    config.workloads.iter().cloned().map(Workload::Own).chain(foreign.cloned()).collect()
}

/// The providers of users, one for each audience whose tokens workloads present.
pub(super) fn providers(config: &Config) -> Vec<Provider> {
    let of = |issuer: &IssuerSettings| {
        let audiences = issuer.audiences.iter().filter(|audience| !audience.workloads.is_empty());
        let provider = |audience: &AudienceSettings| Provider {
            name: issuer.name.clone(),
            iss: issuer.issuer.clone(),
            audience: audience.audience.clone(),
            workloads: audience.workloads.clone(),
            scopes: audience.scopes.clone(),
        };
        audiences.map(provider).collect::<Vec<_>>()
    };
    config.issuers.iter().flat_map(of).collect()
}
