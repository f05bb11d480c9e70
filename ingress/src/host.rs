//! Host names: as rules state them and as requests carry them.

use std::{borrow::Cow, fmt};

use fairlead_state::Name;

/// Longest Host field that is looked at (a DNS name, brackets, a port).
pub const HOST_BYTES_MAX: usize = 255;

/// The host of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// No host: all of them.
    Any,
    /// One name, lower-case.
    Exact(Name),
    /// `*.suffix`: exactly one label before the suffix. Holds the suffix.
    Wildcard(Name),
}

impl HostPattern {
    /// Reads `spec.rules[].host` or `spec.tls[].hosts[]`.
    ///
    /// # Errors
    /// The reason, if it is neither a DNS name nor `*.` and a DNS name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (suffix, wildcard) = match lower.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (lower.as_str(), false),
        };
        if suffix.len() > HOST_BYTES_MAX || !suffix.split('.').all(is_label) {
            return Err(format!("host {text:?} is neither a DNS name nor *. and a DNS name"));
        }
        if wildcard { Ok(Self::Wildcard(suffix.into())) } else { Ok(Self::Exact(suffix.into())) }
    }

    /// Whether `self`, from a TLS section, covers the rule host `host`.
    pub fn covers(&self, host: &Self) -> bool {
        match (self, host) {
            (Self::Wildcard(suffix), Self::Exact(name)) => {
                wildcard_suffix(name).is_some_and(|rest| rest == &**suffix)
            }
            _ => self == host,
        }
    }

    /// The wildcard that covers a name.
    pub(crate) fn wildcard(&self) -> Option<Self> {
        match self {
            Self::Exact(name) => Some(Self::Wildcard(wildcard_suffix(name)?.into())),
            Self::Any | Self::Wildcard(_) => None,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// What a `*.` rule must have as suffix to match `name`; `None` for a single label.
pub fn wildcard_suffix(name: &str) -> Option<&str> {
    match name.split_once('.') {
        Some((label, rest)) if !label.is_empty() && !rest.is_empty() => Some(rest),
        _ => None,
    }
}

/// `www.NAME` for a name, and the name for `www.NAME`.
pub(crate) fn www(host: &HostPattern) -> Option<HostPattern> {
    let HostPattern::Exact(name) = host else { return None };
    let other = match name.strip_prefix("www.") {
        Some(bare) => bare.to_owned(),
        None => format!("www.{name}"),
    };
    HostPattern::parse(&other).ok()
}

/// A request's host without port and trailing dot, in lower case; `None` if it is not valid.
///
/// Stricter than RFC 3986: letters, digits, `.`, `-`, `_`, or an address in brackets. Anything else
/// has no meaning to a router and has had one to attackers.
pub fn normalise(text: &str) -> Option<Cow<'_, str>> {
    if text.is_empty() || text.len() > HOST_BYTES_MAX {
        return None;
    }
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']')?;
        let (host, rest) = text.split_at_checked(end + 1)?;
        let inner = host.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<std::net::Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        text.split_at_checked(end)?
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':')?;
        if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    // nginx refuses an empty label, too: without its last dot the host would have another one.
    if host.is_empty() || host.ends_with('.') || host.contains("..") {
        return None;
    }
    if !(host.starts_with('[') || host.bytes().all(is_host_byte)) {
        return None;
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_host_is_compared_without_case_port_and_trailing_dot() {
        for (text, expected) in [
            ("foo.com", Some("foo.com")),
            ("FOO.com", Some("foo.com")),
            ("foo.com:8080", Some("foo.com")),
            ("foo.com:", Some("foo.com")),
            ("foo.com.", Some("foo.com")),
            ("foo.com.:80", Some("foo.com")),
            ("10.0.0.1:80", Some("10.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("[zz]", None),
            ("[::1", None),
            ("[::1]x", None),
            ("", None),
            (".", None),
            ("..", None),
            ("foo.com..", None),
            ("foo..com", None),
            (":80", None),
            ("foo.com:80x", None),
            ("foo.com:123456", None),
            ("foo com", None),
            ("foo.com/bar", None),
            ("user@foo.com", None),
            ("foo,bar", None),
            ("foo\u{e4}.com", None),
        ] {
            assert_eq!(normalise(text).as_deref(), expected, "{text:?}");
        }
        assert_eq!(normalise(&"a".repeat(256)), None);
    }

    #[test]
    fn a_rule_host_is_a_name_or_a_wildcard_of_a_name() {
        for good in ["foo.com", "*.foo.com", "foo", "a-b.c_d.e"] {
            assert_eq!(HostPattern::parse(good).unwrap().to_string(), good);
        }
        assert_eq!(HostPattern::parse("FOO.com").unwrap().to_string(), "foo.com");
        for bad in ["*", "*.", "a.*.b", "*foo.com", "foo..com", "foo.com/x", "foo:80", "-a.b", ""] {
            assert!(HostPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard = HostPattern::parse("*.foo.com").unwrap();
        for (host, covered) in
            [("a.foo.com", true), ("foo.com", false), ("a.b.foo.com", false), ("*.foo.com", true)]
        {
            assert_eq!(wildcard.covers(&HostPattern::parse(host).unwrap()), covered, "{host}");
        }
    }
}
