//! Hosts and paths.

use std::str;

use crate::{
    host::{self, HostPattern},
    path::{self, normalise},
};

/// A path has one form, which leads nowhere else.
pub fn path(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(read) = path::read(text) {
        one_path(&read.normal);
        let is_dots = |segment: &str| matches!(segment, "." | "..");
        let matched = read.matched();
        assert!(matched.starts_with('/') && !matched.split('/').any(is_dots), "{matched:?}");
        assert!(!matched.contains("//") && !matched.contains('\\'), "{matched:?}");
        // What is forwarded leads where it was matched.
        let again = path::read(&read.normal).map(|read| read.matched().to_owned());
        assert_eq!(again.as_deref(), Ok(matched));
    }
}

pub(super) fn one_path(normal: &str) {
    assert_eq!(normalise(normal).as_deref(), Ok(normal));
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    assert!(normal.starts_with('/') && !normal.split('/').any(is_dots), "{normal:?}");
    assert!(!normal.contains("//") && !normal.contains('\\'), "{normal:?}");
    let lower = normal.to_ascii_lowercase();
    assert!(!lower.contains("%2e") && !lower.contains("%00"), "{normal:?}");
}

/// A host, as a rule states it and as a request carries it.
pub fn host(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Some(host) = host::normalise(text) {
        one_host(&host);
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern.clone()));
        assert!(pattern.covers(&pattern));
    }
}

pub(super) fn one_host(normal: &str) {
    assert_eq!(host::normalise(normal).as_deref(), Some(normal));
    let is_wrong = |c: char| c.is_ascii_uppercase() || c.is_whitespace() || c == '/';
    assert!(!normal.contains(is_wrong) && !normal.ends_with('.'), "{normal:?}");
}
