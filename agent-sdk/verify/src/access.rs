//! Access tokens (RFC 9068) of agents: header, signature, claims, actors, binding. Never a JWT-SVID.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::jwt::{ACCESS, LEEWAY, Parts, audiences, seconds};
use crate::once::single_use;
use crate::x509::check_binding;
use crate::{AgentId, Binding, BindingOid, Bundle, Mode, Principal, Reject, Reliance, Subject, Target, User, parse_spiffe_id};

/// The contents of a verified access token.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Its `sub`: the user or the class of the agent, as the audience knows them, or the agent's SPIFFE ID.
    pub subject: String,
    /// The agent that it was issued to, and that acts now: its `client_id`.
    pub client: AgentId,
    /// All audiences of the token.
    pub audience: Vec<String>,
    /// Its scopes, sorted.
    pub scopes: Vec<String>,
    /// When it was issued, Unix seconds.
    pub issued_at: u64,
    /// When it expires, Unix seconds.
    pub expires_at: u64,
    /// Unique id of the token.
    pub jti: String,
    /// Key id of the authority that signed it.
    pub authority: String,
    /// The key that its holder must prove. `None` for a bearer token.
    pub confirmation: Option<Confirmation>,
    /// Whether the token names the user and no actor, so that only its binding tells of the agent.
    pub impersonates: bool,
    /// The binding of the agent, limited to the scopes of the token.
    pub binding: Binding,
    /// What else it is limited to (`authorization_details` of RFC 9396): a JSON array of objects, each with its `type`. `None` if there is
    /// nothing. Whoever accepts such a token reads this.
    pub details: Option<Value>,
    /// The approval that it uses. `None` if it needs none.
    pub approval: Option<Approval>,
    /// Whether it may be accepted once and no more: whoever accepts it must remember it ([`Reliance::once`]).
    pub single_use: bool,
    /// What a cut would name: the authority that signed it, and the token itself.
    pub(crate) subjects: [Subject; 2],
}

/// The approval behind a token: a person said yes to this one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its id.
    pub id: String,
    /// Who gave it.
    pub by: User,
}

/// A verified access token. It has not been checked yet whether its holder has the key or certificate that it is bound to.
#[derive(Clone, Debug)]
pub struct Unproved(AccessToken);

impl Unproved {
    /// The token, if its holder has `proved` what it is bound to (T188).
    pub fn prove(&self, proved: &Possession) -> Result<&AccessToken, Reject> {
        self.0.check_possession(proved)?;
        Ok(&self.0)
    }

    /// Whether the token is for this audience.
    pub fn is_for(&self, audience: &str) -> bool {
        self.0.audience.iter().any(|own| own == audience)
    }
}

impl<'a> From<&'a Unproved> for Reliance<'a> {
    fn from(token: &'a Unproved) -> Reliance<'a> {
        Reliance::from(&token.0)
    }
}

/// The key that the holder of a token must prove (RFC 7800).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The key of a DPoP proof, by its RFC 7638 thumbprint in base64url (`jkt`).
    Key(String),
    /// A client certificate, by the SHA-256 of its DER in base64url (`x5t#S256`).
    Certificate(String),
}

/// What the sender of a request has proved to hold, to which a token may be bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Possession {
    /// SHA-256 thumbprint of the key of a verified DPoP proof (RFC 7638).
    pub key: Option<[u8; 32]>,
    /// SHA-256 of the DER of the client certificate of the connection.
    pub certificate: Option<[u8; 32]>,
}

impl AccessToken {
    /// Refuses a token that is bound to something else than what its holder has proved (T188).
    pub fn check_possession(&self, proved: &Possession) -> Result<(), Reject> {
        self.confirmation.as_ref().map_or(Ok(()), |confirmation| confirmation.check(proved))
    }
}

impl Confirmation {
    /// Refuses whoever has proved something else.
    pub fn check(&self, proved: &Possession) -> Result<(), Reject> {
        let is = |proved: Option<[u8; 32]>, bound: &str| proved.is_some_and(|proved| URL_SAFE_NO_PAD.encode(proved) == bound);
        match self {
            Confirmation::Key(jkt) if is(proved.key, jkt) => Ok(()),
            Confirmation::Certificate(x5t) if is(proved.certificate, x5t) => Ok(()),
            Confirmation::Key(_) => Err(Reject::Unproved("the key of a DPoP proof")),
            Confirmation::Certificate(_) => Err(Reject::Unproved("a client certificate")),
        }
    }
}

/// Verifies an access token of `issuer` for one audience against the bundle of the trust domain, at `now` (Unix seconds). A token that
/// is bound to a key or certificate is refused if its holder has not `proved` it.
///
/// This does not check revocation: see [`crate::Live::check`].
pub fn verify_access_token(
    token: &str,
    (issuer, audience): (&str, &str),
    bundle: &Bundle,
    oid: &BindingOid,
    proved: &Possession,
    now: u64,
) -> Result<AccessToken, Reject> {
    let Unproved(verified) = verify_unproved_access_token(token, (issuer, audience), bundle, oid, now)?;
    verified.check_possession(proved)?;
    Ok(verified)
}

/// The same for a service that keeps the token and checks for each request what its holder has proved.
pub fn verify_unproved_access_token(
    token: &str,
    (issuer, audience): (&str, &str),
    bundle: &Bundle,
    oid: &BindingOid,
    now: u64,
) -> Result<Unproved, Reject> {
    let verified = Unproved(read(token, (issuer, ACCESS), bundle, oid, now)?);
    if audience.is_empty() || !verified.is_for(audience) {
        return Err(Reject::Audience(audience.to_owned()));
    }
    Ok(verified)
}

/// Verifies an access token whatever its audience is and whatever it is bound to, for the issuer alone: everybody else must be the
/// audience. Also one in the form of a plain JWT, as some audiences want it; a JWT-SVID is refused in either form.
pub fn read_access_token(token: &str, issuer: &str, bundle: &Bundle, oid: &BindingOid, now: u64) -> Result<AccessToken, Reject> {
    read(token, (issuer, &[ACCESS, &["JWT"]].concat()), bundle, oid, now)
}

fn read(
    token: &str,
    (issuer, types): (&str, &[&str]),
    bundle: &Bundle,
    oid: &BindingOid,
    now: u64,
) -> Result<AccessToken, Reject> {
    let parts = Parts::of(token)?;
    // RFC 9068 4: a JWT-SVID is signed by the same key, and says something else.
    let (claims, authority) = parts.verify(bundle, types)?;
    let malformed = |what: &str| Reject::Malformed(what.to_owned());
    let profile = |what: &str| Reject::Profile(what.to_owned());
    let text = |name: &str| {
        let value = claims.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
        value.ok_or_else(|| malformed(&format!("`{name}` is missing or not a string")))
    };
    if text("iss")? != issuer {
        return Err(Reject::Untrusted("its `iss` is another issuer".into()));
    }
    let (subject, jti) = (text("sub")?.to_owned(), text("jti")?.to_owned());
    let id = parse_spiffe_id(text("client_id")?)?;
    if id.trust_domain_name() != bundle.trust_domain().as_str() {
        return Err(Reject::TrustDomain(id.trust_domain_name().to_owned(), bundle.trust_domain().to_string()));
    }
    let principal = Principal::of(&id, bundle.trust_domain());
    let Principal::Agent(client) = &principal else { return Err(profile("`client_id` is no agent")) };
    let audience = audiences(&claims)?;
    let expires_at = seconds(&claims, "exp")?.ok_or_else(|| malformed("`exp` is missing"))?;
    if now >= expires_at {
        return Err(Reject::Expired(expires_at));
    }
    let issued_at = seconds(&claims, "iat")?.ok_or_else(|| malformed("`iat` is missing"))?;
    if let Some(from) = seconds(&claims, "nbf")?.max(Some(issued_at)).filter(|from| *from > now + LEEWAY) {
        return Err(Reject::NotYetValid(from));
    }
    let binding = claims.get(&oid.claim()).map(Binding::from_claim).transpose()?;
    let binding = check_binding(&principal, binding, oid)?.ok_or_else(|| Reject::Unbound(oid.claim()))?;
    // T16.
    if expires_at > binding.lease_expires_at {
        return Err(profile("the token expires after the lease of its agent"));
    }
    let mut scopes: Vec<String> = match claims.get("scope") {
        None => Vec::new(),
        Some(Value::String(scope)) => scope.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        Some(_) => return Err(malformed("`scope` is not a string")),
    };
    scopes.sort_unstable();
    if scopes != binding.scopes {
        return Err(profile("`scope` and the binding differ"));
    }
    let holder = client.to_string();
    // RFC 8693 4.1: the actors are the agent and its ancestors, exactly as the binding has them. There are none where the agent is the
    // subject itself, and where the audience wants tokens that say nothing of it.
    let chain: Vec<&str> = std::iter::once(holder.as_str()).chain(binding.chain.iter().map(String::as_str)).collect();
    let actors = actors(&claims, issuer)?;
    if !actors.is_empty() && actors != chain {
        return Err(profile("`act` and the binding differ"));
    }
    let impersonates = actors.is_empty() && subject != holder;
    let class = format!("spiffe://{}/class/{}", client.trust_domain, client.class);
    if binding.mode == Mode::Autonomous && (impersonates || (subject != holder && subject != class)) {
        return Err(profile("the token of an agent that acts for nobody names somebody else"));
    }
    let confirmation = confirmation(&claims)?;
    let (details, approval, single_use) = (details(&claims)?, approval(&claims)?, single_use(&claims)?);
    let kid = Target::Authority(authority.clone().into_bytes()).unsalted();
    let subjects = [kid, Target::Token(jti.clone()).unsalted()];
    let client = client.clone();
    Ok(AccessToken {
        subject,
        client,
        audience,
        scopes,
        issued_at,
        expires_at,
        jti,
        authority,
        confirmation,
        impersonates,
        binding,
        details,
        approval,
        single_use,
        subjects,
    })
}

/// The `sub` of each actor, the current one first.
fn actors<'c>(claims: &'c Map<String, Value>, issuer: &str) -> Result<Vec<&'c str>, Reject> {
    let malformed = || Reject::Malformed("`act` is not a chain of actors of this issuer".into());
    let (mut found, mut next) = (Vec::new(), claims.get("act"));
    while let Some(value) = next {
        let actor = value.as_object().ok_or_else(malformed)?;
        let known = actor.keys().all(|name| matches!(name.as_str(), "act" | "iss" | "sub"));
        if !known || actor.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err(malformed());
        }
        found.push(actor.get("sub").and_then(Value::as_str).ok_or_else(malformed)?);
        next = actor.get("act");
    }
    Ok(found)
}

/// Reads `authorization_details`. Any other form is refused, because some reader would take it for no limit at all.
fn details(claims: &Map<String, Value>) -> Result<Option<Value>, Reject> {
    let Some(details) = claims.get("authorization_details") else { return Ok(None) };
    let typed = |detail: &Value| detail.get("type").is_some_and(Value::is_string);
    if details.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(typed)) {
        return Ok(Some(details.clone()));
    }
    Err(Reject::Malformed("`authorization_details` is no list of objects that have a `type`".into()))
}

fn approval(claims: &Map<String, Value>) -> Result<Option<Approval>, Reject> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let by = claims.get("approved_by");
    match (claims.get("approval_id"), by) {
        (None, None) => Ok(None),
        (id, by) => {
            let user = by.and_then(|by| text(by.get("iss")).zip(text(by.get("sub")))).map(|(iss, sub)| User { iss, sub });
            let approval = text(id).zip(user).map(|(id, by)| Approval { id, by });
            approval.map(Some).ok_or_else(|| Reject::Malformed("`approval_id` and `approved_by` are no approval".into()))
        }
    }
}

/// A confirmation of a kind that is unknown here makes the token useless, never a bearer token.
pub(crate) fn confirmation(claims: &Map<String, Value>) -> Result<Option<Confirmation>, Reject> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let unknown = || Reject::Profile("`cnf` is of an unknown kind".into());
    let mut members = cnf.as_object().ok_or_else(unknown)?.iter();
    match (members.next(), members.next()) {
        (Some((name, Value::String(jkt))), None) if name == "jkt" => Ok(Some(Confirmation::Key(jkt.clone()))),
        (Some((name, Value::String(x5t))), None) if name == "x5t#S256" => Ok(Some(Confirmation::Certificate(x5t.clone()))),
        _ => Err(unknown()),
    }
}
