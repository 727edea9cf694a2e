//! The form of a request: its parameters, none of which occurs twice.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;

use super::refusal::Refusal;

/// Longest body, in bytes.
const BODY: usize = 64 * 1024;
/// Most parameters of one request.
const PARAMETERS: usize = 64;
/// Parameters that may occur more than once (RFC 8693 2.1, RFC 8707 2).
const REPEATED: [&str; 2] = ["audience", "resource"];

/// The parameters in the body of a request.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the body. Parameters in the query of the URL are not read (RFC 6749 3.2).
    pub(super) async fn read(request: Request) -> Result<(Parts, Form), Refusal> {
        let (head, body) = request.into_parts();
        let mut types = head.headers.get_all(CONTENT_TYPE).iter();
        let of = types.next().and_then(|of| of.to_str().ok()).and_then(|of| of.split(';').next()).unwrap_or_default().trim();
        if !of.eq_ignore_ascii_case("application/x-www-form-urlencoded") || types.next().is_some() {
            let message = "send the parameters as application/x-www-form-urlencoded";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", message));
        }
        let too_long = |_| {
            let message = "the body is longer than 64 KiB, or did not arrive whole";
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", message)
        };
        let body = to_bytes(body, BODY).await.map_err(too_long)?;
        Ok((head, Form::parse(&body)?))
    }

    fn parse(body: &[u8]) -> Result<Form, Refusal> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            if parameters.len() >= PARAMETERS {
                return Err(Refusal::request(&format!("a request has at most {PARAMETERS} parameters")));
            }
            // RFC 6749 3.2: none occurs twice, or two readers would see two requests. A value that is no UTF-8 would be changed.
            if !REPEATED.contains(&&*name) && parameters.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::request("a parameter occurs more than once"));
            }
            if name.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(Refusal::request("a parameter is not in UTF-8"));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Form(parameters))
    }

    /// The value of a parameter. One without a value counts as one that is not sent (RFC 6749 3.2).
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.many(name).next()
    }

    /// The values of a parameter that may occur more than once.
    pub(super) fn many(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t145_a_parameter_occurs_once_and_an_empty_one_is_none() {
        let form = Form::parse(b"grant_type=a%3Ab+c&scope=&resource=x&resource=y");
        let form = form.ok();
        let one = |name| form.as_ref().and_then(|form| form.one(name));
        assert_eq!((one("grant_type"), one("scope"), one("other")), (Some("a:b c"), None, None));
        let resources: Vec<_> = form.iter().flat_map(|form| form.many("resource")).collect();
        assert_eq!(resources, ["x", "y"]);
        // Repetition is refused also for a parameter without a value, with an unknown name, or written with escapes.
        for twice in ["scope=a&scope=b", "scope=&scope=b", "other=1&other=1", "scope=a&s%63ope=b", "grant_type=%ff", "%ff=1"] {
            assert!(Form::parse(twice.as_bytes()).is_err(), "{twice}");
        }
        let many: String = (0..=PARAMETERS).map(|n| format!("p{n}=1&")).collect();
        assert!(Form::parse(many.as_bytes()).is_err());
    }
}
