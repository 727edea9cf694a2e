//! The consent in an ID-JAG. Each of its claims is a limit by itself, and it can be used once.

use mayfly_verify::User;

use super::action::{Action, all_within, read_actions};
use super::{Check, Judgement};
use crate::claims::Grant;
use crate::denial::Denial;

/// A verified ID-JAG.
#[derive(Clone, Debug)]
pub struct IdJag {
    /// The user.
    pub user: User,
    /// SHA-256 of the bytes that its signature covers.
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
    /// The name of the user in a `login_hint`. `None` if it is no claim, or is missing.
    pub hint: Option<Box<str>>,
    /// What it grants.
    pub grant: Grant,
}

impl IdJag {
    /// Ceiling of scopes: its own, limited by that of the provider's configuration.
    pub(super) fn narrow(&self, configured: &Option<Vec<String>>) -> Option<Vec<String>> {
        match (&self.grant.scopes, configured) {
            (Some(said), Some(most)) => Some(said.iter().filter(|scope| most.contains(scope)).cloned().collect()),
            (Some(said), None) => Some(said.clone()),
            (None, configured) => configured.clone(),
        }
    }

    /// Refuses an ID-JAG with resources, actions or a key. A delegation or a longer lease could not keep these limits.
    pub fn check_plain(&self) -> Result<(), Denial> {
        let Grant { resources, details, key, .. } = &self.grant;
        if resources.is_none() && details.is_none() && key.is_none() {
            return Ok(());
        }
        let message = "this ID-JAG is for one resource, for actions or for the holder of a key: exchange it for an access token, or bring \
                       one that has no `resource`, `authorization_details` or `cnf`";
        Err(Denial::denied("USER_TOKEN_RESOURCE", message))
    }

    /// Checks that it is for this audience.
    pub fn check_target(&self, audience: &str) -> Result<(), Denial> {
        let same = |resource: &String| resource.trim_end_matches('/') == audience.trim_end_matches('/');
        if self.grant.resources.as_ref().is_none_or(|resources| resources.iter().any(same)) {
            return Ok(());
        }
        let message = format!("the ID-JAG is for other resources than `{audience}`");
        Err(Denial::denied("AUDIENCE_NOT_ALLOWED", message).with("excess", format!("audience:{audience}")))
    }
}

impl Judgement<'_> {
    /// Checks that an ID-JAG may be presented under these names: the caller, and those for which it acts.
    pub fn check_id_jag(&self, jag: &IdJag, names: &[String]) -> Result<(), Denial> {
        self.checking(Check::Grant);
        // T245: an assertion for another authorization server is refused, whatever is configured.
        if self.rules().client_audience.as_ref() != Some(&jag.audience) {
            let message = "the audience of an ID-JAG is the URL of this issuer, and here it has another or none";
            return Err(Denial::denied("USER_TOKEN_AUDIENCE", message));
        }
        // T246: the names must include the client that it was issued to, and the actor that it names.
        let (client, actor) = (&jag.grant.client, jag.grant.actor.as_ref().unwrap_or(&jag.grant.client));
        if !names.contains(client) || !names.contains(actor) {
            let message = "the `client_id` or `act` of the ID-JAG names neither the caller nor anybody it acts for";
            return Err(Denial::denied("USER_TOKEN_CLIENT", message));
        }
        Ok(())
    }

    /// Checks that it was not used before. The use is recorded together with the act that uses it.
    pub fn check_once(&self, jag: &IdJag) -> Result<(), Denial> {
        self.checking(Check::Grant);
        if self.view().assertion_used(&jag.grant.once) {
            let message = "this ID-JAG was used before: get another, or use the delegation that it made";
            return Err(Denial::denied("USER_TOKEN_USED", message));
        }
        Ok(())
    }

    /// Checks that these actions are within those of an ID-JAG.
    pub fn check_actions(&self, jag: &IdJag, actions: &[Action]) -> Result<(), Denial> {
        let said = jag.grant.details.as_deref().unwrap_or_default();
        let within = read_actions(&self.rules().actions, said).is_ok_and(|said| all_within(actions, &said));
        if (said.is_empty() && actions.is_empty()) || (within && !actions.is_empty()) {
            return Ok(());
        }
        let message = "the ID-JAG allows other actions than those that are asked for";
        Err(Denial::denied("ACTION_NOT_ALLOWED", message))
    }
}
