//! What comes on a connection before its requests, and the fields of those: PROXY header, first TLS
//! message.

use std::{net::SocketAddr, str};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, EXPECT, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
};
use rustls::server::Acceptor;

use crate::{
    config::ForwardedHeaders,
    proxy_protocol::{self, Header, Route, SHORTEST_BYTES},
    serve::{
        fields::{Edit, Origin, to_client, to_upstream},
        front::{Front, Scheme},
    },
    sni::{self, HELLO_BYTES_MAX, Hello},
};

/// No PROXY header is longer.
const PROXY_HEADER_BYTES_MAX: usize = 4096;
/// Beginnings of one first message that are looked at.
const BEGINNINGS_MAX: usize = 64;

/// Up to an empty line.
fn fields_of<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines.map(<[u8]>::trim_ascii_end).take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        fields.try_append(name, value).ok()?;
    }
    Some(fields)
}

/// A byte of circumstances, then fields, one a line. Whatever a client sends, an endpoint is told
/// who sent it by us, and nothing that was meant for us.
pub fn fields(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Some(sent) = fields_of(rest.split(|byte| *byte == b'\n')) else { return };
    let is = |bit: u8| kind & bit != 0;
    let text = HeaderValue::from_static;
    let (host, vhost, prefix) = (text("a.example"), text("b.internal"), text("/p"));
    let origin = Origin { client: text("192.0.2.1"), port: text("443") };
    let (trusts, is_told) = (is(1), is(64));
    let front = Front {
        scheme: Scheme::Https,
        port: is_told.then_some(8443),
        host: is_told.then(|| Box::new(text("c.example"))),
    };
    let edit = Edit {
        origin: &origin,
        front: &front,
        host: &host,
        vhost: is(2).then_some(&vhost),
        prefix: is(4).then_some(&prefix),
        policy: if trusts { ForwardedHeaders::Trust } else { ForwardedHeaders::Replace },
        named: None,
        underscores: is(8),
        websocket: is(16),
        request_id: 7,
        closes: is(32),
    };
    let mut headers = sent.clone();
    to_upstream(&mut headers, &edit);
    let all = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(all("host"), [edit.vhost.unwrap_or(&host).clone()]);
    for name in ["keep-alive", "proxy-connection", "proxy"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    for name in [TRANSFER_ENCODING, EXPECT, PROXY_AUTHORIZATION] {
        assert!(!headers.contains_key(&name), "{name}");
    }
    let ours = |name: HeaderName, values: &[&str]| {
        let mut all = headers.get_all(&name).iter();
        let is_ours = all.next().is_none_or(|value| values.iter().any(|ours| value == ours));
        assert!(is_ours && all.next().is_none(), "{name}: {headers:?}");
    };
    ours(CONNECTION, &["Upgrade", "close", "te"]);
    ours(UPGRADE, &["websocket"]);
    ours(TE, &["trailers"]);
    assert!(edit.underscores || !headers.keys().any(|name| name.as_str().contains('_')));
    assert!(headers.get_all(COOKIE).iter().count() <= 1);
    assert!(headers.contains_key("x-request-id"));
    let told = all("x-forwarded-for");
    assert!(matches!(&told[..], [one] if one.as_bytes().ends_with(b"192.0.2.1")), "{told:?}");
    assert_eq!(all("x-real-ip"), ["192.0.2.1"]);
    assert_eq!(all("x-forwarded-host"), [if is_told { "c.example" } else { "a.example" }]);
    assert_eq!(all("x-forwarded-port"), [if is_told { "8443" } else { "443" }]);
    for name in ["x-forwarded-proto", "x-forwarded-scheme", "x-scheme"] {
        assert_eq!(all(name), ["https"], "{name}");
    }
    if !trusts {
        assert_eq!(told, ["192.0.2.1"]);
        assert!(!headers.contains_key("forwarded"));
    }

    let mut answered = sent;
    to_client(&mut answered);
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE] {
        assert!(!answered.contains_key(&name), "{name}");
    }
}

/// The beginning of a connection from a balancer: as long as more is asked for nothing is believed,
/// never is more asked for than a header may be long, and what is read can be passed on.
pub fn proxy_protocol(bytes: &[u8]) {
    let mut taken = SHORTEST_BYTES.min(bytes.len());
    loop {
        let Some(beginning) = bytes.get(..taken) else { return };
        let missing = match proxy_protocol::parse(beginning) {
            Header::Needs(missing) => missing,
            Header::NeedsLineEnd => 1,
            Header::Proxied(Some(route)) => return is_passed_on(route),
            Header::Proxied(None) | Header::Invalid => return,
        };
        assert!(missing > 0 && taken + missing <= PROXY_HEADER_BYTES_MAX);
        taken += missing;
    }
}

fn is_passed_on(Route { source, destination }: Route) {
    let line = proxy_protocol::line(source, destination);
    // A mapped address is written as the one it maps; families do not mix.
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let (source, destination) = (plain(source), plain(destination));
    let is_one_family = source.is_ipv4() == destination.is_ipv4();
    let expected = is_one_family.then_some(Route { source, destination });
    assert_eq!(proxy_protocol::parse(line.as_bytes()), Header::Proxied(expected), "{line:?}");
}

/// A client's first TLS message: its beginnings say nothing else than all of it, and the name is the
/// one that rustls reads.
pub fn hello(bytes: &[u8]) {
    let bytes = bytes.get(..HELLO_BYTES_MAX).unwrap_or(bytes);
    let whole = sni::parse(bytes);
    let step = bytes.len() / BEGINNINGS_MAX + 1;
    for end in (0..bytes.len()).step_by(step) {
        let beginning = sni::parse(bytes.get(..end).unwrap_or_default());
        assert!(beginning == Hello::Partial || beginning == whole, "{end}: {beginning:?}");
    }
    if let Hello::Whole(Some(name)) = &whole {
        assert!(!name.is_empty() && name.is_ascii());
        assert!(!name.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace()));
    }
    if let Some(name) = name_by_rustls(bytes) {
        assert_eq!(whole, Hello::Whole(Some(name)));
    }
}

fn name_by_rustls(mut bytes: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    while acceptor.read_tls(&mut bytes).ok()? > 0 {
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
    None
}
