//! A field as it is understood, pseudo or not (RFC 9113 8.2, 8.3).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method,
    uri::{Authority, PathAndQuery, Scheme},
};

/// A field of a request. Cloning one costs a count: tables hold what was understood once.
#[derive(Clone, Debug)]
pub(in super::super) enum Field {
    Method(Method),
    Scheme(Scheme),
    Authority(Authority),
    Path(PathAndQuery),
    Protocol(HeaderValue),
    Regular(HeaderName, HeaderValue),
    /// None that may be sent; others may refer to its name.
    Malformed(Name),
}

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Regular(HeaderName),
    /// No name, or an answer's.
    Malformed,
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            // Capitals are none either (RFC 9113 8.2.1).
            _ => HeaderName::from_lowercase(name).map_or(Self::Malformed, Self::Regular),
        }
    }
}

impl Field {
    pub(super) fn parse(name: Name, value: &[u8], is_sensitive: bool) -> Self {
        let shared = || Bytes::copy_from_slice(value);
        let understood = match &name {
            Name::Method => Method::from_bytes(value).ok().map(Self::Method),
            Name::Scheme => scheme(value).map(Self::Scheme),
            Name::Authority => Authority::from_maybe_shared(shared()).ok().map(Self::Authority),
            Name::Path => path(value).map(Self::Path),
            Name::Protocol => HeaderValue::from_bytes(value).ok().map(Self::Protocol),
            Name::Regular(name) => {
                regular(value, is_sensitive).map(|value| Self::Regular(name.clone(), value))
            }
            Name::Malformed => None,
        };
        understood.unwrap_or(Self::Malformed(name))
    }

    pub(super) fn name(&self) -> Name {
        match self {
            Self::Method(_) => Name::Method,
            Self::Scheme(_) => Name::Scheme,
            Self::Authority(_) => Name::Authority,
            Self::Path(_) => Name::Path,
            Self::Protocol(_) => Name::Protocol,
            Self::Regular(name, _) => Name::Regular(name.clone()),
            Self::Malformed(name) => name.clone(),
        }
    }
}

/// RFC 3986 3.1: a letter at least.
fn scheme(value: &[u8]) -> Option<Scheme> {
    Scheme::try_from(value).ok().filter(|_| !value.is_empty())
}

/// RFC 9113 8.3.1: with a slash, or an asterisk. A fragment is no part of it, and would be cut off
/// without a word.
fn path(value: &[u8]) -> Option<PathAndQuery> {
    let is_path = (value.first() == Some(&b'/') || value == b"*") && !value.contains(&b'#');
    is_path.then(|| PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(value)).ok())?
}

/// RFC 9113 8.2.1: nothing around it that HTTP/1 would take off.
fn regular(value: &[u8], is_sensitive: bool) -> Option<HeaderValue> {
    if value.trim_ascii().len() != value.len() {
        return None;
    }
    let mut value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value)).ok()?;
    value.set_sensitive(is_sensitive);
    Some(value)
}
