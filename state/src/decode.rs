//! Documents to checked objects: one parse, straight into slim types, one verdict an object.
//!
//! A document is JSON text (the API server) or a parsed YAML document (manifests). Whatever is
//! wrong
//! with it concerns this object only.

mod config;
mod endpoint_slice;
mod fields;
mod ingress;
mod metadata;
mod names;
mod node;
mod service;
mod service_import;
mod text;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    change::Refusal,
    line::in_one_line,
    model::{Key, Kind, Object, ObjectRef},
};

pub use fields::is_object_name;
pub(crate) use metadata::SERVICE_NAME;
pub use names::Names;

/// What became of one document.
#[derive(Clone, Debug)]
pub enum Decoded {
    /// A good object.
    Object(Object),
    /// A good object that is none of ours, for instance an EndpointSlice of no Service.
    Ignored(ObjectRef),
    /// Unusable, and why.
    Refused(Refusal),
}

/// A verdict, and the version of the object it is about.
#[derive(Clone, Debug)]
pub struct Item {
    /// `metadata.resourceVersion`; manifests have none.
    pub version: Option<Box<str>>,
    /// The verdict.
    pub decoded: Decoded,
}

/// A document that does not even say which object it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unnamed(pub String);

/// How a document's `apiVersion` and `kind` relate to what Fairlead reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// One of ours, in the version that is read.
    Kind(Kind),
    /// One of ours in another version: refused, naming the version that is read.
    Version {
        /// The kind.
        kind: Kind,
        /// The `apiVersion` that is read.
        wanted: &'static str,
    },
    /// Something else.
    Unknown,
}

/// Decodes documents of any kind; equal strings and lists of ports are shared between all it decoded.
#[derive(Debug, Default)]
pub struct Decoder {
    names: Names,
}

impl Served {
    /// Looks a document's head up: `Service` of `serving.knative.dev/v1` is none of ours.
    pub fn of(api_version: &str, kind: &str) -> Self {
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else {
            return Served::Unknown;
        };
        let wanted = kind.api_version();
        if api_version == wanted {
            return Served::Kind(kind);
        }
        let group = |version: &'static str| version.rsplit_once('/').map_or("", |(group, _)| group);
        let given = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // Ingress and IngressClass moved here from `extensions`, which 1.22 stopped serving.
        let moved = kind == Kind::Ingress && given == "extensions";
        if given == group(wanted) || moved {
            return Served::Version { kind, wanted };
        }
        Served::Unknown
    }
}

impl Decoder {
    /// One that keeps `labels` of Services and Namespaces, or does not: few readers want them.
    pub fn new(labels: bool) -> Self {
        Self { names: Names::new(labels) }
    }

    /// Decodes an object the API server sent.
    ///
    /// # Errors
    /// The text is no JSON object with `metadata.name`.
    pub fn json(&mut self, kind: Kind, document: &str, origin: &Arc<str>) -> Result<Item, Unnamed> {
        self.decode(kind, Json(document), origin)
    }

    /// Which object a document is about, whatever else is wrong with it.
    ///
    /// # Errors
    /// It does not say.
    pub fn reference(kind: Kind, document: &str) -> Result<(ObjectRef, Option<Box<str>>), Unnamed> {
        identify(kind, Json(document))
    }

    pub(crate) fn decode<'a>(
        &mut self,
        kind: Kind,
        input: impl Input<'a>,
        origin: &Arc<str>,
    ) -> Result<Item, Unnamed> {
        match kind {
            Kind::Service => self.typed::<service::RawService<'_>>(input, origin),
            Kind::EndpointSlice => self.typed::<endpoint_slice::RawSlice<'_>>(input, origin),
            Kind::Node => self.typed::<node::RawNode<'_>>(input, origin),
            Kind::Namespace => self.typed::<node::RawNamespace<'_>>(input, origin),
            Kind::Pod => self.typed::<node::RawPod<'_>>(input, origin),
            Kind::Ingress => self.typed::<ingress::RawIngress<'_>>(input, origin),
            Kind::IngressClass => self.typed::<ingress::RawIngressClass<'_>>(input, origin),
            Kind::Secret => self.typed::<config::RawSecret<'_>>(input, origin),
            Kind::ConfigMap => self.typed::<config::RawConfigMap<'_>>(input, origin),
            Kind::ServiceCidr => self.typed::<node::RawServiceCidr<'_>>(input, origin),
            Kind::ServiceImport => {
                self.typed::<service_import::RawServiceImport<'_>>(input, origin)
            }
        }
    }

    fn typed<'a, R: Raw<'a>>(
        &mut self,
        input: impl Input<'a>,
        origin: &Arc<str>,
    ) -> Result<Item, Unnamed> {
        let refuse = |object: &ObjectRef, reason: String| {
            let (object, origin) = (object.clone(), origin.clone());
            let class = (R::KIND == Kind::Ingress).then(|| ingress::said_class(input));
            Decoded::Refused(Refusal { object, reason: in_one_line(&reason).into(), origin, class })
        };
        let raw = match input.read::<R>() {
            Ok(raw) => raw,
            Err(reason) => {
                let (object, version) = identify(R::KIND, input)?;
                let reason = if R::KIND == Kind::Secret { without_value(&reason) } else { reason };
                return Ok(Item { version, decoded: refuse(&object, reason) });
            }
        };
        let head = raw.head();
        let version = head.version.map(Box::from);
        let key = key(R::KIND, head, &mut self.names)?;
        let object = ObjectRef { kind: R::KIND, key: key.clone() };
        let decoded = match raw.check(key, &mut self.names) {
            Ok(Some(good)) => Decoded::Object(good),
            Ok(None) => Decoded::Ignored(object),
            Err(reason) => refuse(&object, reason),
        };
        Ok(Item { version, decoded })
    }
}

/// A document in one of the forms it arrives in.
pub(crate) trait Input<'a>: Copy {
    /// Parses it; the error names the path to the field at fault.
    fn read<T: Deserialize<'a>>(self) -> Result<T, String>;
}

#[derive(Clone, Copy)]
pub(crate) struct Json<'a>(pub(crate) &'a str);

#[derive(Clone, Copy)]
pub(crate) struct Tree<'a>(pub(crate) &'a Value);

impl<'a> Input<'a> for Json<'a> {
    fn read<T: Deserialize<'a>>(self) -> Result<T, String> {
        // Following the path costs; it is wanted for the few that fail.
        serde_json::from_str(self.0).or_else(|_| {
            let mut input = serde_json::Deserializer::from_str(self.0);
            serde_path_to_error::deserialize(&mut input).map_err(|e| at_path(&e))
        })
    }
}

impl<'a> Input<'a> for Tree<'a> {
    fn read<T: Deserialize<'a>>(self) -> Result<T, String> {
        T::deserialize(self.0)
            .or_else(|_| serde_path_to_error::deserialize(self.0).map_err(|e| at_path(&e)))
    }
}

/// A kind's fields as they are written, before they are checked.
trait Raw<'a>: Deserialize<'a> {
    const KIND: Kind;

    fn head(&self) -> metadata::Head<'_>;

    /// The checked object, `None` if it is none of ours, or why it is refused.
    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String>;
}

fn at_path(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let text = error.inner().to_string();
    // The document is one line of a stream or was parsed before: its line means nothing.
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    match error.path().to_string() {
        path if path == "." || path == "?" => reason.to_owned(),
        path => format!("{path}: {reason}"),
    }
}

/// serde's reasons quote the value that did not fit; of a Secret's, only the place may be told.
fn without_value(reason: &str) -> String {
    let place = reason.split_once(": invalid ").map_or("it", |(place, _)| place);
    format!("{place} is not of the type a Secret has there")
}

/// Which object a document is about, and its version.
pub(crate) fn identify<'a>(
    kind: Kind,
    input: impl Input<'a>,
) -> Result<(ObjectRef, Option<Box<str>>), Unnamed> {
    let raw: metadata::Named<'_> =
        input.read().map_err(|reason| Unnamed(in_one_line(&reason).into()))?;
    let head = raw.head();
    let version = head.version.map(Box::from);
    let key = key(kind, head, &mut Names::default())?;
    Ok((ObjectRef { kind, key }, version))
}

fn key(kind: Kind, head: metadata::Head<'_>, names: &mut Names) -> Result<Key, Unnamed> {
    if head.name.is_empty() {
        return Err(Unnamed(format!("a {kind} without metadata.name")));
    }
    let namespace = match head.namespace {
        _ if !kind.is_namespaced() => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    Ok(Key { namespace: names.get(namespace), name: head.name.into() })
}

#[cfg(test)]
mod tests;
