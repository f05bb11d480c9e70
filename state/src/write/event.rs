//! Events: what `kubectl describe` shows below an object.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

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

/// What lasts is said again after so long, under another name: kube-apiserver forgets an Event an hour after
/// it was made (`--event-ttl`), and to meet the old one then would not prolong its life.
const PERIOD_SECONDS: u64 = 55 * 60;

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
    /// Writes an Event, unless it was written in this period already: its name is made from its content and
    /// the period, so that restarts and other replicas do not repeat it. Returns after how long the next one begins.
    ///
    /// # Errors
    /// The object is gone, there is no right to it, or the API server does not answer.
    pub async fn event(&self, event: &Event<'_>) -> Result<Duration, WriteError> {
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
        let now = Timestamp::now();
        let (name, lasts) = name(event, uid.as_deref(), now);
        let stored = Stored {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.to_owned()),
            event_time: Some(MicroTime(now)),
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
            Ok(_) | Err(WriteError::Conflict { .. }) => Ok(lasts),
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

/// The name, and how long it is this one.
fn name(event: &Event<'_>, uid: Option<&str>, now: Timestamp) -> (String, Duration) {
    let mut hasher = DefaultHasher::new();
    (uid, event.reason, event.action, event.note).hash(&mut hasher);
    // Each begins its periods at another time: nodes would say all that lasts at once.
    let offset = hasher.finish() % PERIOD_SECONDS;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default() + offset;
    (seconds / PERIOD_SECONDS).hash(&mut hasher);
    let object = cut(&event.object.key.name, NAME_BYTES_MAX).trim_end_matches(['.', '-']);
    let lasts = Duration::from_secs(PERIOD_SECONDS - seconds % PERIOD_SECONDS);
    (format!("{object}.{:016x}", hasher.finish()), lasts)
}

/// At most so many bytes of it, and whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::model::{Key, Kind};

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

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
        let named = |event: &Event<'_>, uid, now| name(event, Some(uid), now).0;
        let (first, lasts) = name(&event("a"), Some("1"), NOW);
        assert!(first.starts_with("web.") && first.len() == 20, "{first}");
        assert_eq!(first, named(&Event { instance: "node2", ..event("a") }, "1", NOW));
        assert_ne!(first, named(&event("b"), "1", NOW), "other words");
        assert_ne!(first, named(&event("a"), "2", NOW), "another object of the same name");

        let next = NOW + lasts;
        let last = next - SignedDuration::from_secs(1);
        assert_eq!(first, named(&event("a"), "1", last), "the same period");
        assert_ne!(first, named(&event("a"), "1", next), "what lasts is said again");
    }

    /// Said again after 55 minutes under the same name it met its own Event, which the API server forgot 5
    /// minutes later: of 110 minutes the trouble was to be seen in 60.
    #[test]
    fn bug_what_lasts_was_not_to_be_seen_half_of_the_time() {
        const TTL: SignedDuration = SignedDuration::from_hours(1);
        let object = ObjectRef { kind: Kind::Ingress, key: Key::new("shop", "web") };
        let event = Event {
            object: &object,
            weight: Weight::Warning,
            reason: "Refused",
            action: "Route",
            note: "a",
            controller: "fairlead.io/ingress",
            instance: "node1",
        };
        // The API server's: until when an Event of this name is there.
        let mut stored = std::collections::BTreeMap::<String, Timestamp>::new();
        let mut now = NOW;
        for turn in 0..20 {
            let (name, lasts) = name(&event, Some("1"), now);
            // To be there already is no life beyond its own.
            let until = *stored.entry(name).or_insert(now + TTL);
            now += lasts;
            assert!(until > now, "turn {turn}: nothing is to be seen from {until} to {now}");
        }
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
        let (name, _) = name(&event, None, NOW);
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }
}
