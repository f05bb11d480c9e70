//! What a request must be to be routed at all: checked before routing, on what was read of it. What
//! its bytes could mean to others is judged where they are read (`codec`).
//!
//! Each check closes a way by which a proxy and an upstream could read one request differently.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts};

use crate::{codec::h2::Protocol, config::Limits, counters::Refused, host, path};

/// Fields of one request; over HTTP/1 no more are read.
const FIELDS_MAX: usize = 100;

/// A request that may be routed.
#[derive(Debug)]
pub struct Admitted<'a> {
    /// Host as received, port included; empty for HTTP/1.0 without Host.
    pub host_text: &'a str,
    /// The field that says so, if it is one.
    pub host_field: Option<&'a HeaderValue>,
    /// Host as compared: lower case, no port, no trailing dot.
    pub host: Cow<'a, str>,
    /// Path, as it is matched and as it is forwarded.
    pub path: path::Read<'a>,
    /// It asks for a WebSocket.
    pub websocket: Option<Websocket>,
}

/// How a WebSocket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Websocket {
    /// GET with Upgrade (RFC 6455).
    Upgrade,
    /// Extended CONNECT (RFC 8441).
    Connect,
}

/// Checks a request's head.
///
/// # Errors
/// The reason it is refused for, which also gives the status.
pub fn admit<'a>(head: &'a Parts, limits: &Limits) -> Result<Admitted<'a>, Refused> {
    // nginx: a method is of capitals. Who folds others into these would do what no rule was asked about.
    let is_capital = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if !head.method.as_str().bytes().all(is_capital) {
        return Err(Refused::Malformed);
    }
    let websocket = websocket(head);
    // CONNECT would make a tunnel of us; TRACE shows a script the cookies it must not see.
    let is_connect = head.method == Method::CONNECT && websocket != Some(Websocket::Connect);
    if is_connect || head.method == Method::TRACE {
        return Err(Refused::Method);
    }
    if is_oversized(head) || fields(&head.headers) > FIELDS_MAX {
        return Err(Refused::FieldsTooMany);
    }
    let uri_bytes = head.uri.path_and_query().map_or(0, |uri| uri.as_str().len());
    if uri_bytes > limits.uri_bytes_max {
        return Err(Refused::UriTooLong);
    }
    transfer_coding(&head.headers)?;
    length(&head.headers)?;
    let (host_text, host_field) = authority(head)?;
    let host = match host_text {
        "" => Cow::Borrowed(""),
        text => host::normalise(text).ok_or(Refused::HostInvalid)?,
    };
    let path = path::read(head.uri.path()).map_err(|_| Refused::Path)?;
    Ok(Admitted { host_text, host_field, host, path, websocket })
}

/// Over HTTP/2 it was not read to its end (RFC 6585 5).
fn is_oversized(head: &Parts) -> bool {
    let is_marked = || head.extensions.get::<crate::codec::h2::Oversized>().is_some();
    head.version == Version::HTTP_2 && is_marked()
}

/// A cookie is one, in however many crumbs it comes over HTTP/2 (RFC 9113 8.2.3).
fn fields(headers: &HeaderMap) -> usize {
    match headers.len() {
        all if all <= FIELDS_MAX => all,
        all => all - headers.get_all(header::COOKIE).iter().count().saturating_sub(1),
    }
}

/// Any other coding would be stripped on the way while the body stays coded (RFC 9112 6.1: 501).
fn transfer_coding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refused::TransferCoding),
    }
}

/// HTTP/2 libraries look at the first one; HTTP/1 upstreams would be told both.
fn length(headers: &HeaderMap) -> Result<(), Refused> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) => Ok(()),
        _ => Err(Refused::Length),
    }
}

/// The one host a request names (RFC 9112 3.2, RFC 9113 8.3.1).
fn authority(head: &Parts) -> Result<(&str, Option<&HeaderValue>), Refused> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let field = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Refused::HostDuplicate),
        (field, None) => field,
    };
    let text = field.map(|field| field.to_str().map_err(|_| Refused::HostInvalid)).transpose()?;
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    match (text, target) {
        (Some(""), _) | (_, Some("")) => Err(Refused::HostInvalid),
        (Some(text), Some(target)) if !text.eq_ignore_ascii_case(target) => {
            Err(Refused::HostMismatch)
        }
        // RFC 9112 3.2: the field is needed whatever the target says; whoever is behind may go by it.
        (None, Some(_)) if head.version == Version::HTTP_11 => Err(Refused::HostMissing),
        (Some(host), _) | (None, Some(host)) => Ok((host, field)),
        (None, None) if head.version == Version::HTTP_10 => Ok(("", None)),
        (None, None) => Err(Refused::HostMissing),
    }
}

fn websocket(head: &Parts) -> Option<Websocket> {
    if head.method == Method::CONNECT {
        let protocol = head.extensions.get::<Protocol>()?;
        return (protocol.as_bytes() == b"websocket").then_some(Websocket::Connect);
    }
    is_websocket(head).then_some(Websocket::Upgrade)
}

/// RFC 6455 4.1. Anything else that asks for an upgrade is served without one. Some clients say that there is no body
/// (RFC 9110 8.6).
fn is_websocket(head: &Parts) -> bool {
    let mut upgrades = head.headers.get_all(header::UPGRADE).iter();
    let is_token = upgrades.next().is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_token
        && upgrades.next().is_none()
        && head.version == Version::HTTP_11
        && head.method == Method::GET
        && head.headers.get_all(header::CONTENT_LENGTH).iter().all(|length| length == "0")
        && !head.headers.contains_key(header::TRANSFER_ENCODING)
        && names(&head.headers, header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// The comma-separated names of a field.
pub(crate) fn names(headers: &HeaderMap, field: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(field).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
