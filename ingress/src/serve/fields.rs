//! Header fields on their way: what is taken off, what is set. Pure.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::front::Front;
use crate::{admission::names, config::ForwardedHeaders};

/// What is among the fields: bits of [`there`]. But for Host it is hardly ever.
const HOP_BY_HOP: u8 = 1;
/// Names that are taken off.
const TAKEN_OFF: u8 = 1 << 1;
const UNDERSCORE: u8 = 1 << 2;
const COOKIES: u8 = 1 << 3;
const REQUEST_ID: u8 = 1 << 4;
const HOST_FIELD: u8 = 1 << 5;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// CGI programs take it for `HTTP_PROXY` (httpoxy, CVE-2016-5385).
static PROXY: HeaderName = HeaderName::from_static("proxy");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
static X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
static X_ORIGINAL_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-original-forwarded-host");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");

/// Fields Connection may not take away: where a request goes, who sent it, how long it is, what it is
/// a part of.
const PROTECTED: [&str; 8] = [
    "host",
    "content-length",
    "authorization",
    "cookie",
    "origin",
    "x-request-id",
    "traceparent",
    "tracestate",
];
/// A client's request id is kept up to this length.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Fields that are set for every request: who sent it, and its id.
const FIELDS_SET: usize = 8;

/// What is known of a connection, in the form of fields.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The client's address.
    pub(crate) client: HeaderValue,
    /// The port it called, as it is known outside.
    pub(crate) port: HeaderValue,
}

/// What a request to an upstream is made of.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    pub(crate) origin: &'a Origin,
    /// How the client asked.
    pub(crate) front: &'a Front,
    /// Host as received: that of the fields, if it is among them.
    pub(crate) host: &'a HeaderValue,
    /// Host as the upstream sees it, if another.
    pub(crate) vhost: Option<&'a HeaderValue>,
    /// `X-Forwarded-Prefix`, if it is set here.
    pub(crate) prefix: Option<&'a HeaderValue>,
    pub(crate) policy: ForwardedHeaders,
    /// The client, if a balancer that is believed names it.
    pub(crate) named: Option<IpAddr>,
    pub(crate) underscores: bool,
    pub(crate) websocket: bool,
    /// Taken if the client sends none.
    pub(crate) request_id: u128,
    /// The connection is to serve this request only.
    pub(crate) closes: bool,
}

/// Makes a client's fields those of the request to an upstream.
pub(crate) fn to_upstream(headers: &mut HeaderMap, edit: &Edit<'_>) {
    let there = there(headers);
    let has = |kind: u8| there & kind != 0;
    let is_trailers = |coding: &str| coding.eq_ignore_ascii_case("trailers");
    let trailers = has(HOP_BY_HOP) && names(headers, TE).any(is_trailers);
    if has(HOP_BY_HOP) {
        strip_hop_by_hop(headers);
    }
    if has(TAKEN_OFF) {
        // The expectation is met here: its client is told to go on once the body is taken.
        headers.remove(EXPECT);
        headers.remove(PROXY_AUTHORIZATION);
        headers.remove(&PROXY);
        headers.remove(&X_ORIGINAL_FORWARDED_FOR);
        if edit.policy != ForwardedHeaders::Trust {
            headers.remove(FORWARDED);
            headers.remove(&X_ORIGINAL_FORWARDED_HOST);
        }
    }
    if has(UNDERSCORE) && !edit.underscores {
        strip_underscores(headers);
    }
    if has(COOKIES) {
        join_cookies(headers);
    }
    // As many as there will be: with a few to spare the map would often be twice as large.
    let of_connection = 2 * usize::from(edit.websocket || edit.closes || trailers);
    let others = usize::from(!has(HOST_FIELD)) + usize::from(edit.prefix.is_some());
    headers.reserve(FIELDS_SET + of_connection + others);
    if edit.vhost.is_some() || !has(HOST_FIELD) {
        headers.insert(HOST, edit.vhost.unwrap_or(edit.host).clone());
    }
    set_forwarded(headers, edit);
    if !has(REQUEST_ID) || sent_request_id(headers).is_none() {
        headers.insert(&X_REQUEST_ID, hex(edit.request_id));
    }
    if let Some(prefix) = edit.prefix {
        headers.insert(&X_FORWARDED_PREFIX, prefix.clone());
    }
    if edit.websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    } else if edit.closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Fields that are said otherwise than the client said them, if at all.
pub(crate) fn overrule<'f>(
    headers: &mut HeaderMap,
    fields: impl IntoIterator<Item = &'f (HeaderName, Option<HeaderValue>)>,
) {
    for (name, value) in fields {
        match value {
            Some(value) => _ = headers.insert(name, value.clone()),
            None => {
                headers.remove(name);
                // Nor is it a trailer: what is not announced is not sent.
                headers.remove(TRAILER);
            }
        }
    }
}

/// The client's request id, or `own` if it sent none that is kept.
pub(crate) fn request_id(headers: &HeaderMap, own: u128) -> HeaderValue {
    sent_request_id(headers).cloned().unwrap_or_else(|| hex(own))
}

/// The client's, if it is one that is kept (ingress-nginx: `map $http_x_request_id $req_id`).
pub(crate) fn sent_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let id = headers.get(&X_REQUEST_ID)?;
    (!id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX).then_some(id)
}

/// Makes an upstream's fields those of the response to a client.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    let there = there(headers);
    if there & HOP_BY_HOP != 0 {
        strip_hop_by_hop(headers);
    }
    if there & TAKEN_OFF != 0 {
        headers.remove(PROXY_AUTHENTICATE);
    }
}

/// A part of a head keeps all the room that was read into: what outlives its request is copied.
pub(crate) fn own(value: &HeaderValue) -> HeaderValue {
    let Ok(mut own) = HeaderValue::from_bytes(value.as_bytes()) else { return value.clone() };
    own.set_sensitive(value.is_sensitive());
    own
}

/// What is among the fields that needs more than a look. One walk sees it, where looking for each
/// would take many.
fn there(headers: &HeaderMap) -> u8 {
    headers.keys().fold(0, |seen, name| seen | kind(name.as_str()))
}

fn kind(name: &str) -> u8 {
    match name {
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding"
        | "upgrade" => HOP_BY_HOP,
        "expect"
        | "forwarded"
        | "proxy"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "x-original-forwarded-for"
        | "x-original-forwarded-host" => TAKEN_OFF,
        "cookie" => COOKIES,
        "x-request-id" => REQUEST_ID,
        "host" => HOST_FIELD,
        name if name.as_bytes().contains(&b'_') => UNDERSCORE,
        _ => 0,
    }
}

/// RFC 9110 7.6.1.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        strip_named_by_connection(headers);
    }
    headers.remove(CONNECTION);
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(TE);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
}

fn strip_named_by_connection(headers: &mut HeaderMap) {
    let is_option = |name: &str| {
        ["keep-alive", "close", "upgrade", "te"].iter().any(|o| name.eq_ignore_ascii_case(o))
    };
    if names(headers, CONNECTION).all(is_option) {
        return;
    }
    let named: Vec<HeaderName> = names(headers, CONNECTION)
        .filter(|name| !PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected)))
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// To CGI and its heirs `X_Real_IP` is `X-Real-IP` (nginx: underscores_in_headers off).
fn strip_underscores(headers: &mut HeaderMap) {
    let has = |name: &HeaderName| name.as_str().contains('_');
    let named: Vec<HeaderName> = headers.keys().filter(|name| has(name)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// HTTP/2 clients split them, HTTP/1 upstreams expect one field (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(crumbs.join(&b"; "[..])));
    if let Ok(joined) = joined {
        headers.insert(COOKIE, joined);
    }
}

fn set_forwarded(headers: &mut HeaderMap, edit: &Edit<'_>) {
    let (origin, front) = (edit.origin, edit.front);
    let scheme = HeaderValue::from_static(front.scheme.as_str());
    let port = front.port.map_or_else(|| origin.port.clone(), HeaderValue::from);
    let claimed_host =
        headers.insert(&X_FORWARDED_HOST, front.host.as_deref().unwrap_or(edit.host).clone());
    headers.insert(&X_FORWARDED_PORT, port);
    headers.insert(&X_FORWARDED_PROTO, scheme.clone());
    headers.insert(&X_FORWARDED_SCHEME, scheme.clone());
    headers.insert(&X_SCHEME, scheme);
    // ingress-nginx: whoever is believed, what was claimed stays readable (buildForwardedFor).
    let claimed = joined(headers, &X_FORWARDED_FOR).filter(|claimed| !claimed.is_empty());
    let is_trusted = edit.policy == ForwardedHeaders::Trust;
    let appended = claimed.as_ref().filter(|_| is_trusted).map(|claimed| {
        HeaderValue::from_bytes(&[claimed.as_bytes(), origin.client.as_bytes()].join(&b", "[..]))
    });
    let forwarded_for = appended.and_then(Result::ok).unwrap_or_else(|| origin.client.clone());
    headers.insert(&X_FORWARDED_FOR, forwarded_for);
    if let Some(claimed) = claimed {
        headers.insert(&X_ORIGINAL_FORWARDED_FOR, claimed);
    }
    // nginx: $remote_addr. Balancers often leave this one as the client wrote it.
    let named = edit.named.filter(|_| is_trusted);
    let named = named.and_then(|named| HeaderValue::try_from(named.to_string()).ok());
    headers.insert(&X_REAL_IP, named.unwrap_or_else(|| origin.client.clone()));
    if let Some(claimed) = claimed_host.filter(|_| !is_trusted) {
        headers.insert(&X_ORIGINAL_FORWARDED_HOST, claimed);
    }
}

/// nginx: several of a name are one, by commas. `None`: there is none.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(first.clone());
    }
    let all: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
}

/// As text.
pub(crate) fn hex(id: u128) -> HeaderValue {
    HeaderValue::from_bytes(&hex_digits(id)).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

pub(crate) fn hex_digits(id: u128) -> [u8; 32] {
    let mut text = [0u8; 32];
    for (digits, byte) in text.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        for (digit, nibble) in digits.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        }
    }
    text
}

#[cfg(test)]
mod tests;
