//! Who answers where an endpoint cannot, or answers with an error.

use std::collections::BTreeSet;

use fairlead_state::Name;
use http::StatusCode;

use super::value::{Read, Unread, bad, flag};

/// What an Ingress says about errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// The Service that answers instead, of the Ingress's namespace.
    pub(crate) backend: Option<Name>,
    codes: BTreeSet<u16>,
    /// Errors of endpoints are passed on, only our own are replaced.
    own_only: bool,
}

impl Errors {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "default-backend" => service(value).map(|service| self.backend = Some(service)),
            "custom-http-errors" => codes(value).map(|codes| self.codes = codes),
            "disable-proxy-intercept-errors" => flag(value).map(|flag| self.own_only = flag),
            _ => return None,
        })
    }

    /// Error codes are named and nobody is to answer them: ingress-nginx asks its own default
    /// backend, and here is none.
    pub(super) fn is_unanswered(&self) -> bool {
        self.backend.is_none() && !self.codes.is_empty()
    }

    /// Whether the Service answers instead; `of_endpoint`: the error is an endpoint's.
    pub(crate) fn replaces(&self, status: StatusCode, of_endpoint: bool) -> bool {
        self.codes.contains(&status.as_u16()) && !(of_endpoint && self.own_only)
    }

    /// Whether any status is.
    pub(crate) fn replaces_any(&self) -> bool {
        !self.codes.is_empty()
    }

    /// Whether anything is replaced.
    pub(crate) fn is_active(&self) -> bool {
        self.backend.is_some()
    }
}

/// RFC 1035, as Kubernetes names Services.
fn service(value: &str) -> Result<Name, Unread> {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_name = value.len() <= 63
        && value.bytes().all(is_letter)
        && value.starts_with(|c: char| c.is_ascii_lowercase())
        && !value.ends_with('-');
    if is_name { Ok(value.into()) } else { bad("is no name of a Service") }
}

fn codes(value: &str) -> Result<BTreeSet<u16>, Unread> {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let code = |text: &str| text.parse().ok().filter(|code| (400..600).contains(code));
    let codes: Option<BTreeSet<u16>> = texts.map(code).collect();
    match codes {
        Some(codes) if !codes.is_empty() => Ok(codes),
        _ => bad("is no list of codes from 400 to 599"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_errors_and_nothing_else() {
        for (text, expected) in [
            ("404", Some(vec![404])),
            ("404, 503", Some(vec![404, 503])),
            ("404,", Some(vec![404])),
            ("200", None),
            ("600", None),
            ("4xx", None),
            ("", None),
        ] {
            let read = codes(text).ok().map(|codes| codes.into_iter().collect::<Vec<_>>());
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn a_service_is_of_the_own_namespace_because_no_other_can_be_named() {
        for (text, good) in [("web", true), ("a-1", true), ("other/web", false), ("-a", false)] {
            assert_eq!(service(text).is_ok(), good, "{text}");
        }
    }
}
