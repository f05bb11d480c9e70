//! Values, each read as ingress-nginx reads it.

use std::borrow::Cow;

use fairlead_state::{Key, decode::is_object_name};
use ipnetwork::IpNetwork;

use crate::{
    expression::{Expression, Uncompiled},
    networks::Networks,
};

/// Networks in one list: as many as stand in a ConfigMap of 1 MiB (`1.2.3.4,`).
const NETWORKS_MAX: usize = 128 << 10;

/// Why an annotation has no effect, or another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Not a name of ingress-nginx.
    Unknown,
    /// It is read, and something of it is not done.
    NotServed(Cow<'static, str>),
    /// No such value.
    Bad(Cow<'static, str>),
}

/// What became of one annotation.
pub(crate) type Read = Result<(), Unread>;

pub(crate) fn bad<T>(reason: impl Into<Cow<'static, str>>) -> Result<T, Unread> {
    Err(Unread::Bad(reason.into()))
}

/// Go's strconv.ParseBool.
pub(crate) fn flag(value: &str) -> Result<bool, Unread> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bad("is neither \"true\" nor \"false\""),
    }
}

pub(crate) fn switch(value: &str) -> Result<bool, Unread> {
    match value.trim() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bad("is neither \"on\" nor \"off\""),
    }
}

/// Go's strconv.Atoi, without the negative numbers: they mean nothing anywhere.
pub(crate) fn number<T: TryFrom<u64>>(value: &str) -> Result<T, Unread> {
    let digits = value.strip_prefix('+').unwrap_or(value);
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok());
    match number.flatten().and_then(|number| T::try_from(number).ok()) {
        Some(number) => Ok(number),
        None => bad("is no number"),
    }
}

/// Seconds that may be negative: whatever is to last for so long is over at once.
pub(super) fn signed(value: &str) -> Result<i64, Unread> {
    value.parse().or_else(|_| bad("is no number of seconds"))
}

/// Seconds, as milliseconds.
pub(crate) fn seconds(value: &str) -> Result<u64, Unread> {
    number::<u32>(value).map(|seconds| u64::from(seconds) * 1000)
}

/// nginx's sizes: bytes, or with k, m or g; 0 is no limit.
pub(crate) fn size(value: &str) -> Result<u64, Unread> {
    const WRONG: Unread =
        Unread::Bad(Cow::Borrowed("is no size; give bytes, or a number with k, m or g"));
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

/// Addresses and networks, separated by commas.
pub(crate) fn networks(value: &str) -> Result<Networks, Unread> {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let networks: Result<Vec<IpNetwork>, _> =
        texts.take(NETWORKS_MAX + 1).map(str::parse).collect();
    match networks {
        Ok(networks) if networks.is_empty() => bad("names no network"),
        Ok(networks) if networks.len() > NETWORKS_MAX => {
            bad(format!("names more than {NETWORKS_MAX} networks"))
        }
        Ok(networks) => Ok(networks.into_iter().collect()),
        Err(_) => bad("is no list of addresses and networks (10.0.0.0/8, 2001:db8::1)"),
    }
}

/// An expression as nginx compiles it (`~*`): by bytes and without case, but without back references and
/// looking around.
pub(crate) fn regex(pattern: &str) -> Result<Expression, Unread> {
    compiled(pattern, true)
}

/// The same, with case.
pub(crate) fn regex_with_case(pattern: &str) -> Result<Expression, Unread> {
    compiled(pattern, false)
}

fn compiled(pattern: &str, ignores_case: bool) -> Result<Expression, Unread> {
    let compiled = Expression::compile(pattern, ignores_case);
    compiled.or_else(|why| match why {
        Uncompiled::TooLong => bad("is too long for a regular expression"),
        Uncompiled::TooLarge => bad("is too large a regular expression"),
        Uncompiled::Wrong => {
            bad("is no regular expression that is served (without look-around and back references)")
        }
    })
}

/// An object that Kubernetes names by namespace and name: only of the Ingress's own namespace,
/// whoever wrote the other.
pub(super) fn own_object(ingress: &Key, value: &str, kind: &str) -> Result<Key, Unread> {
    let name = match value.split_once('/') {
        None => value,
        Some((namespace, name)) if *namespace == *ingress.namespace => name,
        Some(_) => return bad("is of another namespace and never read"),
    };
    if !is_object_name(name) {
        return bad(format!("names no {kind}; give NAMESPACE/NAME"));
    }
    Ok(Key::new(ingress.namespace.clone(), name))
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

    #[test]
    fn flags_are_gos() {
        for (text, expected) in [
            ("true", Some(true)),
            ("True", Some(true)),
            ("1", Some(true)),
            ("F", Some(false)),
            ("yes", None),
            ("tRUE", None),
            (" true", None),
        ] {
            assert_eq!(flag(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_not_negative_and_fit() {
        for (text, expected) in
            [("5", Some(5)), ("+5", Some(5)), ("-5", None), ("", None), ("300", None), ("1s", None)]
        {
            assert_eq!(number::<u8>(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn lists_of_networks_are_read_whole_or_not_at_all() {
        for (text, good) in [
            ("10.0.0.0/8", true),
            ("10.0.0.1, 2001:db8::/32 ,192.0.2.0/24", true),
            ("10.0.0.0/8,nonsense", false),
            ("", false),
            (",", false),
            ("10.0.0.0/33", false),
        ] {
            assert_eq!(networks(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn bug_a_list_is_as_long_as_an_object_may_be() {
        for (count, good) in [(1025, true), (NETWORKS_MAX, true), (NETWORKS_MAX + 1, false)] {
            let read = networks(&"1.2.3.4,".repeat(count));
            assert_eq!(read.is_ok(), good, "{count}");
        }
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_parser(value in "\\PC*") {
            let key = Key::new("a", "b");
            let _ = (flag(&value), switch(&value), number::<u16>(&value), size(&value));
            let _ = (networks(&value), regex(&value), own_object(&key, &value, "Secret"));
        }
    }
}
