//! An agent by its name, or by the beginning of its id.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;

use super::connect::Channel;
use super::exit::{FAILURE, Failure};

/// Fewest characters of the beginning of a UUID: fewer would match too many agents.
const SHORTEST: usize = 4;
/// Characters of a UUID in its usual form.
const WHOLE: usize = 36;

/// Finds an agent that the caller may see, by SPIFFE ID, UUID, or the beginning of its UUID if only one agent matches. The token is
/// that of a user who asks for themself; empty for everybody else.
pub(super) async fn agent(client: &mut InspectionClient<Channel>, text: &str, user_token: &str) -> Result<v1::Agent, Failure> {
    let agent = if is_beginning(text) { beginning(client, text, user_token).await? } else { text.to_owned() };
    let got = client.get_agent(v1::GetAgentRequest { agent, user_token: user_token.to_owned() }).await?.into_inner();
    got.agent.ok_or_else(Failure::incomplete_answer)
}

/// Every agent that the caller may see, with the revision of the last page.
pub(super) async fn all(
    client: &mut InspectionClient<Channel>,
    all: bool,
    user_token: &str,
) -> Result<(Vec<v1::Agent>, u64), Failure> {
    let mut agents = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListAgentsRequest { page_size: 1000, page_token, all, user_token: user_token.to_owned() };
        let page = client.list_agents(request).await?.into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            return Ok((agents, page.revision));
        }
        page_token = page.next_page_token;
    }
}

/// The last part of a SPIFFE ID: the UUID.
pub(super) fn uuid(agent: &v1::Agent) -> &str {
    agent.agent_id.rsplit('/').next().unwrap_or_default()
}

fn is_beginning(text: &str) -> bool {
    (SHORTEST..WHOLE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

async fn beginning(client: &mut InspectionClient<Channel>, text: &str, user_token: &str) -> Result<String, Failure> {
    let (agents, _) = all(client, true, user_token).await?;
    let fits: Vec<&v1::Agent> = agents.iter().filter(|agent| uuid(agent).starts_with(&text.to_ascii_lowercase())).collect();
    match fits.as_slice() {
        [one] => Ok(one.agent_id.clone()),
        [] => Err(Failure::new(FAILURE, format!("no agent's id begins with `{text}`, or none that you may see"))),
        many => Err(Failure::new(FAILURE, format!("the ids of {} agents begin with `{text}`: write more of it", many.len()))),
    }
}
