//! What the page says of approvals and agents.

use mayfly_verify::approval::binding_code;
use serde_json::{Map, Value};

use super::form::{actions, can_shrink};
use super::html::{form_field, text, user};
use super::session::Session;
use super::{AGENTS, Served};
use crate::acts::approvals::Known;
use crate::clock::{SECOND, rfc3339 as time};
use crate::judge::action::Catalogue;
use crate::state::{Agent, Standing, Status};

/// What waits for a person, and a page of the agents that act for them.
pub(super) fn home(
    served: &Served,
    session: &Session,
    waiting: &[Known],
    agents: &[(Agent, Standing)],
    next: Option<&str>,
) -> String {
    let base = text(&served.base);
    let mut body = String::from("<h2>Waits for your answer</h2>");
    let open: Vec<&Known> = waiting.iter().filter(|known| known.status == Status::Pending).collect();
    if open.is_empty() {
        body.push_str("<p>Nothing.</p>");
    }
    body.push_str("<ul>");
    for known in open {
        let (id, what) = (hex::encode(known.approval.id), summary(known));
        body.push_str(&format!("<li><a href=\"{base}/approvals/{id}\">{}</a></li>", text(&what)));
    }
    body.push_str("</ul><h2>Agents that act for you</h2>");
    if agents.is_empty() {
        body.push_str("<p>None.</p>");
    }
    body.push_str("<ul>");
    let field = form_field(session);
    for (agent, _) in agents {
        let id = text(&agent.id(&served.issuer.trust_domain).to_string());
        let (scopes, until) = (text(&agent.mandate.scopes.join(" ")), time(agent.lease_ends_at / SECOND));
        body.push_str(&format!(
            "<li>{id}<br><small>may {scopes}; until {until}</small><br><form method=\"post\" action=\"{base}/stop\">{field}\
             <input type=\"hidden\" name=\"agent\" value=\"{id}\"><button>Stop it and all below it</button></form></li>"
        ));
    }
    body.push_str("</ul>");
    if let Some(next) = next {
        body.push_str(&format!("<p><a href=\"{base}?page={}\">The next {AGENTS}</a></p>", text(next)));
    }
    body.push_str(&format!(
        "<form method=\"post\" action=\"{base}/stop\">{field}<input type=\"hidden\" name=\"all\" value=\"yes\">\
         <button>Stop everything that acts for me</button></form>"
    ));
    body
}

/// One approval: who asks, for whom, what exactly, where, why, until when; and the answers while it waits.
pub(super) fn approval(served: &Served, session: &Session, known: &Known) -> String {
    let Known { approval, status, agent } = known;
    let td = &served.issuer.trust_domain;
    let chain: String = agent.chain(td).iter().map(|id| format!("<br>below {}", text(id))).collect();
    let mut body = format!(
        "<p class=\"why\">{}</p><dl>",
        if approval.reason.is_empty() { "No reason is given.".into() } else { text(&approval.reason) }
    );
    let mut row = |name: &str, html: &str| body.push_str(&format!("<dt>{name}</dt><dd>{html}</dd>"));
    row("Who asks", &format!("{}{chain}", text(&agent.id(td).to_string())));
    row("For whom", &approval.user.as_ref().map_or_else(|| "nobody".to_owned(), user));
    row("Where", &text(&approval.audience));
    for action in actions(approval) {
        row("What", &action_of(&action));
    }
    if !approval.scopes.is_empty() {
        row("Scopes", &text(&approval.scopes.join(" ")));
    }
    let terms = format!(
        "for {} token{}, within {} seconds after your answer",
        approval.uses,
        if approval.uses == 1 { "" } else { "s" },
        approval.lasts
    );
    row("How often", &terms);
    // What their own provider shows them, if it asks them too.
    row("Code", &text(&binding_code(&approval.id, &approval.digest)));
    row("Asked", &time(approval.asked_at / SECOND));
    row(if *status == Status::Pending { "Answer until" } else { "Until" }, &time(approval.ends_at / SECOND));
    let state = match status {
        Status::Pending => "nobody has answered",
        Status::Approved => "approved, and not used yet",
        Status::Denied => "denied",
        Status::Expired => "expired: nobody answered, or it was not used in time",
        Status::Used => "approved and used",
        Status::Revoked => "over: the agent, its user or who approved was revoked, or the agent has ended",
    };
    row("State", state);
    if let Some(answer) = &approval.answer {
        row("Answered by", &format!("{}, {}", user(&answer.by), time(answer.at / SECOND)));
        if let Some(narrowed) = &answer.narrowed {
            row("Only this was approved", &text(&format!("{} {}", narrowed.details, narrowed.scopes.join(" "))));
        }
    }
    body.push_str("</dl>");
    if *status == Status::Pending {
        body.push_str(&answers(served, session, known));
    }
    body
}

/// The forms: yes, no, and yes to a part.
fn answers(served: &Served, session: &Session, known: &Known) -> String {
    let approval = &known.approval;
    let begin = format!(
        "<form method=\"post\" action=\"{}/approvals/{}\">{}<input type=\"hidden\" name=\"digest\" value=\"{}\">",
        text(&served.base),
        hex::encode(approval.id),
        form_field(session),
        hex::encode(approval.digest)
    );
    let rules = served.issuer.ledger.rules();
    let mut part = String::new();
    for (n, action) in actions(approval).iter().enumerate() {
        part.push_str(&changeable(&rules.actions, n, action));
    }
    for scope in &approval.scopes {
        let scope = text(scope);
        part.push_str(&format!(
            "<p><label><input type=\"checkbox\" name=\"scope\" value=\"{scope}\" checked> {scope}</label></p>"
        ));
    }
    format!(
        "<p>{begin}<button name=\"answer\" value=\"yes\">Approve exactly this</button>\
         <button name=\"answer\" value=\"no\">Deny</button></form></p>\
         <details><summary>Approve less</summary>{begin}{part}<button name=\"answer\" value=\"part\">Approve only this</button></form></details>"
    )
}

/// An action with what a person can make narrower: numbers and lists.
fn changeable(catalogue: &Catalogue, n: usize, action: &Map<String, Value>) -> String {
    let of = action.get("type").and_then(Value::as_str).unwrap_or_default();
    let mut html = format!("<p><label><input type=\"checkbox\" name=\"keep.{n}\" value=\"yes\" checked> {}</label>", text(of));
    for (name, value) in action.iter().filter(|(name, _)| *name != "type") {
        let field = text(&format!("a.{n}.{name}"));
        match value {
            Value::Array(members) => {
                html.push_str(&format!("<br>{}:", text(name)));
                for member in members.iter().filter_map(Value::as_str).map(text) {
                    html.push_str(&format!(
                        " <label><input type=\"checkbox\" name=\"{field}\" value=\"{member}\" checked> {member}</label>"
                    ));
                }
            }
            Value::String(value) if can_shrink(catalogue, of, name) => {
                html.push_str(&format!("<br><label>{} <input name=\"{field}\" value=\"{}\"></label>", text(name), text(value)));
            }
            other => html.push_str(&format!("<br>{}: {}", text(name), text(&plain(other)))),
        }
    }
    html + "</p>"
}

fn action_of(action: &Map<String, Value>) -> String {
    let of = action.get("type").and_then(Value::as_str).unwrap_or_default();
    let fields = action.iter().filter(|(name, _)| *name != "type");
    let fields: String = fields.map(|(name, value)| format!("<br>{}: {}", text(name), text(&plain(value)))).collect();
    format!("<strong>{}</strong>{fields}", text(of))
}

fn summary(known: &Known) -> String {
    let types: Vec<&str> =
        known.approval.types.iter().map(String::as_str).chain(known.approval.scopes.iter().map(String::as_str)).collect();
    format!("{} at {}: {}", types.join(", "), known.approval.audience, known.approval.reason)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(members) => members.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
