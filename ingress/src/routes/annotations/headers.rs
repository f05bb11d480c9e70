//! Fields that ConfigMaps of the Ingress's own namespace name: for answers, and for whoever is asked
//! about requests.

use fairlead_state::{Key, model::ConfigMap};
use http::HeaderName;

use super::{
    snippet::{field_name, field_text},
    template::Template,
    value::{Read, own_object},
};

/// Fields of one ConfigMap; variables in their texts may make 16 KiB of each.
const FIELDS_MAX: usize = 256;

/// Names and texts.
pub(crate) type Fields = Box<[(HeaderName, Template)]>;

/// What an Ingress says about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    told: Option<Key>,
    asked: Option<Key>,
}

/// What the ConfigMaps say.
#[derive(Debug)]
pub(crate) struct NamedFields {
    /// Set on answers.
    pub(crate) told: Fields,
    /// Set on questions about requests. An error keeps everybody out.
    pub(crate) asked: Result<Fields, String>,
}

impl Default for NamedFields {
    fn default() -> Self {
        Self { told: Fields::default(), asked: Ok(Fields::default()) }
    }
}

impl Named {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, ingress: &Key, name: &str, value: &str) -> Option<Read> {
        let place = match name {
            "custom-headers" => &mut self.told,
            "auth-proxy-set-headers" => &mut self.asked,
            _ => return None,
        };
        Some(own_object(ingress, value, "ConfigMap").map(|key| *place = Some(key)))
    }

    /// ConfigMaps that are read for it.
    pub(super) fn maps(&self) -> impl Iterator<Item = &Key> {
        self.told.iter().chain(&self.asked)
    }

    /// What they say; the error is about answers' fields, which keep nobody out.
    pub(super) fn read<'m>(
        &self,
        look: impl Fn(&Key) -> Option<&'m ConfigMap>,
    ) -> (NamedFields, Option<String>) {
        let of = |key: &Option<Key>| match key {
            None => Ok(Fields::default()),
            Some(key) => {
                let map = look(key);
                fields(map.ok_or_else(|| format!("ConfigMap {key} does not exist"))?)
            }
        };
        let asked = of(&self.asked);
        match of(&self.told) {
            Ok(told) => (NamedFields { told, asked }, None),
            Err(reason) => {
                let reason = format!("annotation custom-headers: {reason}; none of them is set");
                (NamedFields { told: Fields::default(), asked }, Some(reason))
            }
        }
    }
}

fn fields(map: &ConfigMap) -> Result<Fields, String> {
    if map.data.len() > FIELDS_MAX {
        return Err(format!("ConfigMap {} names more than {FIELDS_MAX} fields", map.key));
    }
    let field = |(name, text): (&fairlead_state::Name, &fairlead_state::Name)| {
        let read = || Ok((field_name(name)?, field_text(text)?));
        read().map_err(|reason: String| format!("ConfigMap {}: {name}: {reason}", map.key))
    };
    map.data.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        ConfigMap { key: Key::new("a", "b"), data: data.collect() }
    }

    #[test]
    fn fields_are_fields_and_framing_is_not_theirs() {
        for (data, good) in [
            (&[("X-A", "1"), ("x-b", "$host")][..], true),
            (&[], true),
            (&[("X A", "1")], false),
            (&[("X-A", "1\r\nSet-Cookie: a=b")], false),
            (&[("X-A", "$unknown")], false),
            (&[("Transfer-Encoding", "chunked")], false),
            (&[("Connection", "x")], false),
        ] {
            assert_eq!(fields(&map(data)).is_ok(), good, "{data:?}");
        }
    }
}
