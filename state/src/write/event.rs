//! Events: what `kubectl describe` shows below an object.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event as Stored},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    api::{ListParams, PostParams},
    core::{ObjectList, PartialObjectMeta, Request},
};

use super::{Attempt, FIELD_MANAGER, WriteError, Writer, owned};
use crate::{model::ObjectRef, source::kubernetes::api::list_of_one};

/// The API takes notes of up to 1,024 bytes.
const NOTE_BYTES_MAX: usize = 1000;
/// Room for the object's name in the Event's, which may have 253 bytes.
const NAME_BYTES_MAX: usize = 230;

const READ: Attempt =
    Attempt { what: "reading the object an Event is about", right: "list on the object's kind" };
const WRITE: Attempt =
    Attempt { what: "writing an Event", right: "create on events.events.k8s.io" };

/// Where Events about Nodes are, as the kubelet's.
pub const CLUSTER_NAMESPACE: &str = "default";

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// As it should be.
    Normal,
    /// Not as the object wants it.
    Warning,
}

/// Something about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Which object. Events about one without a namespace are in [`CLUSTER_NAMESPACE`].
    pub object: &'a ObjectRef,
    /// How much it matters.
    pub weight: Weight,
    /// Why, as one word for machines: `Refused`.
    pub reason: &'a str,
    /// What was done or not done, as one word: `Route`.
    pub action: &'a str,
    /// For people. Cut at 1,000 bytes.
    pub note: &'a str,
    /// Who says so: `fairlead.io/ingress`.
    pub controller: &'a str,
    /// Which of them: a pod's or node's name.
    pub instance: &'a str,
}

impl Writer {
    /// Writes an Event, unless the same was written within its time to live (an hour): its name is
    /// made from its content, so that restarts and other replicas do not repeat it.
    ///
    /// # Errors
    /// The object is gone, there is no right to it, or the API server does not answer.
    pub async fn event(&self, event: &Event<'_>) -> Result<(), WriteError> {
        let ObjectRef { kind, key } = event.object;
        let is_cluster_scoped = key.namespace.is_empty();
        let namespace = if is_cluster_scoped { CLUSTER_NAMESPACE } else { &*key.namespace };
        // What is read is listed and watched everywhere else, too: a right to get it is not needed.
        let (path, field) = list_of_one(event.object);
        let request = Request::new(path).list_metadata(&ListParams::default().fields(&field));
        let found = async {
            let request = request.map_err(kube::Error::BuildRequest)?;
            self.client.request::<ObjectList<PartialObjectMeta>>(request).await
        };
        let found = READ.at(found).await?.items.pop();
        // kubectl looks for Events by the object's uid.
        let uid = found.ok_or(WriteError::Gone { what: READ.what })?.metadata.uid;
        let name = name(event, uid.as_deref());
        let stored = Stored {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(cut(event.note, NOTE_BYTES_MAX).to_owned()),
            reason: Some(event.reason.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(kind.api_version().to_owned()),
                kind: Some(kind.as_str().to_owned()),
                name: owned(&key.name),
                namespace: owned(&key.namespace).filter(|_| !is_cluster_scoped),
                uid,
                ..ObjectReference::default()
            }),
            reporting_controller: Some(event.controller.to_owned()),
            reporting_instance: Some(event.instance.to_owned()),
            type_: Some(event.weight.as_str().to_owned()),
            ..Stored::default()
        };
        let events = self.namespaced::<Stored>(namespace);
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match WRITE.at(events.create(&params, &stored)).await {
            // It is there already.
            Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Weight {
    fn as_str(self) -> &'static str {
        match self {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        }
    }
}

fn name(event: &Event<'_>, uid: Option<&str>) -> String {
    let mut hasher = DefaultHasher::new();
    (uid, event.reason, event.action, event.note).hash(&mut hasher);
    let object = cut(&event.object.key.name, NAME_BYTES_MAX).trim_end_matches(['.', '-']);
    format!("{object}.{:016x}", hasher.finish())
}

/// At most so many bytes of it, and whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Kind};

    #[test]
    fn the_same_words_about_the_same_object_have_one_name() {
        let object = ObjectRef { kind: Kind::Ingress, key: Key::new("shop", "web") };
        let event = |note| Event {
            object: &object,
            weight: Weight::Warning,
            reason: "Refused",
            action: "Route",
            note,
            controller: "fairlead.io/ingress",
            instance: "node1",
        };
        let first = name(&event("a"), Some("1"));
        assert!(first.starts_with("web.") && first.len() == 20, "{first}");
        assert_eq!(first, name(&Event { instance: "node2", ..event("a") }, Some("1")));
        assert_ne!(first, name(&event("b"), Some("1")), "other words");
        assert_ne!(first, name(&event("a"), Some("2")), "another object of the same name");
    }

    #[test]
    fn long_names_and_notes_are_cut_where_the_api_would_refuse_them() {
        assert_eq!(cut("üü", 3), "ü");
        assert_eq!(cut("short", 1000), "short");
        let key = Key::new("shop", format!("{}.b", "a".repeat(229)));
        let object = ObjectRef { kind: Kind::Ingress, key };
        let event = Event {
            object: &object,
            weight: Weight::Normal,
            reason: "",
            action: "",
            note: "",
            controller: "",
            instance: "",
        };
        let name = name(&event, None);
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }
}
