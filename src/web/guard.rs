//! Who may ask. The page has no password: what keeps strangers out is where it listens. A browser on
//! this machine must not become their way in.

use std::net::IpAddr;

use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{HeaderName, HeaderValue},
};

/// Longer ones come from nobody's form.
const TARGET_BYTES_MAX: usize = 2048;

/// Nothing from elsewhere, nothing inline, in nobody's frame (CSP level 3).
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Why a request is not answered.
pub(super) type Refusal = (StatusCode, &'static str);

/// The names a browser may ask by.
#[derive(Debug)]
pub(super) struct Guard {
    names: Vec<String>,
}

impl Guard {
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| name.to_ascii_lowercase()).collect() }
    }

    /// Lets a request in, or says why not.
    pub(super) fn admit(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        if method != Method::GET && method != Method::HEAD {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "read-only\n"));
        }
        if uri.path_and_query().is_none_or(|target| target.as_str().len() > TARGET_BYTES_MAX) {
            return Err((StatusCode::URI_TOO_LONG, "too long\n"));
        }
        if uri.authority().is_some() {
            return Err((StatusCode::BAD_REQUEST, "this is no proxy\n"));
        }
        let host = only(headers, "host")?;
        let host = host.ok_or((StatusCode::BAD_REQUEST, "no Host\n"))?;
        if !self.knows(host) {
            // A foreign name that leads here: how DNS rebinding makes a browser ask for others.
            return Err((
                StatusCode::MISDIRECTED_REQUEST,
                "not under this name: use an address, localhost, or --web-host\n",
            ));
        }
        if let Some(origin) = only(headers, "origin")? {
            let origin = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
            if origin != Some(host) {
                return Err((StatusCode::FORBIDDEN, "not for another site's pages\n"));
            }
        }
        // Browsers say who made them ask (Fetch Metadata): other sites may link here, and no more.
        let site = only(headers, "sec-fetch-site")?;
        let mode = only(headers, "sec-fetch-mode")?;
        let is_foreign = matches!(site, Some("cross-site" | "same-site"));
        if is_foreign && mode != Some("navigate") {
            return Err((StatusCode::FORBIDDEN, "not for another site's pages\n"));
        }
        Ok(())
    }

    /// An address cannot be rebound, and localhost is this machine (RFC 6761).
    fn knows(&self, authority: &str) -> bool {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, rest)) if rest.starts_with(':') => (host, rest.get(1..)),
                _ => return false,
            },
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return false;
        }
        let host = host.to_ascii_lowercase();
        host == "localhost" || host.parse::<IpAddr>().is_ok() || self.names.contains(&host)
    }
}

/// A field that may be there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err((StatusCode::BAD_REQUEST, "a field stands there twice\n"));
    }
    let text = first.map(HeaderValue::to_str).transpose();
    text.map_err(|_| (StatusCode::BAD_REQUEST, "a field is no text\n"))
}

/// What every response tells the browser to keep to.
pub(super) fn harden(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(method: &Method, target: &str, fields: &[(&str, &str)]) -> u16 {
        let guard = Guard::new(&["Node1.Example".to_owned()]);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let target: Uri = target.parse().unwrap();
        guard.admit(method, &target, &headers).err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn a_name_that_was_rebound_to_this_address_is_not_answered() {
        for (host, expected) in [
            ("localhost", 200),
            ("LocalHost:10247", 200),
            ("127.0.0.1:10247", 200),
            ("[::1]:10247", 200),
            ("192.0.2.7", 200),
            ("node1.example:10247", 200),
            ("evil.example", 421),
            ("evil.example:10247", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost:10247:1", 421),
            ("localhost@evil.example", 421),
            ("[::1", 421),
            ("[::1]", 200),
            ("[::1]evil.example", 421),
            ("", 421),
        ] {
            assert_eq!(admitted(&Method::GET, "/", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(admitted(&Method::GET, "/", &[]), 400, "no Host");
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(admitted(&Method::GET, "/", &twice), 400, "two of them");
    }

    #[test]
    fn other_sites_may_link_here_and_no_more() {
        for (fields, expected) in [
            (&[("origin", "http://localhost")][..], 200),
            (&[("origin", "https://localhost")], 200),
            (&[("origin", "http://evil.example")], 403),
            (&[("origin", "http://localhost.evil.example")], 403),
            (&[("origin", "null")], 403),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")], 200),
            (&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], 200),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], 200),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], 403),
            (&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
        ] {
            let fields = [&[("host", "localhost")], fields].concat();
            assert_eq!(admitted(&Method::GET, "/events", &fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn nothing_is_written_proxied_or_endless() {
        let host = [("host", "localhost")];
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(admitted(&method, "/", &host), 405, "{method}");
        }
        assert_eq!(admitted(&Method::HEAD, "/", &host), 200);
        assert_eq!(admitted(&Method::GET, "http://localhost/", &host), 400);
        let long = format!("/services?q={}", "a".repeat(TARGET_BYTES_MAX));
        assert_eq!(admitted(&Method::GET, &long, &host), 414);
    }
}
