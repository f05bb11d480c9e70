//! What nginx's variables mean for one request.

use std::fmt::Write;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};

use super::{
    auth,
    client::Client,
    fields::{self, Edit},
    front::{Front, Scheme},
    gates, identity,
};
use crate::{
    cookies, host,
    routes::{Captured, Route, Template, Variable},
};

/// A request, as templates ask for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) client: &'a Client,
    pub(super) head: &'a Parts,
    pub(super) front: &'a Front,
    /// In lower case, without port.
    pub(super) host: &'a str,
    /// As received.
    pub(super) http_host: &'a str,
    /// In normal form.
    pub(super) path: &'a str,
    pub(super) route: &'a Route,
    /// What the route's expression captured of the path.
    pub(super) captured: Option<&'a Captured>,
    /// What is told of the client's certificate to whoever is asked for the request or about it.
    pub(super) identity: &'a identity::Fields,
    /// Taken if the client sends none.
    pub(super) request_id: u128,
}

impl Scope<'_> {
    /// A template's text for this request.
    pub(super) fn render(&self, template: &Template) -> String {
        template.render(|variable, out| self.write(variable, out))
    }

    /// The same of an address; `None`: it would be cut, and lead elsewhere.
    pub(super) fn render_whole(&self, template: &Template) -> Option<String> {
        Some(self.render(template)).filter(|text| Template::is_whole(text))
    }

    /// A host that is this request's; `None`: it would be none.
    pub(super) fn host_of(&self, template: &Template) -> Option<HeaderValue> {
        let text = self.render(template);
        host::normalise(&text)?;
        HeaderValue::try_from(text).ok()
    }

    /// A field whose text is this request's; `None`: it would be no field.
    pub(super) fn field(
        &self,
        (name, text): &(HeaderName, Template),
    ) -> Option<(HeaderName, HeaderValue)> {
        Some((name.clone(), HeaderValue::try_from(self.render(text)).ok()?))
    }

    /// Those of a request that is made for this one, but for those of its connection and its body. `vhost`: Host, if
    /// not the client's `host`; `hidden`: names of fields that are not for whoever it goes to.
    pub(super) fn fields_beside<'h>(
        &self,
        host: &HeaderValue,
        vhost: Option<&HeaderValue>,
        hidden: impl IntoIterator<Item = &'h HeaderName>,
    ) -> HeaderMap {
        let client = self.client;
        let mut headers = self.head.headers.clone();
        for name in hidden {
            headers.remove(name);
        }
        fields::to_upstream(
            &mut headers,
            &Edit {
                origin: &client.origin,
                front: self.front,
                host,
                vhost,
                prefix: None,
                policy: client.forwarded(),
                named: gates::forwarded_for(client, &self.head.headers),
                underscores: client.worker.config().underscores_in_headers,
                websocket: false,
                request_id: self.request_id,
                closes: false,
            },
        );
        for name in [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
            headers.remove(name);
        }
        headers
    }

    /// As the endpoint sees it, so that whoever is asked judges what is forwarded: to both a WebSocket
    /// over HTTP/2 is a GET (RFC 8441 5). Any other CONNECT is refused.
    pub(super) fn method(&self) -> Method {
        match self.head.method == Method::CONNECT {
            true => Method::GET,
            false => self.head.method.clone(),
        }
    }

    /// Path and query.
    pub(super) fn request_uri(&self) -> String {
        match self.head.uri.query() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_owned(),
        }
    }

    pub(super) fn write(&self, variable: &Variable, out: &mut String) {
        let query = self.head.uri.query();
        match variable {
            Variable::Host => out.push_str(self.host),
            Variable::HttpHost => out.push_str(self.http_host),
            Variable::BestHttpHost => out.push_str(self.front.best_host(self.http_host)),
            Variable::RequestUri => out.push_str(&self.request_uri()),
            Variable::EscapedRequestUri => escape(&self.request_uri(), out),
            Variable::Uri => out.push_str(self.path),
            Variable::Args => out.push_str(query.unwrap_or_default()),
            Variable::IsArgs => out.push_str(if query.is_some() { "?" } else { "" }),
            Variable::Scheme => out.push_str(Scheme::of(self.client.tls).as_str()),
            Variable::PassAccessScheme => out.push_str(self.front.scheme.as_str()),
            Variable::Method => out.push_str(self.method().as_str()),
            Variable::RemoteAddr => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}", gates::address(self.client, &self.head.headers));
            }
            Variable::RemoteUser => out.push_str(&auth::user(&self.head.headers)),
            Variable::ServerPort => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}", self.client.port);
            }
            Variable::PassPort => match self.front.port {
                // As above.
                Some(port) => _ = write!(out, "{port}"),
                None => push(&self.client.origin.port, out),
            },
            Variable::RequestId => {
                push(&fields::request_id(&self.head.headers, self.request_id), out);
            }
            Variable::Namespace => out.push_str(&self.route.ingress.namespace),
            Variable::IngressName => out.push_str(&self.route.ingress.name),
            Variable::ServiceName => {
                let upstream = self.route.upstream.as_ref();
                out.push_str(upstream.map_or("", |upstream| &upstream.key().service.name));
            }
            Variable::Header(name) => field(&self.head.headers, name, out),
            Variable::Cookie(name) => {
                out.push_str(cookies::find(&self.head.headers, name).unwrap_or_default());
            }
            Variable::Capture(group) => {
                if let Some(captured) = self.captured {
                    captured.write(*group, out);
                }
            }
            Variable::Arg(name) => out.push_str(argument(query, name).unwrap_or_default()),
        }
    }
}

fn push(value: &http::HeaderValue, out: &mut String) {
    out.push_str(value.to_str().unwrap_or_default());
}

/// nginx joins several by commas, and cookies as they are joined in HTTP/1 (RFC 9113 8.2.3).
fn field(headers: &HeaderMap, name: &HeaderName, out: &mut String) {
    let between = if name == COOKIE { "; " } else { ", " };
    for (i, value) in headers.get_all(name).iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        push(value, out);
    }
}

pub(crate) fn argument<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let mut arguments = query?.split('&');
    arguments.find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

/// As the value of a query parameter (RFC 3986 2.3).
pub(super) fn escape(text: &str, out: &mut String) {
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `if ($http_cookie ~ "(^|; )beta=1(;|$)")` did not see the second of two.
    #[test]
    fn bug_cookies_of_several_fields_are_one_text_as_in_http1() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("cookie", "a=1"), ("x-a", "1"), ("cookie", "beta=1"), ("x-a", "2")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        for (name, joined) in [("cookie", "a=1; beta=1"), ("x-a", "1, 2"), ("x-b", "")] {
            let mut out = String::new();
            field(&headers, &HeaderName::from_static(name), &mut out);
            assert_eq!(out, joined, "{name}");
        }
    }

    #[test]
    fn arguments_are_found_by_their_whole_name() {
        for (name, value) in [("q", Some("1")), ("r", Some("")), ("s", None)] {
            assert_eq!(argument(Some("qq=2&q=1&r="), name), value, "{name}");
        }
    }

    #[test]
    fn what_is_escaped_holds_no_other_parameter() {
        let mut out = String::new();
        escape("/a?b=c&d=\u{e4} #", &mut out);
        assert_eq!(out, "%2Fa%3Fb%3Dc%26d%3D%C3%A4%20%23");
    }
}
