//! `[https]`: the listener for relying parties that speak OIDC and OAuth, and the issuer's URL.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Https;
use super::issuers::https;
use super::reader::Reader;

/// Reads the section. Without it nothing is served.
pub(super) fn read_https(h: &mut Reader) -> Https {
    let listen = h.optional("listen", |s| s.parse::<SocketAddr>().map_err(|e| e.to_string()));
    let issuer = h.optional("issuer", issuer);
    let certificate = h.optional("certificate", |s| Ok(PathBuf::from(s)));
    let key = h.optional("key", |s| Ok(PathBuf::from(s)));
    if certificate.is_some() != key.is_some() {
        h.fault("certificate", "give both `certificate` and `key`, or neither");
    }
    Https { listen, issuer, web: certificate.zip(key) }
}

/// Accepts the URL of an issuer. Clients compare it byte by byte and append to it, so it has one form only.
fn issuer(s: &str) -> Result<String, String> {
    https(s)?;
    let path = s.strip_prefix("https://").and_then(|after| after.split_once('/')).map_or("", |(_, path)| path);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '/');
    if s.ends_with('/') || path.split('/').any(|part| part == "." || part == "..") || path.contains("//") {
        return Err("leave out the slash at the end, and empty and relative parts of the path".into());
    }
    if !path.chars().all(plain) {
        return Err("a path may have letters, digits and `-._~/`".into());
    }
    // Such a URL is written in one way: scheme and host in lower case, without the default port.
    let normal = reqwest::Url::parse(s).map_err(|e| e.to_string())?;
    if normal.as_str().trim_end_matches('/') != s {
        return Err(format!("write it as `{}`", normal.as_str().trim_end_matches('/')));
    }
    Ok(s.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_url_has_one_form() {
        for good in
            ["https://a.example", "https://a.example:8443", "https://a.example/p", "https://a.example/p/q-1", "https://[::1]:1"]
        {
            assert_eq!(issuer(good), Ok(good.to_owned()));
        }
        for bad in [
            "http://a.example",
            "https://a.example/",
            "https://a.example/p/",
            "https://A.example",
            "https://a.example:443",
            "https://a.example/p//q",
            "https://a.example/../q",
            "https://a.example/{p}",
            "https://a.example/%70",
            "https://a.example?x=1",
            "https://u@a.example",
            "a.example",
        ] {
            assert!(issuer(bad).is_err(), "{bad}");
        }
    }
}
