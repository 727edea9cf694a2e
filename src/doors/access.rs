//! Who may call what. One table, default deny: a method that is not listed is nobody's.

use mayfly_verify::WorkloadName;

use crate::caller::{Caller, Role};
use crate::denial::{Denial, Kind};

/// Method, and the roles that may call it.
pub const TABLE: &[(&str, &[Role])] = &[
    ("Identities/Redeem", &[Role::Stranger, Role::Workload]),
    ("Identities/Renew", &[Role::Agent, Role::Workload]),
    ("Identities/Spawn", &[Role::Agent, Role::Workload, Role::Foreign]),
    ("Identities/MintJwt", &[Role::Agent]),
    ("Identities/End", &[Role::Agent, Role::Workload, Role::Foreign, Role::Operator]),
    ("Batches/Spawn", &[Role::Agent, Role::Workload, Role::Foreign]),
    ("Operations/CreateJoinToken", &[Role::Operator]),
    ("Operations/Revoke", &[Role::Agent, Role::Workload, Role::Foreign, Role::User, Role::Operator]),
    ("Operations/Reopen", &[Role::Operator]),
    ("Operations/Backup", &[Role::Operator]),
    ("Inspection/ListAgents", &[Role::Workload, Role::Foreign, Role::Operator]),
    ("Inspection/GetAgent", &[Role::Agent, Role::Workload, Role::Foreign, Role::Operator]),
    ("Bundles/GetBundle", &[Role::Stranger, Role::Agent, Role::Workload, Role::Foreign, Role::Operator]),
    ("Bundles/WatchBundle", &[Role::Stranger, Role::Agent, Role::Workload, Role::Foreign, Role::Operator]),
    ("Revocations/WatchCuts", &[Role::Agent, Role::Workload, Role::Foreign, Role::Operator]),
    ("Revocations/ListCuts", &[Role::Operator]),
    ("Authorities/ListAuthorities", &[Role::Operator]),
    ("Authorities/PrepareAuthority", &[Role::Operator]),
    ("Authorities/ActivateAuthority", &[Role::Operator]),
    ("Authorities/RotateAuthority", &[Role::Operator]),
    ("Authorities/RetireAuthority", &[Role::Operator]),
    ("Authorities/TaintAuthority", &[Role::Operator]),
];

/// What metrics call the method of a path: the table's name, so that no caller makes labels.
pub fn method(path: &str) -> &'static str {
    let name = path.strip_prefix("/mayfly.v1.");
    TABLE.iter().find(|(method, _)| Some(*method) == name).map_or("other", |(method, _)| method)
}

/// Who calls, as the method takes them: a workload that is configured as an operator is one wherever operators may call, and
/// stays itself everywhere else.
pub fn acting(method: &str, caller: Caller, operators: &[WorkloadName]) -> Caller {
    let operates = TABLE.iter().any(|(m, roles)| *m == method && roles.contains(&Role::Operator));
    match &caller {
        Caller::Workload { name, .. } if operates && operators.contains(name) => Caller::Operator { name: caller.scope() },
        _ => caller,
    }
}

/// Lets a caller through, or says why not.
pub fn check(method: &str, caller: &Caller) -> Result<(), Denial> {
    let roles = TABLE.iter().find(|(m, _)| *m == method).map_or(&[][..], |(_, roles)| roles);
    if roles.contains(&caller.role()) {
        return Ok(());
    }
    match caller {
        Caller::Stranger => {
            let message = format!("{method} needs a client certificate: connect with the SVID of a workload or an agent");
            Err(Denial::new(Kind::Unauthenticated, "CERTIFICATE_NEEDED", message))
        }
        _ => Err(Denial::denied("ROLE_NOT_ALLOWED", format!("{method} is not for this kind of caller"))),
    }
}
