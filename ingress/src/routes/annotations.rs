//! `nginx.ingress.kubernetes.io/*`, each parsed to a type or refused with a reason.

use fairlead_state::{Key, model::Ingress};

use super::{finding::Severity, upstream::Protocol};
use crate::tls::TlsWish;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// What an Ingress says beyond its rules. The defaults are ingress-nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Annotations {
    /// Plain HTTP is redirected where there is a TLS section.
    pub(super) ssl_redirect: bool,
    /// Plain HTTP is redirected in any case: somebody in front ends TLS.
    pub(super) force_ssl_redirect: bool,
    /// `None`: the Service decides.
    pub(super) protocol: Option<Protocol>,
    /// `None`: the role's setting.
    pub(super) body_bytes_max: Option<u64>,
    /// For protocols with TLS.
    pub(super) tls: TlsWish,
    /// Those that act, as `name=value`.
    pub(super) in_force: Vec<String>,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            ssl_redirect: true,
            force_ssl_redirect: false,
            protocol: None,
            body_bytes_max: None,
            tls: TlsWish::default(),
            in_force: Vec::new(),
        }
    }
}

/// Reads them; what is refused or has no effect goes to `find`.
pub(super) fn parse(ingress: &Ingress, mut find: impl FnMut(Severity, String)) -> Annotations {
    let mut all = Annotations::default();
    for (name, value) in &*ingress.annotations {
        let Some(short) = name.strip_prefix(PREFIX) else { continue };
        let read = match short {
            "ssl-redirect" => flag(value).map(|flag| all.ssl_redirect = flag),
            "force-ssl-redirect" => flag(value).map(|flag| all.force_ssl_redirect = flag),
            "backend-protocol" => protocol(value).map(|protocol| all.protocol = Some(protocol)),
            "proxy-body-size" => size(value).map(|size| all.body_bytes_max = Some(size)),
            "proxy-ssl-verify" => switch(value).map(|on| all.tls.verify = on),
            "proxy-ssl-server-name" => switch(value).map(|on| all.tls.server_name = on),
            "proxy-ssl-name" => {
                all.tls.name = Some(value.clone());
                Ok(())
            }
            "proxy-ssl-secret" => {
                own_secret(&ingress.key, value).map(|secret| all.tls.secret = Some(secret))
            }
            _ => Err(Unread::Unknown),
        };
        match read {
            Ok(()) => all.in_force.push(format!("{short}={}", value.escape_debug())),
            Err(Unread::Unknown) => {
                find(Severity::Differs, format!("annotation {name} has no effect here"));
            }
            Err(Unread::NotServed(what)) => {
                find(Severity::Differs, format!("annotation {name} {value:?} {what}"));
            }
            Err(Unread::Bad(what)) => {
                find(Severity::Refused, format!("annotation {name} {value:?} {what}"));
            }
        }
    }
    all
}

/// Why an annotation has no effect.
enum Unread {
    Unknown,
    NotServed(&'static str),
    Bad(&'static str),
}

fn flag(value: &str) -> Result<bool, Unread> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Unread::Bad("is neither \"true\" nor \"false\"")),
    }
}

/// ingress-nginx compares without case.
fn protocol(value: &str) -> Result<Protocol, Unread> {
    match value.to_ascii_uppercase().as_str() {
        "HTTP" => Ok(Protocol::Http1),
        "GRPC" => Ok(Protocol::H2c),
        "HTTPS" => Ok(Protocol::Https),
        "GRPCS" => Ok(Protocol::Grpcs),
        "AUTO_HTTP" | "FCGI" => Err(Unread::NotServed("is not served yet; HTTP is spoken")),
        _ => Err(Unread::Bad("is none of HTTP, HTTPS, GRPC, GRPCS; HTTP is spoken")),
    }
}

fn switch(value: &str) -> Result<bool, Unread> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Unread::Bad("is neither \"on\" nor \"off\"")),
    }
}

/// ingress-nginx reads `NAMESPACE/NAME`, and so does whoever wrote it; no other namespace's.
fn own_secret(ingress: &Key, value: &str) -> Result<Key, Unread> {
    let name = match value.split_once('/') {
        None => value,
        Some((namespace, name)) if *namespace == *ingress.namespace => name,
        Some(_) => return Err(Unread::Bad("is of another namespace and never read")),
    };
    if name.is_empty() || name.contains('/') {
        return Err(Unread::Bad("names no Secret; give NAMESPACE/NAME"));
    }
    Ok(Key::new(ingress.namespace.clone(), name))
}

/// nginx's sizes: bytes, or with k, m or g; 0 is no limit.
fn size(value: &str) -> Result<u64, Unread> {
    const WRONG: Unread = Unread::Bad("is no size; give bytes, or a number with k, m or g");
    let (digits, shift) = match value.as_bytes().last() {
        Some(b'k' | b'K') => (value.get(..value.len() - 1), 10),
        Some(b'm' | b'M') => (value.get(..value.len() - 1), 20),
        Some(b'g' | b'G') => (value.get(..value.len() - 1), 30),
        _ => (Some(value), 0),
    };
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(WRONG)?;
    match number.checked_mul(1 << shift).ok_or(WRONG)? {
        0 => Ok(u64::MAX),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_nginxs() {
        for (text, expected) in [
            ("0", Some(u64::MAX)),
            ("1", Some(1)),
            ("1m", Some(1 << 20)),
            ("8K", Some(8 << 10)),
            ("2g", Some(2 << 30)),
            ("0m", Some(u64::MAX)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("+1", None),
            ("1.5m", None),
            ("1mb", None),
            ("1 m", None),
            ("99999999999999999999", None),
            ("99999999999999g", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_parser(value in "\\PC*") {
            let _ = (flag(&value), protocol(&value), size(&value));
        }
    }
}
