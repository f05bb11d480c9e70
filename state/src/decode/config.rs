//! `core/v1` Secret and ConfigMap.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    Raw, fields,
    metadata::{Head, Metadata},
    names::Names,
    text::{Text, nullable},
};
use crate::model::{ConfigMap, Key, Kind, Name, Object, Secret};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawSecret<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(rename = "type")]
    secret_type: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    data: BTreeMap<Text<'a>, Option<Text<'a>>>,
    #[serde(default, deserialize_with = "nullable")]
    string_data: BTreeMap<Text<'a>, Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawConfigMap<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    data: BTreeMap<Text<'a>, Text<'a>>,
}

impl<'a> Raw<'a> for RawSecret<'a> {
    const KIND: Kind = Kind::Secret;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        let mut data: BTreeMap<Name, Arc<[u8]>> = BTreeMap::new();
        for (name, text) in &self.data {
            data.insert(names.get(name), base64(name, text.as_deref().unwrap_or_default())?);
        }
        // The API server would have merged it: stringData wins.
        for (name, text) in &self.string_data {
            data.insert(names.get(name), text.as_bytes().into());
        }
        let secret_type = self.secret_type.as_deref().filter(|text| !text.is_empty());
        let secret_type = names.get(secret_type.unwrap_or("Opaque"));
        Ok(Some(Object::Secret(Arc::new(Secret { key, secret_type, data }))))
    }
}

impl<'a> Raw<'a> for RawConfigMap<'a> {
    const KIND: Kind = Kind::ConfigMap;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        let data = self.data.iter().map(|(name, text)| (names.get(name), Name::from(&**text)));
        let data = data.collect();
        Ok(Some(Object::ConfigMap(Arc::new(ConfigMap { key, data }))))
    }
}

/// The reason says where, never what: the text may be a key.
fn base64(name: &str, text: &str) -> Result<Arc<[u8]>, String> {
    // A folded YAML scalar brings line ends along; the API server accepts them too (Go's decoder).
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(compact) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(format!("data[{name:?}] is not base64; stringData takes plain text")),
    }
}
