//! How a client asked, whoever ends its TLS: by the connection, or by what a balancer in front that is
//! believed says of it (ingress-nginx: pass_access_scheme, best_http_host, pass_port).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{client::Client, gates};
use crate::host;

static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// By TLS or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// What a client used, worked out once for each request.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) scheme: Scheme,
    /// As a balancer names it; never 0. `None`: the connection's.
    pub(crate) port: Option<u16>,
    /// As a balancer names it, perhaps with a port; one that could be a Host. `None`: the request's.
    pub(crate) host: Option<Box<HeaderValue>>,
}

impl Scheme {
    pub(crate) fn of(is_tls: bool) -> Self {
        if is_tls { Self::Https } else { Self::Http }
    }

    pub(crate) fn is_https(self) -> bool {
        self == Self::Https
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be named.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Some balancers call a WebSocket's so. Anything else says nothing: to ingress-nginx it is "not
    /// http", and turns a redirect to HTTPS off.
    fn read(text: &str) -> Option<Self> {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        if is("https") || is("wss") {
            return Some(Self::Https);
        }
        (is("http") || is("ws")).then_some(Self::Http)
    }
}

impl Front {
    /// Of a request with these fields. Copies nothing unless a host is told.
    pub(crate) fn of(client: &Client, headers: &HeaderMap) -> Self {
        let by_connection = Scheme::of(client.tls || client.is_proxied_https());
        let mut front = Self { scheme: by_connection, port: None, host: None };
        if !gates::is_believed(client) {
            return front;
        }
        // ingress-nginx: what the PROXY header says comes last.
        if !client.is_proxied_https()
            && let Some((_, text)) = told(client, headers, &X_FORWARDED_PROTO)
        {
            front.scheme = Scheme::read(text).unwrap_or(by_connection);
        }
        front.port = told(client, headers, &X_FORWARDED_PORT).and_then(|(_, text)| port(text));
        front.host = told(client, headers, &X_FORWARDED_HOST)
            .filter(|(_, text)| host::normalise(text).is_some())
            .and_then(|(field, text)| match field.len() == text.len() {
                true => Some(field.clone()),
                false => HeaderValue::from_str(text).ok(),
            })
            .map(Box::new);
        front
    }

    /// `$best_http_host`; `received`: `$http_host`.
    pub(crate) fn best_host<'a>(&'a self, received: &'a str) -> &'a str {
        self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(received)
    }
}

/// What the balancer says that says who the client is, and the field it stands in. Where each has added
/// to a list, what others wrote before anybody may have written.
fn told<'h>(
    client: &Client,
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Option<(&'h HeaderValue, &'h str)> {
    let fields = headers.get_all(name).iter().rev();
    let mut entries = fields.flat_map(|field| {
        field.to_str().unwrap_or_default().rsplit(',').map(move |text| (field, text.trim()))
    });
    let (mut told, mut before) = (entries.next()?, entries.next());
    if before.is_some() {
        for _ in 1..gates::named(client, headers).hops {
            let Some(earlier) = before else { break };
            (told, before) = (earlier, entries.next());
        }
    }
    Some(told)
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_is_one_of_two_and_anything_else_says_nothing() {
        use Scheme::{Http, Https};
        for (text, expected) in [
            ("https", Some(Https)),
            ("HTTPS", Some(Https)),
            ("wss", Some(Https)),
            ("http", Some(Http)),
            ("ws", Some(Http)),
            ("", None),
            ("on", None),
            ("ftp", None),
            ("https:", None),
            ("https,http", None),
        ] {
            assert_eq!(Scheme::read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_port_is_a_number_that_can_be_one() {
        for (text, expected) in [
            ("443", Some(443)),
            ("65535", Some(65_535)),
            ("65536", None),
            ("0", None),
            ("+443", None),
            ("-1", None),
            ("", None),
            ("443/", None),
        ] {
            assert_eq!(port(text), expected, "{text:?}");
        }
    }
}
