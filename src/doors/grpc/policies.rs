//! The service of policies: the set in force, for operators.

use mayfly_agent::api::v1;
use tonic::{Request, Response, Status};

use super::server::policies_server::Policies;
use super::{Door, methods};
use crate::policies;

#[tonic::async_trait]
impl Policies for Door {
    async fn get_policies(&self, request: Request<v1::GetPoliciesRequest>) -> Result<Response<v1::GetPoliciesResponse>, Status> {
        self.run(methods::GET_POLICIES, request, |issuer, _, _| async move {
            let rules = issuer.ledger.rules();
            Ok(v1::GetPoliciesResponse {
                in_force: rules.policies.as_deref().map(set),
                shadow: rules.shadow.as_deref().map(set),
                class_owners: rules.classes.iter().map(|(name, class)| (name.to_string(), class.owner.clone())).collect(),
                providers: rules.issuers.clone().into_iter().collect(),
            })
        })
        .await
    }
}

fn set(of: &policies::Policies) -> v1::PolicySet {
    let text = |(file, text): &(String, String)| v1::PolicyText { file: file.clone(), text: text.clone() };
    v1::PolicySet { digest: of.digest().to_vec(), texts: of.texts().iter().map(text).collect() }
}
