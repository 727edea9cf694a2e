//! The service of operations: join tokens, revocation, reopening, backup, and the configuration.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::message::timestamp;
use super::server::operations_server::Operations;
use super::{Door, methods, targets};
use crate::acts::{backup, configure, join, reopen, revoke};
use crate::clock::SECOND;
use crate::denial::Denial;

#[tonic::async_trait]
impl Operations for Door {
    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        self.run(methods::CREATE_JOIN_TOKEN, request, |issuer, caller, r| async move {
            let workload: mayfly_verify::WorkloadName = r
                .workload
                .parse()
                .map_err(|e: mayfly_verify::NameError| Denial::malformed("WORKLOAD_MALFORMED", e.to_string()))?;
            let id = mayfly_verify::workload_id(&issuer.trust_domain, &workload);
            let (ticket, joinable) = join::join_token(&issuer, caller, workload, r.ttl_seconds).await?;
            Ok(v1::CreateJoinTokenResponse {
                token: ticket.to_string().to_string(),
                workload_id: id,
                expires_at: Some(timestamp(joinable.ends_at / SECOND)),
                revision: joinable.revision,
            })
        })
        .await
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        self.run_for(
            methods::REVOKE,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let what = targets::revoked(&issuer, r.target)?;
                let how = revoke::How { reason: r.reason, allow_new: r.allow_new };
                // ORDER: before the revocation, after which every user is known.
                let unknown_user = revoke::is_unknown_user(&issuer, &what);
                if r.dry_run {
                    let (revoked, reach) = revoke::would_end(&issuer, caller, what, how).await?;
                    return Ok(v1::RevokeResponse { unknown_user, ..targets::would_end(&issuer, &revoked, reach) });
                }
                let revoked = revoke::revoke(&issuer, caller, what, how).await?;
                Ok(v1::RevokeResponse { unknown_user, ..targets::receipt(&revoked) })
            },
        )
        .await
    }

    async fn reopen(&self, request: Request<v1::ReopenRequest>) -> Result<Response<v1::ReopenResponse>, Status> {
        self.run_for(
            methods::REOPEN,
            request,
            |r| &r.user_token,
            |issuer, caller, r| async move {
                let reopened = reopen::reopen(&issuer, caller, targets::reopened(&issuer, r.target)?).await?;
                let recorded_at = Some(timestamp(reopened.at / SECOND));
                Ok(v1::ReopenResponse { revision: reopened.revision, recorded_at })
            },
        )
        .await
    }

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<v1::BackupResponse>, Status> {
        self.run(methods::BACKUP, request, |issuer, _, r| async move {
            let backup::Copied { revision, bytes, path } = backup::backup(&issuer, &r.name).await?;
            Ok(v1::BackupResponse { revision, bytes, path: path.display().to_string() })
        })
        .await
    }

    async fn reload(&self, request: Request<v1::ReloadRequest>) -> Result<Response<v1::ReloadResponse>, Status> {
        self.run(methods::RELOAD, request, |issuer, caller, _| async move {
            let configure::Reloaded { revision, changes } = issuer.configuration.reload(caller).await?;
            Ok(v1::ReloadResponse { revision, changes: changes.into_iter().map(change).collect() })
        })
        .await
    }

    async fn compare_configuration(
        &self,
        request: Request<v1::CompareConfigurationRequest>,
    ) -> Result<Response<v1::CompareConfigurationResponse>, Status> {
        self.run(methods::COMPARE_CONFIGURATION, request, |issuer, _, r| async move {
            let configure::Compared { changes, agents, affected } = issuer.configuration.compare(r.text, r.name).await?;
            let affects = |a: configure::Affected| v1::AffectedAgent { agent_id: a.agent, loses: a.loses };
            Ok(v1::CompareConfigurationResponse {
                changes: changes.into_iter().map(change).collect(),
                agents: agents.into_iter().map(affects).collect(),
                agents_affected: affected,
            })
        })
        .await
    }
}

fn change(change: configure::Change) -> v1::ConfigurationChange {
    let configure::Change { key, before, after, needs_restart } = change;
    v1::ConfigurationChange { key, before, after, needs_restart }
}
