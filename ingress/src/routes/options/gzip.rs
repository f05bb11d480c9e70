//! Options about compression.

use super::super::annotations::{Read, Unread, bad, flag, number};
use crate::config::Compression;

/// Types in one list.
const TYPES_MAX: usize = 256;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct GzipWish {
    on: bool,
    how: Compression,
}

impl GzipWish {
    /// `None`: no option of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        let how = &mut self.how;
        Some(match name {
            "use-gzip" => flag(value).map(|on| self.on = on),
            "gzip-level" => level(value).map(|level| how.level = level),
            "gzip-min-length" => number(value).map(|length| how.length_min = length),
            "gzip-types" => types(value).map(|types| how.types = types),
            _ => return None,
        })
    }

    pub(super) fn compression(self) -> Option<Compression> {
        self.on.then_some(self.how)
    }
}

fn level(value: &str) -> Result<u32, Unread> {
    match number(value)? {
        level @ 1..=9 => Ok(level),
        _ => bad("is no level from 1 to 9"),
    }
}

fn types(value: &str) -> Result<Box<[Box<str>]>, Unread> {
    let types: Box<[Box<str>]> = value.split_ascii_whitespace().map(Into::into).collect();
    let is_type =
        |text: &str| text == "*" || text.split('/').filter(|p| !p.is_empty()).count() == 2;
    match types.iter().all(|text| is_type(text)) {
        true if types.len() <= TYPES_MAX => Ok(types),
        true => bad("has too many types"),
        false => bad("is no list of types with spaces between (text/css application/json)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let mut wish = GzipWish::default();
        for (name, value, is_good) in [
            ("use-gzip", "true", true),
            ("gzip-level", "9", true),
            ("gzip-level", "0", false),
            ("gzip-level", "10", false),
            ("gzip-min-length", "20", true),
            ("gzip-min-length", "short", false),
            ("gzip-types", "text/css *", true),
            ("gzip-types", "text", false),
        ] {
            assert_eq!(
                wish.set(name, value).map(|read| read.is_ok()),
                Some(is_good),
                "{name} {value}"
            );
        }
        assert!(wish.set("gzip-disable", "msie6").is_none());
        let types = ["text/css", "*"].into_iter().map(Into::into).collect();
        assert_eq!(wish.compression(), Some(Compression { level: 9, length_min: 20, types }));
        assert_eq!(GzipWish::default().compression(), None, "off unless it is asked for");
    }
}
