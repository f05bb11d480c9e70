//! The only writer. Applies batches of changes and publishes snapshots.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use imbl::OrdMap;
use tokio::sync::watch;

use crate::{
    change::{Change, Dirty, Refusal},
    model::{EndpointSlice, Key, Kind, Object, ObjectRef},
    snapshot::{CHANGE_LOG_ENTRIES_MAX, SlicesByOwner, Snapshot},
};

/// Where readers take the newest snapshot from; `None` until all wanted kinds are complete.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// Holds the newest state and publishes it once every wanted kind is complete.
#[derive(Debug)]
pub struct Store {
    snapshot: Snapshot,
    missing: BTreeSet<Kind>,
    publisher: watch::Sender<Option<Arc<Snapshot>>>,
}

impl Store {
    /// A store that publishes nothing until each of `wanted` was [`Change::Replace`]d once.
    pub fn new(wanted: impl IntoIterator<Item = Kind>) -> (Self, Snapshots) {
        let (publisher, snapshots) = watch::channel(None);
        let missing = wanted.into_iter().collect();
        (Self { snapshot: Snapshot::default(), missing, publisher }, snapshots)
    }

    /// Kinds whose initial list is not complete.
    pub fn missing(&self) -> &BTreeSet<Kind> {
        &self.missing
    }

    /// Applies a batch as one revision and publishes it. Returns whether anything changed.
    ///
    /// Cost is proportional to the batch, not to the cluster; an object equal to the one held
    /// changes nothing.
    pub fn apply(&mut self, batch: impl IntoIterator<Item = Change>) -> bool {
        let received_at = Instant::now();
        let was_published = self.missing.is_empty() && self.snapshot.revision > 0;
        let mut dirty = BTreeSet::new();
        let mut refusals_changed = false;
        for change in batch {
            refusals_changed |= self.apply_one(change, &mut dirty);
        }
        let first = self.missing.is_empty() && !was_published;
        if dirty.is_empty() && !refusals_changed && !first {
            return false;
        }
        self.snapshot.revision += 1;
        self.snapshot.received_at = Some(received_at);
        if refusals_changed {
            self.snapshot.refused_revision = self.snapshot.revision;
        }
        self.remember(dirty);
        if self.missing.is_empty() {
            self.publisher.send_replace(Some(Arc::new(self.snapshot.clone())));
        }
        true
    }

    fn apply_one(&mut self, change: Change, dirty: &mut BTreeSet<Dirty>) -> bool {
        match change {
            Change::Upsert(object) => {
                let accepted = self.snapshot.refused.remove(&object.reference()).is_some();
                self.upsert(object, dirty);
                accepted
            }
            Change::Delete(object) => {
                let accepted = self.snapshot.refused.remove(&object).is_some();
                self.delete(&object, dirty);
                accepted
            }
            Change::Refuse(refusal) => self.refuse(refusal),
            Change::Replace { kind, objects, refused } => {
                self.replace(kind, objects, &refused, dirty)
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> bool {
        if self.snapshot.refused.get(&refusal.object) == Some(&refusal) {
            return false;
        }
        tracing::warn!("{refusal}");
        self.snapshot.refused.insert(refusal.object.clone(), refusal);
        true
    }

    fn replace(
        &mut self,
        kind: Kind,
        mut objects: Vec<Object>,
        refused: &[Refusal],
        dirty: &mut BTreeSet<Dirty>,
    ) -> bool {
        objects.retain(|object| object.kind() == kind);
        newest_of_each(&mut objects, Object::key);
        let stale = self.stale(kind, &objects, refused);
        let old_refused: Vec<ObjectRef> =
            self.snapshot.refused.keys().filter(|o| o.kind == kind).cloned().collect();
        let mut refusals_changed = false;
        // A tree splits its nodes in the middle: filled in order they would stay half empty. So every
        // other object comes first, and the rest fills them up.
        let second = objects.iter().skip(1).step_by(2);
        for object in objects.iter().step_by(2).chain(second) {
            self.upsert(object.clone(), dirty);
        }
        for refusal in refused {
            refusals_changed |= self.refuse(refusal.clone());
        }
        for key in stale {
            self.delete(&ObjectRef { kind, key }, dirty);
        }
        let kept: BTreeSet<&ObjectRef> = refused.iter().map(|r| &r.object).collect();
        for object in old_refused.iter().filter(|object| !kept.contains(object)) {
            refusals_changed |= self.snapshot.refused.remove(object).is_some();
        }
        self.missing.remove(&kind);
        refusals_changed
    }

    /// What is held and neither among `objects`, which are sorted, nor refused.
    fn stale(&self, kind: Kind, objects: &[Object], refused: &[Refusal]) -> Vec<Key> {
        let refused: BTreeSet<&Key> = refused.iter().map(|refusal| &refusal.object.key).collect();
        // Both are in order: one walk along both, where a search for each would look at much of the list.
        let mut listed = objects.iter().map(Object::key).peekable();
        let is_stale = |key: &&Key| {
            while listed.next_if(|before| before < key).is_some() {}
            listed.peek() != Some(key) && !refused.contains(*key)
        };
        self.snapshot.keys(kind).filter(is_stale).cloned().collect()
    }

    fn upsert(&mut self, object: Object, dirty: &mut BTreeSet<Dirty>) {
        let key = object.key().clone();
        let s = &mut self.snapshot;
        match object {
            Object::Service(o) => put(&mut s.services, key, o, Dirty::Service, dirty),
            Object::EndpointSlice(o) => self.upsert_slice(o, dirty),
            Object::Node(o) => put(&mut s.nodes, key, o, Dirty::Node, dirty),
            Object::Namespace(o) => put(&mut s.namespaces, key, o, Dirty::Namespace, dirty),
            Object::Pod(o) => put(&mut s.pods, key, o, Dirty::Pod, dirty),
            Object::Ingress(o) => put(&mut s.ingresses, key, o, Dirty::Ingress, dirty),
            Object::IngressClass(o) => {
                put(&mut s.ingress_classes, key, o, Dirty::IngressClass, dirty);
            }
            Object::Secret(o) => put(&mut s.secrets, key, o, Dirty::Secret, dirty),
            Object::ConfigMap(o) => put(&mut s.config_maps, key, o, Dirty::ConfigMap, dirty),
            Object::ServiceCidr(o) => {
                put(&mut s.service_cidrs, key, o, Dirty::ServiceCidr, dirty);
            }
            Object::ServiceImport(o) => {
                put(&mut s.service_imports, key, o, Dirty::ServiceImport, dirty);
            }
        }
    }

    fn delete(&mut self, object: &ObjectRef, dirty: &mut BTreeSet<Dirty>) {
        let s = &mut self.snapshot;
        let key = &object.key;
        match object.kind {
            Kind::Service => take(&mut s.services, key, Dirty::Service, dirty),
            Kind::EndpointSlice => {
                if let Some(old) = s.slices.remove(key) {
                    self.unlink_slice(&old, dirty);
                }
            }
            Kind::Node => take(&mut s.nodes, key, Dirty::Node, dirty),
            Kind::Namespace => take(&mut s.namespaces, key, Dirty::Namespace, dirty),
            Kind::Pod => take(&mut s.pods, key, Dirty::Pod, dirty),
            Kind::Ingress => take(&mut s.ingresses, key, Dirty::Ingress, dirty),
            Kind::IngressClass => take(&mut s.ingress_classes, key, Dirty::IngressClass, dirty),
            Kind::Secret => take(&mut s.secrets, key, Dirty::Secret, dirty),
            Kind::ConfigMap => take(&mut s.config_maps, key, Dirty::ConfigMap, dirty),
            Kind::ServiceCidr => take(&mut s.service_cidrs, key, Dirty::ServiceCidr, dirty),
            Kind::ServiceImport => {
                take(&mut s.service_imports, key, Dirty::ServiceImport, dirty);
            }
        }
    }

    fn upsert_slice(&mut self, slice: Arc<EndpointSlice>, dirty: &mut BTreeSet<Dirty>) {
        // An equal one must not come in beside the one that its Service's list holds.
        if self.snapshot.slices.get(&slice.key) == Some(&slice) {
            return;
        }
        let old = self.snapshot.slices.insert(slice.key.clone(), slice.clone());
        // The labels naming what it is of are mutable: leave the old ones before joining the new.
        let is_moved =
            |old: &Arc<EndpointSlice>| old.service != slice.service || old.import != slice.import;
        if let Some(old) = old.filter(is_moved) {
            self.unlink_slice(&old, dirty);
        }
        if let Some(import) = slice.import_key() {
            link(&mut self.snapshot.slices_by_import, &import, slice.clone());
            dirty.insert(Dirty::ServiceImport(import));
        }
        if slice.has_service() {
            let service = slice.service.clone();
            link(&mut self.snapshot.slices_by_service, &service, slice);
            dirty.insert(Dirty::Service(service));
        }
    }

    fn unlink_slice(&mut self, slice: &EndpointSlice, dirty: &mut BTreeSet<Dirty>) {
        let s = &mut self.snapshot;
        let unlink = |by_owner: &mut SlicesByOwner, owner: &Key| {
            with_slices_of(by_owner, owner, |slices| slices.retain(|k| k.key != slice.key));
        };
        if let Some(import) = slice.import_key() {
            unlink(&mut s.slices_by_import, &import);
            dirty.insert(Dirty::ServiceImport(import));
        }
        if slice.has_service() {
            unlink(&mut s.slices_by_service, &slice.service);
            dirty.insert(Dirty::Service(slice.service.clone()));
        }
    }

    fn remember(&mut self, dirty: BTreeSet<Dirty>) {
        let s = &mut self.snapshot;
        if dirty.len() > CHANGE_LOG_ENTRIES_MAX {
            s.log.clear();
            s.log_starts_after = s.revision;
            return;
        }
        s.log.extend(dirty.into_iter().map(|dirty| (s.revision, dirty)));
        while s.log.len() > CHANGE_LOG_ENTRIES_MAX {
            if let Some((revision, _)) = s.log.pop_front() {
                s.log_starts_after = revision;
            }
        }
    }
}

fn link(by_owner: &mut SlicesByOwner, owner: &Key, slice: Arc<EndpointSlice>) {
    with_slices_of(by_owner, owner, |slices| {
        match slices.binary_search_by(|known| known.key.cmp(&slice.key)) {
            Ok(place) => {
                if let Some(known) = slices.get_mut(place) {
                    *known = slice;
                }
            }
            Err(place) => slices.insert(place, slice),
        }
    });
}

/// Changes a list of slices; an empty one is none.
fn with_slices_of(
    by_owner: &mut SlicesByOwner,
    owner: &Key,
    change: impl FnOnce(&mut Vec<Arc<EndpointSlice>>),
) {
    let mut slices = by_owner.get(owner).map_or_else(Vec::new, |slices| slices.to_vec());
    change(&mut slices);
    if slices.is_empty() {
        by_owner.remove(owner);
    } else {
        by_owner.insert(owner.clone(), slices.into());
    }
}

/// Sorts by key; of several with one key the last stays.
pub(crate) fn newest_of_each<T>(list: &mut Vec<T>, key: impl Fn(&T) -> &Key) {
    list.reverse();
    list.sort_by(|a, b| key(a).cmp(key(b)));
    list.dedup_by(|older, newest| key(older) == key(newest));
}

fn put<T: PartialEq>(
    map: &mut OrdMap<Key, Arc<T>>,
    key: Key,
    object: Arc<T>,
    kind: fn(Key) -> Dirty,
    dirty: &mut BTreeSet<Dirty>,
) {
    if map.get(&key).is_some_and(|old| *old == object) {
        return;
    }
    map.insert(key.clone(), object);
    dirty.insert(kind(key));
}

fn take<T>(
    map: &mut OrdMap<Key, Arc<T>>,
    key: &Key,
    kind: fn(Key) -> Dirty,
    dirty: &mut BTreeSet<Dirty>,
) {
    if map.remove(key).is_some() {
        dirty.insert(kind(key.clone()));
    }
}
