//! What endpoints tell the proxy in front of them (nginx: X-Accel-*), and no client.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::routes::Pace;

const PREFIX: &str = "x-accel-";
static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
static X_ACCEL_LIMIT_RATE: HeaderName = HeaderName::from_static("x-accel-limit-rate");

/// What of it is acted on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accel {
    /// The answer is not to be read ahead of its client.
    pub(super) is_unbuffered: bool,
    /// How fast it is to go out, whatever the route says; a rate of 0 is any.
    pub(super) pace: Option<Pace>,
}

impl Accel {
    /// Takes it off an answer (nginx: ngx_http_proxy_hide_headers).
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        let is_told = |name: &&HeaderName| name.as_str().starts_with(PREFIX);
        let names: Vec<HeaderName> = headers.keys().filter(is_told).cloned().collect();
        if names.is_empty() {
            return Self::default();
        }
        let buffering = headers.get(&X_ACCEL_BUFFERING).map(HeaderValue::as_bytes);
        let is_unbuffered = buffering.is_some_and(|said| said.eq_ignore_ascii_case(b"no"));
        let rate =
            headers.get(&X_ACCEL_LIMIT_RATE).and_then(|rate| rate.to_str().ok()?.parse().ok());
        let pace = rate.map(|bytes_per_second| Pace { bytes_per_second, after_bytes: 0 });
        for name in names {
            headers.remove(name);
        }
        Self { is_unbuffered, pace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_tells_its_proxy_is_taken_off_and_some_of_it_acted_on() {
        let pace = |bytes_per_second| Some(Pace { bytes_per_second, after_bytes: 0 });
        for (name, value, is_unbuffered, pace) in [
            ("x-accel-buffering", "No", true, None),
            ("x-accel-buffering", "no", true, None),
            ("x-accel-buffering", "yes", false, None),
            ("x-accel-buffering", "nope", false, None),
            ("x-accel-limit-rate", "1024", false, pace(1024)),
            ("x-accel-limit-rate", "0", false, pace(0)),
            ("x-accel-limit-rate", "off", false, None),
            ("x-accel-limit-rate", "-1", false, None),
            // Nor is it any client's where what stands there is found.
            ("x-accel-redirect", "/protected/file", false, None),
            ("x-accel-expires", "60", false, None),
            ("x-accel-charset", "utf-8", false, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("etag", HeaderValue::from_static("\"x-accel-\""));
            headers.append(name, HeaderValue::from_static(value));
            headers.append(name, HeaderValue::from_static("again"));
            let told = Accel::take(&mut headers);
            assert_eq!(told, Accel { is_unbuffered, pace }, "{name}: {value}");
            assert_eq!(headers.keys().collect::<Vec<_>>(), ["etag"], "{name}: {value}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(Accel::take(&mut headers), Accel::default());
    }
}
