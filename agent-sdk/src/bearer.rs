//! Sends a JWT-SVID with a request (CL-10; JWT-SVID 5.2, 5.3). The token comes from an [`Identity`](crate::identity::Identity)
//! or a [`Source`](crate::workload::Source); a service verifies it with [`delegation`](crate::delegation).
//!
//! ```
//! # fn example(token: &mayfly_agent::api::v1::JwtSvid) -> Result<(), Box<dyn std::error::Error>> {
//! use mayfly_agent::bearer;
//!
//! // HTTP: `Authorization: Bearer`, marked as secret.
//! let header = bearer::header(token)?;
//! let request = http::Request::get("https://search.example").header(http::header::AUTHORIZATION, header).body(())?;
//!
//! // gRPC: metadata `authorization`.
//! let mut call = tonic::Request::new("a question");
//! bearer::attach(token, &mut call)?;
//! # let _ = (request, call);
//! # Ok(())
//! # }
//! ```

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use tonic::metadata::MetadataValue;
use tonic::metadata::errors::InvalidMetadataValue;
use zeroize::Zeroizing;

use crate::api::v1::JwtSvid;

/// Returns the value of an `authorization` header.
pub fn header(token: &JwtSvid) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", token.token)))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sets the metadata `authorization` of a call, and replaces a value that is already there.
pub fn attach<T>(token: &JwtSvid, call: &mut tonic::Request<T>) -> Result<(), InvalidMetadataValue> {
    let mut value = MetadataValue::try_from(Zeroizing::new(format!("Bearer {}", token.token)).as_str())?;
    value.set_sensitive(true);
    call.metadata_mut().insert("authorization", value);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn cl10_a_token_is_a_bearer_token_that_is_never_printed() {
        let token = JwtSvid { token: "a.b.c".into(), ..Default::default() };
        let value = header(&token).unwrap();
        assert!(value == "Bearer a.b.c" && value.is_sensitive() && !format!("{value:?}").contains("a.b.c"));
        let mut call = tonic::Request::new(());
        call.metadata_mut().insert("authorization", "Basic x".parse().unwrap());
        attach(&token, &mut call).unwrap();
        let values: Vec<_> = call.metadata().get_all("authorization").iter().collect();
        assert!(values == ["Bearer a.b.c"] && values.iter().all(|value| value.is_sensitive()));
        let broken = JwtSvid { token: "a\nb".into(), ..Default::default() };
        assert!(header(&broken).is_err() && attach(&broken, &mut call).is_err());
    }
}
