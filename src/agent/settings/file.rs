//! The `--config` file: YAML whose keys are the agent's long flags.

use std::{fmt, path::Path};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// More than any settings need; YAML's anchors could make much of little.
const NODES_MAX: usize = 10_000;

/// One key of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// In the file, from 1.
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What a key is given.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `key:` alone, as templates leave it: as if the key were not there.
    Nothing,
    Switch(bool),
    /// Text or a number.
    One(String),
    Several(Vec<String>),
    /// No flag takes one.
    Mapping,
}

/// A file's text as entries, or what is wrong with it, naming file and line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, String> {
    let is_empty = |line: &str| matches!(line.trim(), "" | "---" | "..." | "{}");
    if text.lines().all(|line| is_empty(line) || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: NODES_MAX * 2 },
        with_snippet: false,
        // YAML 1.2: a node may be called `no`.
        strict_booleans: true,
    };
    let entries: Entries = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let reason = error.without_snippet().to_string();
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
        format!("{}:{line}: {reason}", path.display())
    })?;
    Ok(entries.0)
}

struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("flags and their values (dns-ttl: 30)")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Value>()? {
                    let line = key.referenced.line();
                    entries.push(Entry { key: key.value, line, value });
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nothing)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Nothing)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Switch(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::One(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element::<Value>()? {
                    match value {
                        Value::One(value) => values.push(value),
                        Value::Switch(value) => values.push(value.to_string()),
                        Value::Nothing => {}
                        Value::Several(_) | Value::Mapping => return Ok(Value::Mapping),
                    }
                }
                Ok(Value::Several(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
                Ok(Value::Mapping)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
