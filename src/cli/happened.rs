//! Entries of the history, for the commands that read them.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::history_client::HistoryClient;

use super::connect::{self, Acting, Channel};
use super::exit::Failure;
use super::global::Global;

/// Entries of one page.
pub(super) const PAGE: u32 = 1000;
/// Longest page, in bytes.
const LONGEST: usize = 64 << 20;

/// A client as an operator, or with the identity of `--as`.
pub(super) async fn client(global: &Global, acting: &Acting) -> Result<HistoryClient<Channel>, Failure> {
    Ok(over(connect::as_identity_or_operator(global, acting).await?))
}

/// A client over a channel.
pub(super) fn over(channel: Channel) -> HistoryClient<Channel> {
    HistoryClient::new(channel).max_decoding_message_size(LONGEST)
}

/// Every entry that matches the request, page by page.
pub(super) async fn all(
    client: &mut HistoryClient<Channel>,
    wanted: v1::ListEntriesRequest,
) -> Result<Vec<v1::HistoryEntry>, Failure> {
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListEntriesRequest { page_size: PAGE, page_token, ..wanted.clone() };
        let page = client.list_entries(request).await?.into_inner();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return Ok(entries);
        }
        page_token = page.next_page_token;
    }
}

/// Every entry of some kinds. The token is that of a user who asks for themself; empty for everybody else.
pub(super) async fn of_kinds(
    client: &mut HistoryClient<Channel>,
    kinds: &[&str],
    user_token: &str,
) -> Result<Vec<v1::HistoryEntry>, Failure> {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    all(client, v1::ListEntriesRequest { kinds, user_token: user_token.to_owned(), ..Default::default() }).await
}
