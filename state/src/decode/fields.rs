//! Single fields: text to address, port, name or time, or one line saying what is wrong with it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnetwork::IpNetwork;
use k8s_openapi::jiff::Timestamp;

use crate::model::Protocol;

/// Longest DNS label (RFC 1035 2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS name as Kubernetes counts it (RFC 1123 subdomain).
const NAME_BYTES_MAX: usize = 253;

/// An address. The IPv4-mapped form is refused: it would be a second spelling of an IPv4 address.
pub(super) fn ip(text: &str, field: fmt::Arguments<'_>) -> Result<IpAddr, String> {
    let ip = text.parse().ok().or_else(|| decimal(text).map(IpAddr::V4));
    let Some(ip) = ip else { return Err(format!("{field} {text:?} is not an IP address")) };
    match ip {
        IpAddr::V6(v6) if let Some(v4) = v6.to_ipv4_mapped() => {
            Err(format!("{field} {text:?} is an IPv4-mapped IPv6 address; write {v4}"))
        }
        _ => Ok(ip),
    }
}

/// IPv4 with leading zeros. API servers kept such before they validated strictly (KEP-4858), and all of Kubernetes reads them as
/// decimal (`ParseIPSloppy` of k8s.io/utils/net), never as octal (CVE-2021-29923).
fn decimal(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// An address that may stand for a Service: not one that every node takes for itself.
pub(super) fn service_ip(text: &str, field: fmt::Arguments<'_>) -> Result<IpAddr, String> {
    let ip = ip(text, field)?;
    let what = match ip {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_loopback() => "a loopback address",
        _ if ip.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        _ => return Ok(ip),
    };
    Err(format!("{field} {text:?} is {what}, which cannot be a Service's"))
}

/// A network; bits below the prefix are cleared and leading zeros of a decimal are passed over, as by the
/// API server and kube-proxy (k8s.io/utils/net.ParseCIDRSloppy): 010.0.0.0/8 is 10.0.0.0/8 to all of them.
pub(super) fn network(text: &str, field: fmt::Arguments<'_>) -> Result<IpNetwork, String> {
    let wrong = || format!("{field} {text:?} is not a network such as 10.0.0.0/8");
    let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
    let address = ip(address, field)?;
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let prefix = prefix.parse().map_err(|_| wrong())?;
    let network = IpNetwork::new(address, prefix).map_err(|_| wrong())?;
    IpNetwork::new(network.network(), prefix).map_err(|_| wrong())
}

/// A port number, never 0.
pub(super) fn port(number: i64, field: fmt::Arguments<'_>) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{field} {number} is not a port (1-65535)")),
    }
}

/// A transport protocol; absent means TCP.
pub(super) fn protocol(text: Option<&str>, field: fmt::Arguments<'_>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{field} {other:?} is not one of TCP, UDP, SCTP")),
    }
}

/// A DNS label as Kubernetes names have: lower-case letters, digits and `-` inside.
pub(super) fn label(text: &str, field: fmt::Arguments<'_>) -> Result<(), String> {
    if is_label(text) {
        return Ok(());
    }
    Err(format!(
        "{field} {text:?} is not a DNS label (1-63 lower-case letters, digits, and - inside)"
    ))
}

/// A DNS name of such labels.
pub(super) fn dns_name(text: &str, field: fmt::Arguments<'_>) -> Result<(), String> {
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!(
        "{field} {text:?} is not a DNS name (lower-case letters, digits, - and . inside, up to 253)"
    ))
}

/// The name of an object, as most kinds have it (apimachinery's NameIsDNSSubdomain): up to 253 bytes, and
/// other than of a DNS name's the length of its labels is not looked at.
pub(super) fn object_name(text: &str, field: fmt::Arguments<'_>) -> Result<(), String> {
    if is_object_name(text) {
        return Ok(());
    }
    Err(format!(
        "{field} {text:?} is no name of an object (lower-case letters, digits, - and . inside, up to 253)"
    ))
}

/// Whether an object may have this name. One that may not is asked for nowhere: within a selector of
/// fields it could be more than a name.
pub fn is_object_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_word)
}

/// Seconds since the epoch, 0 if absent.
pub(super) fn seconds(text: Option<&str>, field: fmt::Arguments<'_>) -> Result<i64, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    let time: Timestamp = text
        .parse()
        .map_err(|_| format!("{field} {text:?} is not a time such as 2026-01-31T12:00:00Z"))?;
    Ok(time.as_second())
}

/// Milliseconds since the epoch; nothing if it cannot be read, for it only feeds a metric.
pub(super) fn milliseconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// At most one address of each family, and no third.
pub(super) fn dual_stack(ips: &[IpAddr], field: &str) -> Result<(), String> {
    match ips {
        [] | [_] => Ok(()),
        [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(()),
        [a, b] => Err(format!("{field} holds two addresses of one family, {a} and {b}")),
        more => {
            Err(format!("{field} holds {} addresses; one of each family is the most", more.len()))
        }
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX && is_word(text)
}

fn is_word(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// An address nothing can listen on.
pub(super) fn is_no_host(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast()
}
