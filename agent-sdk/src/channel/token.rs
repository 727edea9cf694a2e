//! A person's token beside each request of a channel.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::ConnectError;

/// The metadata key under which a person who is an operator or an auditor sends their token, on a connection without a certificate.
pub const USER_TOKEN: &str = "mayfly-user-token";

/// A channel that may send a person's token with each request.
pub type Authorized = InterceptedService<Channel, UserToken>;

/// A person's token, or none.
#[derive(Clone, Default)]
pub struct UserToken(Option<MetadataValue<Ascii>>);

impl Interceptor for UserToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(USER_TOKEN, token.clone());
        }
        Ok(request)
    }
}

/// Sends this token with each request of the channel. Fails if it is no token.
pub fn with_user_token(channel: Channel, token: &str) -> Result<Authorized, ConnectError> {
    let malformed = || ConnectError::Identity("the token has characters that no token has".into());
    let mut value: MetadataValue<Ascii> = token.trim().parse().map_err(|_| malformed())?;
    // It is neither put into the table of HPACK nor written to a log.
    value.set_sensitive(true);
    Ok(InterceptedService::new(channel, UserToken(Some(value))))
}

/// The same type for a channel that sends none.
pub fn without_user_token(channel: Channel) -> Authorized {
    InterceptedService::new(channel, UserToken::default())
}
