//! Access tokens of one agent: by what it is, and by an access token that it presents, which has to be verified.

use mayfly_agent::api::v1;

use crate::Options;
use crate::client::Client;
use crate::floor::Must;
use crate::issuer::Issuer;
use crate::load::{self, Call, boxed};
use crate::rounds::{Work, rounds};
use crate::row::Row;
use crate::scenario::issue::JWT;

/// Also the verification of what is presented.
const PRESENTED: Must = Must { verify: 1.0, ..JWT };

/// Exchanges without a subject token, and then with one.
pub(crate) async fn exchange(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let (folder, _) = issuer.agent(&issuer.class).await?;
    let client = issuer.as_identity(&folder).await?;
    let work = Work { must: JWT, ..Work::new("exchange", options, 9.0) };
    let own = rounds(issuer, work, async |_| Ok(exchanging(&client, &issuer.audience, ""))).await?;
    if load::ending() {
        return Ok(vec![own]);
    }
    let work = Work { must: PRESENTED, name: "exchange of a token", ..work };
    let presenting = async |_| {
        // One for each round: it lives for minutes.
        let token = client.exchange(asked(&issuer.audience, "")).await?.access_token;
        Ok(exchanging(&client, &issuer.audience, &token))
    };
    Ok(vec![own, rounds(issuer, work, presenting).await?])
}

fn asked(audience: &str, subject_token: &str) -> v1::ExchangeRequest {
    v1::ExchangeRequest { audience: audience.to_owned(), subject_token: subject_token.to_owned(), ..Default::default() }
}

/// Calls that get an access token each.
fn exchanging(client: &Client, audience: &str, subject_token: &str) -> Call {
    let (client, request) = (client.clone(), asked(audience, subject_token));
    boxed(move |_| {
        let (client, request) = (client.clone(), request.clone());
        async move { client.exchange(request).await.map(drop) }
    })
}
