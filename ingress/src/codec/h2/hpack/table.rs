//! The fields that have numbers from the beginning (RFC 7541 appendix A).

use std::sync::LazyLock;

use super::{
    FIELD_BYTES,
    field::{Field, Name},
};

/// A field of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) field: Field,
    pub(super) name_bytes: usize,
    pub(super) value_bytes: usize,
}

impl Entry {
    pub(super) fn new(name: Name, name_bytes: usize, value: &[u8], is_sensitive: bool) -> Self {
        let value_bytes = value.len();
        Self { field: Field::parse(name, value, is_sensitive), name_bytes, value_bytes }
    }

    /// As tables and lists count it.
    pub(super) fn size(&self) -> usize {
        self.name_bytes + self.value_bytes + FIELD_BYTES
    }
}

/// From 1 on.
pub(super) const FIELDS: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |(name, value): &(&str, &str)| {
        Entry::new(Name::parse(name.as_bytes()), name.len(), value.as_bytes(), false)
    };
    FIELDS.iter().map(entry).collect()
});

/// Those of requests; others are there and malformed.
pub(super) fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// What is known of an answer's field by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// 0: none.
    pub(super) number: usize,
    /// Its value is the same in answer after answer.
    pub(super) repeats: bool,
}

/// By the length first: names are many, and few of them as long.
pub(super) fn known(name: &str) -> Known {
    let (number, repeats) = match name.len() {
        3 => match name {
            "age" => (21, false),
            "via" => (60, true),
            _ => (0, false),
        },
        4 => match name {
            "date" => (33, false),
            "etag" => (34, false),
            "link" => (45, false),
            "vary" => (59, true),
            _ => (0, false),
        },
        5 => (if name == "allow" { 22 } else { 0 }, false),
        6 if name == "server" => (54, true),
        7 => match name {
            "expires" => (36, false),
            "refresh" => (52, false),
            _ => (0, false),
        },
        8 => (if name == "location" { 46 } else { 0 }, false),
        10 => (if name == "set-cookie" { 55 } else { 0 }, false),
        11 => match name {
            "retry-after" => (53, false),
            "grpc-status" => (0, true),
            _ => (0, false),
        },
        12 => match name {
            "content-type" => (31, true),
            "x-powered-by" => (0, true),
            _ => (0, false),
        },
        13 => match name {
            "accept-ranges" => (18, true),
            "cache-control" => (24, true),
            "content-range" => (30, false),
            "last-modified" => (44, false),
            "grpc-encoding" => (0, true),
            _ => (0, false),
        },
        14 if name == "content-length" => (28, false),
        15 => (0, name == "x-frame-options" || name == "referrer-policy"),
        16 => match name {
            "content-encoding" => (26, true),
            "content-language" => (27, true),
            "content-location" => (29, false),
            "www-authenticate" => (61, false),
            "x-xss-protection" => (0, true),
            _ => (0, false),
        },
        19 if name == "content-disposition" => (25, false),
        20 => (0, name == "grpc-accept-encoding"),
        22 => (0, name == "x-content-type-options"),
        23 => (0, name == "content-security-policy"),
        25 if name == "strict-transport-security" => (56, true),
        27 if name == "access-control-allow-origin" => (20, true),
        28 => (0, ["access-control-allow-headers", "access-control-allow-methods"].contains(&name)),
        32 => (0, name == "access-control-allow-credentials"),
        _ => (0, false),
    };
    Known { number, repeats }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_rfc() {
        for (number, name) in [(1, ":authority"), (15, "accept-charset"), (61, "www-authenticate")]
        {
            assert_eq!(FIELDS[number - 1].0, name);
        }
        for (i, (name, _)) in FIELDS.iter().enumerate() {
            let number = known(name).number;
            assert!(number == 0 || number == i + 1, "{name}");
        }
        assert_eq!(FIELDS.iter().filter(|(name, _)| known(name).number > 0).count(), 26);
        assert_eq!(known("x-own"), Known::default());
        for name in ["server", "x-frame-options", "access-control-allow-credentials"] {
            assert!(known(name).repeats, "{name}");
        }
    }

    #[test]
    fn only_answers_fields_are_malformed() {
        for (entry, (name, _)) in entries().iter().zip(FIELDS) {
            // An authority is never empty: what refers to it has a value of its own.
            let is_malformed = matches!(entry.field, Field::Malformed(_));
            assert_eq!(is_malformed, [":status", ":authority"].contains(&name), "{name}");
        }
    }
}
