//! Which other sites' pages may ask (CORS).

use http::{HeaderMap, HeaderValue, header};

use super::value::{Read, Unread, bad, flag, signed};

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,\
                       Cache-Control,Content-Type,Range,Authorization";
const MAX_AGE_SECONDS: u32 = 1_728_000;

/// What an Ingress says about it. The defaults are ingress-nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cors {
    enabled: bool,
    origins: Origins,
    methods: HeaderValue,
    headers: HeaderValue,
    credentials: bool,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origins {
    Any,
    Listed(Box<[Origin]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    /// Up to and with `://`; empty for `null`.
    scheme: Box<str>,
    /// One label, whatever it is, comes before the host.
    wildcard: bool,
    /// With the port, if there is one.
    host: Box<str>,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            enabled: false,
            origins: Origins::Any,
            methods: HeaderValue::from_static(METHODS),
            headers: HeaderValue::from_static(HEADERS),
            credentials: true,
            expose: None,
            max_age: HeaderValue::from(MAX_AGE_SECONDS),
        }
    }
}

impl Cors {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "enable-cors" => flag(value).map(|flag| self.enabled = flag),
            "cors-allow-origin" => {
                // ingress-nginx lets everybody in when the list cannot be read; here nobody is.
                self.origins = Origins::Listed(Box::default());
                origins(value).map(|origins| self.origins = origins)
            }
            "cors-allow-methods" => {
                words(value, |b| b.is_ascii_alphabetic()).map(|methods| self.methods = methods)
            }
            "cors-allow-headers" => words(value, is_name).map(|names| self.headers = names),
            "cors-expose-headers" => {
                words(value, |b| is_name(b) || b == b'*').map(|names| self.expose = Some(names))
            }
            "cors-allow-credentials" => flag(value).map(|flag| self.credentials = flag),
            "cors-max-age" => signed(value).map(|age| self.max_age = age.into()),
            _ => return None,
        })
    }

    pub(super) fn is_needed(&self) -> bool {
        self.enabled
    }

    /// What `Access-Control-Allow-Origin` says to a request; `None`: the site may not ask.
    pub(crate) fn allows(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(list) => {
                let origin = headers.get(header::ORIGIN)?;
                let text = origin.to_str().ok()?.to_ascii_lowercase();
                list.iter().any(|listed| listed.is(&text)).then(|| origin.clone())
            }
        }
    }

    /// Sets the fields, whatever the endpoint says of them.
    pub(crate) fn set_fields(&self, headers: &mut HeaderMap, origin: &HeaderValue) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        if let Some(expose) = &self.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Some(Self { scheme: "".into(), wildcard: false, host: "null".into() });
        }
        let at = text.find("://")? + 3;
        let (scheme, rest) = text.split_at_checked(at)?;
        let (wildcard, host) = match rest.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, rest),
        };
        let is_scheme = scheme.len() > 3
            && scheme.trim_end_matches("://").bytes().all(|b| b.is_ascii_lowercase());
        (is_scheme && crate::host::normalise(host).is_some_and(|normal| !normal.starts_with('[')))
            .then(|| Self { scheme: scheme.into(), wildcard, host: host.into() })
    }

    /// `origin` in lower case.
    fn is(&self, origin: &str) -> bool {
        let Some(host) = origin.strip_prefix(&*self.scheme) else { return false };
        if !self.wildcard {
            return host == &*self.host;
        }
        let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        host.split_once('.').is_some_and(|(label, rest)| {
            rest == &*self.host && !label.is_empty() && label.bytes().all(is_label)
        })
    }
}

fn origins(value: &str) -> Result<Origins, Unread> {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let mut list = Vec::new();
    for text in texts {
        if text == "*" {
            return Ok(Origins::Any);
        }
        match Origin::parse(text) {
            Some(origin) => list.push(origin),
            None => return bad(format!("has {text:?}, which is no origin; no other site may ask")),
        }
    }
    if list.is_empty() {
        return bad("names no origin; no other site may ask");
    }
    Ok(Origins::Listed(list.into()))
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
}

/// A list as it stands, if it is one.
fn words(value: &str, is_part: impl Fn(u8) -> bool) -> Result<HeaderValue, Unread> {
    let is_list = value.bytes().all(|b| is_part(b) || matches!(b, b',' | b' '));
    match HeaderValue::from_str(value.trim()) {
        Ok(list) if is_list && !list.is_empty() => Ok(list),
        _ => bad("is no list of names"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &str, origin: &'static str) -> bool {
        let mut cors = Cors::default();
        let _ = cors.set("cors-allow-origin", list).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        cors.allows(&headers).is_some()
    }

    #[test]
    fn origins_are_whole_and_one_label_deep() {
        for (list, origin, expected) in [
            ("*", "https://any.example", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("https://a.example, https://b.example", "https://b.example", true),
            ("https://*.a.example", "https://x.a.example", true),
            ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://x.y.a.example", false),
            ("https://*.a.example", "https://evil/x.a.example", false),
            ("https://a.example", "https://a.example.evil.com", false),
            ("https://a.example", "https://evil.com?https://a.example", false),
            ("null", "null", true),
            ("null", "https://null", false),
            ("myapp://a.example", "myapp://a.example", true),
            // What cannot be read lets nobody in.
            ("a.example", "https://a.example", false),
            ("https://a.example, what", "https://a.example", false),
            ("", "https://a.example", false),
        ] {
            assert_eq!(allowed(list, origin), expected, "{list:?} {origin}");
        }
    }

    #[test]
    fn lists_of_names_are_nothing_else() {
        let mut cors = Cors::default();
        for (name, value, good) in [
            ("cors-allow-methods", "GET, POST", true),
            ("cors-allow-methods", "GET; more", false),
            ("cors-allow-headers", "X-A,X_B", true),
            ("cors-allow-headers", "X-A\r\nSet-Cookie: a", false),
            ("cors-expose-headers", "*, X-A", true),
            ("cors-max-age", "600", true),
            // Fetch 4.9: nothing is remembered.
            ("cors-max-age", "-1", true),
            ("cors-max-age", "1.5", false),
            ("cors-max-age", "ten", false),
        ] {
            assert_eq!(cors.set(name, value).unwrap().is_ok(), good, "{name} {value:?}");
        }
    }
}
