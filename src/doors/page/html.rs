//! How the page looks: every text of others is escaped, and nothing of it runs.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use mayfly_verify::User;

use super::session::Session;

/// No script at all, styles and forms of this host alone, and no frame around it (T272).
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The style sheet.
pub(super) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}\
dt{font-weight:600;margin-top:.8rem}dd{margin:0;overflow-wrap:anywhere}form{display:inline}button{font:inherit;padding:.3rem .9rem;margin:.2rem}\
ul{padding-left:1.2rem}li{margin:.6rem 0;overflow-wrap:anywhere}input{font:inherit}header{display:flex;justify-content:space-between}\
.why{font-size:1.15rem}@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}a{color:#8bf}}";

/// A text as HTML shows it, in an element or in a quoted attribute.
pub(super) fn text(plain: &str) -> String {
    let mut html = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// A user as people read it.
pub(super) fn user(user: &User) -> String {
    format!("{} <small>of {}</small>", text(&user.sub), text(&user.iss))
}

/// The hidden field that each form has.
pub(super) fn form_field(session: &Session) -> String {
    format!("<input type=\"hidden\" name=\"form\" value=\"{}\">", text(&session.form))
}

/// A whole page. `base` is the path of the page, and `body` is HTML.
pub(super) fn page(status: StatusCode, base: &str, title: &str, session: Option<&Session>, body: &str) -> Response {
    let base = text(base);
    let who = session.map(|session| {
        let field = form_field(session);
        format!(
            "<header><a href=\"{base}\">Mayfly</a><span>{} <form method=\"post\" action=\"{base}/sign-out\">{field}\
             <button>Sign out</button></form></span></header>",
            user(&session.user)
        )
    });
    let title = text(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><link rel=\"stylesheet\" href=\"{base}/style.css\">{}<h1>{title}</h1>{body}</html>",
        who.unwrap_or_default()
    );
    (status, Html(html)).into_response()
}

/// Adds the headers of everything that is served here, refusals of the form of a request included.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, POLICY),
        // Of browsers that know no `frame-ancestors`.
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The address of an approval is told to nobody else. Without any referrer a browser would leave out the origin of forms too.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t272_what_others_wrote_stays_text() {
        assert_eq!(text("<b a='1' c=\"2\">&amp;"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;amp;");
        assert!(!POLICY.contains("script") && !POLICY.contains("unsafe") && POLICY.contains("frame-ancestors 'none'"));
    }
}
