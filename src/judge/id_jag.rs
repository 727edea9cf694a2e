//! What an ID-JAG lets an agent or a workload do. Each thing that it says is a ceiling that denies alone, and it is used once.

use mayfly_verify::User;

use super::action::{Action, all_within, read_actions};
use super::{Check, Judgement};
use crate::denial::Denial;

/// An ID-JAG that was verified just now.
#[derive(Clone, Debug)]
pub struct IdJag {
    /// The user.
    pub user: User,
    /// SHA-256 of what its signature covers.
    pub proof: [u8; 32],
    /// SHA-256 of the whole token.
    pub token: [u8; 32],
    /// Unix seconds.
    pub issued_at: u64,
    /// When it expires, in Unix seconds.
    pub ends_at: u64,
    /// The configured audience that it names.
    pub audience: String,
    /// How the user signed in. `None` if their provider did not say.
    pub acr: Option<String>,
    /// When the user signed in, in Unix seconds. `None` if their provider did not say.
    pub signed_in_at: Option<u64>,
    /// The groups of the user, sorted.
    pub groups: Vec<String>,
    /// The client that it was issued to.
    pub client: String,
    /// Who acts. `None` if it does not say.
    pub actor: Option<String>,
    /// Identifies it for its single use.
    pub once: [u8; 16],
    /// Ceiling of scopes. `None` if it does not say.
    pub scopes: Option<Vec<String>>,
    /// The resources that it is for. `None` if it does not say.
    pub resources: Option<Vec<String>>,
    /// The actions that it is for, as a JSON array. `None` if it has none.
    pub details: Option<String>,
    /// Thumbprint of the key that its holder must prove. `None` if there is none.
    pub key: Option<[u8; 32]>,
}

impl IdJag {
    /// Ceiling of scopes: what it says and what is configured for its provider.
    pub(super) fn narrow(&self, configured: &Option<Vec<String>>) -> Option<Vec<String>> {
        match (&self.scopes, configured) {
            (Some(said), Some(most)) => Some(said.iter().filter(|scope| most.contains(scope)).cloned().collect()),
            (Some(said), None) => Some(said.clone()),
            (None, configured) => configured.clone(),
        }
    }

    /// A delegation or a longer lease has no room for what it says of resources, actions and keys, so one that says it is refused.
    pub fn check_plain(&self) -> Result<(), Denial> {
        if self.resources.is_none() && self.details.is_none() && self.key.is_none() {
            return Ok(());
        }
        let message = "this ID-JAG is for one resource, for actions or for the holder of a key: exchange it for an access token, or bring \
                       one that has no `resource`, `authorization_details` or `cnf`";
        Err(Denial::denied("USER_TOKEN_RESOURCE", message))
    }

    /// Whether it is for this audience, and for no more than these actions.
    pub fn check_target(&self, audience: &str) -> Result<(), Denial> {
        let same = |resource: &String| resource.trim_end_matches('/') == audience.trim_end_matches('/');
        if self.resources.as_ref().is_none_or(|resources| resources.iter().any(same)) {
            return Ok(());
        }
        let message = format!("the ID-JAG is for other resources than `{audience}`");
        Err(Denial::denied("AUDIENCE_NOT_ALLOWED", message).with("excess", format!("audience:{audience}")))
    }
}

impl Judgement<'_> {
    /// Whether an ID-JAG may be presented by somebody with these names: the caller, and all for which it acts.
    pub fn check_id_jag(&self, jag: &IdJag, names: &[String]) -> Result<(), Denial> {
        self.checking(Check::Grant);
        // T245: an assertion for another authorization server is of no use here, whatever is configured.
        if self.rules().client_audience.as_ref() != Some(&jag.audience) {
            let message = "the audience of an ID-JAG is the URL of this issuer, and here it has another or none";
            return Err(Denial::denied("USER_TOKEN_AUDIENCE", message));
        }
        // T246: whoever presents it is the client that it was issued to, or acts for it; so is the actor that it names.
        let (client, actor) = (&jag.client, jag.actor.as_ref().unwrap_or(&jag.client));
        if !names.contains(client) || !names.contains(actor) {
            let message = "the `client_id` or `act` of the ID-JAG names neither the caller nor anybody it acts for";
            return Err(Denial::denied("USER_TOKEN_CLIENT", message));
        }
        Ok(())
    }

    /// Whether it was not used before. What uses it is recorded together with that.
    pub fn check_once(&self, jag: &IdJag) -> Result<(), Denial> {
        self.checking(Check::Grant);
        if self.view().assertion_used(&jag.once) {
            let message = "this ID-JAG was used before: get another, or use the delegation that it made";
            return Err(Denial::denied("USER_TOKEN_USED", message));
        }
        Ok(())
    }

    /// Whether an access token for these actions is within what an ID-JAG says of actions.
    pub fn check_actions(&self, jag: &IdJag, actions: &[Action]) -> Result<(), Denial> {
        let said = jag.details.as_deref().unwrap_or_default();
        let within = read_actions(&self.rules().actions, said).is_ok_and(|said| all_within(actions, &said));
        if (said.is_empty() && actions.is_empty()) || (within && !actions.is_empty()) {
            return Ok(());
        }
        let message = "the ID-JAG allows other actions than those that are asked for";
        Err(Denial::denied("ACTION_NOT_ALLOWED", message))
    }
}
