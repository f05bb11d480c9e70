//! The store against a naive model: any sequence of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fairlead_state::{
    Change, Changes, Dirty, Key, Kind, Object, ObjectRef, Refusal, Snapshot, Store,
    model::{EndpointSlice, Import, Namespace, Secret, Service},
};
use proptest::{collection::vec, prelude::*};

const KINDS: [Kind; 4] = [Kind::Service, Kind::EndpointSlice, Kind::Namespace, Kind::Secret];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What a snapshot must hold: maps, without sharing, logs or indices.
#[derive(Clone, Debug, Default, PartialEq)]
struct Naive {
    objects: BTreeMap<ObjectRef, Object>,
    refused: BTreeMap<ObjectRef, Refusal>,
}

impl Naive {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Upsert(object) => {
                self.refused.remove(&object.reference());
                self.objects.insert(object.reference(), object);
            }
            Change::Delete(object) => {
                self.refused.remove(&object);
                self.objects.remove(&object);
            }
            Change::Refuse(refusal) => drop(self.refused.insert(refusal.object.clone(), refusal)),
            Change::Replace { kind, objects, refused } => {
                let kept: BTreeSet<_> = refused.iter().map(|r| r.object.clone()).collect();
                self.objects.retain(|object, _| object.kind != kind || kept.contains(object));
                self.refused.retain(|object, _| object.kind != kind);
                for object in objects {
                    self.objects.insert(object.reference(), object);
                }
                for refusal in refused {
                    self.refused.insert(refusal.object.clone(), refusal);
                }
            }
        }
    }
}

fn read(snapshot: &Snapshot) -> Naive {
    let mut objects: Vec<Object> = Vec::new();
    objects.extend(snapshot.services().values().cloned().map(Object::Service));
    objects.extend(snapshot.endpoint_slices().values().cloned().map(Object::EndpointSlice));
    objects.extend(snapshot.namespaces().values().cloned().map(Object::Namespace));
    objects.extend(snapshot.secrets().values().cloned().map(Object::Secret));
    Naive {
        objects: objects.into_iter().map(|object| (object.reference(), object)).collect(),
        refused: snapshot.refused().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
    }
}

/// What a reader that knows `old` must look at to know `new`.
fn differing(old: &Naive, new: &Naive) -> BTreeSet<Dirty> {
    let mut dirty = BTreeSet::new();
    for object in old.objects.keys().chain(new.objects.keys()) {
        let (before, after) = (old.objects.get(object), new.objects.get(object));
        if before == after {
            continue;
        }
        let key = object.key.clone();
        match object.kind {
            Kind::Service => drop(dirty.insert(Dirty::Service(key))),
            Kind::Namespace => drop(dirty.insert(Dirty::Namespace(key))),
            Kind::Secret => drop(dirty.insert(Dirty::Secret(key))),
            _ => {
                for object in before.into_iter().chain(after) {
                    let Object::EndpointSlice(slice) = object else { continue };
                    dirty.insert(Dirty::Service(slice.service.clone()));
                    dirty.extend(slice.import_key().map(Dirty::ServiceImport));
                }
            }
        }
    }
    dirty
}

fn service(name: &str, variant: u8) -> Object {
    Object::Service(Arc::new(Service {
        key: Key::new("n", name),
        created_seconds: variant.into(),
        service_type: Default::default(),
        cluster_ips: Default::default(),
        headless: false,
        ports: Arc::default(),
        extras: Default::default(),
        internal_traffic_policy: Default::default(),
        external_traffic_policy: Default::default(),
        publish_not_ready_addresses: false,
        traffic_distribution: None,
        headless_label: false,
    }))
}

fn slice(name: &str, service: &str, variant: u8) -> Object {
    Object::EndpointSlice(Arc::new(EndpointSlice {
        key: Key::new("n", name),
        service: Key::new("n", service),
        ipv6: false,
        ports: Arc::default(),
        endpoints: Default::default(),
        headless_label: false,
        trigger_time_ms: Some(variant.into()),
        // Some are of the cluster set as well, under another name.
        import: (variant > 0).then(|| {
            let service = NAMES[usize::from(variant) % NAMES.len()].into();
            Arc::new(Import { service, cluster: "c1".into() })
        }),
        left_out: None,
    }))
}

fn object() -> impl Strategy<Value = Object> {
    let name = || prop::sample::select(&NAMES[..]);
    prop_oneof![
        (name(), 0..3u8).prop_map(|(name, variant)| service(name, variant)),
        (name(), name(), 0..3u8).prop_map(|(name, of, variant)| slice(name, of, variant)),
        name().prop_map(|name| {
            let key = Key::new("", name);
            Object::Namespace(Arc::new(Namespace { key, labels: [].into() }))
        }),
        (name(), 0..3u8).prop_map(|(name, variant)| {
            let data = BTreeMap::from([("x".into(), Arc::from([variant]))]);
            let (key, secret_type) = (Key::new("n", name), "Opaque".into());
            Object::Secret(Arc::new(Secret { key, secret_type, data }))
        }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (object(), 0..2u8).prop_map(|(object, reason)| Refusal {
        object: object.reference(),
        reason: reason.to_string().into(),
        origin: "test".into(),
        class: None,
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => object().prop_map(Change::Upsert),
        3 => object().prop_map(|object| Change::Delete(object.reference())),
        1 => refusal().prop_map(Change::Refuse),
        1 => (prop::sample::select(&KINDS[..]), vec(object(), 0..6), vec(refusal(), 0..2))
            .prop_map(|(kind, objects, refused)| replace(kind, objects, refused)),
    ]
}

/// A list has each object once, good or refused.
fn replace(kind: Kind, objects: Vec<Object>, refused: Vec<Refusal>) -> Change {
    let refused: BTreeMap<_, _> = refused
        .into_iter()
        .filter(|refusal| refusal.object.kind == kind)
        .map(|refusal| (refusal.object.clone(), refusal))
        .collect();
    let objects: BTreeMap<_, _> = objects
        .into_iter()
        .filter(|object| object.kind() == kind && !refused.contains_key(&object.reference()))
        .map(|object| (object.reference(), object))
        .collect();
    Change::Replace {
        kind,
        objects: objects.into_values().collect(),
        refused: refused.into_values().collect(),
    }
}

fn empty(kind: Kind) -> Change {
    Change::Replace { kind, objects: Vec::new(), refused: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_sequence_of_changes_is_what_the_naive_model_says(
        batches in vec(vec(change(), 1..5), 1..20),
    ) {
        let (mut store, snapshots) = Store::new(KINDS);
        store.apply(KINDS.map(empty));
        let mut naive = Naive::default();
        let newest = || snapshots.borrow().clone().unwrap();
        let mut history = vec![(newest(), naive.clone())];
        for batch in batches {
            batch.iter().cloned().for_each(|change| naive.apply(change));
            let (before, changed) = (newest().revision(), store.apply(batch));
            let after = newest();
            prop_assert_eq!(after.revision(), before + u64::from(changed));
            prop_assert_eq!(&read(&after), &naive);
            slices_are_found_by_what_they_are_of(&after)?;
            history.push((after, naive.clone()));
        }
        // A published snapshot never changes, and each knows what differs from any earlier one.
        let (last, now) = history.last().unwrap();
        for (snapshot, naive) in &history {
            prop_assert_eq!(&read(snapshot), naive);
            let Changes::Some(dirty) = last.changes_since(snapshot.revision()) else {
                return Err(TestCaseError::fail("a short history is remembered"));
            };
            let needed = differing(naive, now);
            prop_assert!(dirty.is_superset(&needed), "{dirty:?} lacks some of {needed:?}");
        }
        for pair in history.windows(2) {
            let dirty = pair[1].0.changes_since(pair[0].0.revision());
            // Within a batch something may change there and back.
            let Changes::Some(dirty) = dirty else { panic!() };
            prop_assert!(dirty.is_superset(&differing(&pair[0].1, &pair[1].1)));
        }
    }

    #[test]
    fn nothing_is_published_before_every_kind_is_complete(
        changes in vec(change(), 0..40),
    ) {
        let (mut store, snapshots) = Store::new(KINDS);
        let mut missing = BTreeSet::from(KINDS);
        for change in changes {
            if let Change::Replace { kind, .. } = &change {
                missing.remove(kind);
            }
            store.apply([change]);
            prop_assert_eq!(store.missing(), &missing);
            prop_assert_eq!(snapshots.borrow().is_some(), missing.is_empty());
        }
    }
}

fn slices_are_found_by_what_they_are_of(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let by_service = NAMES.iter().flat_map(|name| {
        let key = Key::new("n", *name);
        let slices: Vec<_> = snapshot.slices_of(&key).cloned().collect();
        assert!(slices.iter().all(|slice| slice.service == key));
        slices
    });
    prop_assert_eq!(by_service.count(), snapshot.endpoint_slices().len());
    let by_import = NAMES.iter().flat_map(|name| {
        let key = Key::new("n", *name);
        let slices: Vec<_> = snapshot.slices_of_import(&key).cloned().collect();
        assert!(slices.iter().all(|slice| slice.import_key().as_ref() == Some(&key)));
        slices
    });
    let imported = snapshot.endpoint_slices().values().filter(|slice| slice.import.is_some());
    prop_assert_eq!(by_import.count(), imported.count());
    Ok(())
}

#[test]
fn a_slice_that_moves_makes_both_services_dirty() {
    let (mut store, snapshots) = Store::new([Kind::EndpointSlice]);
    store.apply([empty(Kind::EndpointSlice), Change::Upsert(slice("s", "a", 0))]);
    store.apply([Change::Upsert(slice("s", "b", 0))]);
    let snapshot = snapshots.borrow().clone().unwrap();
    let (a, b) = (Key::new("n", "a"), Key::new("n", "b"));
    assert_eq!((snapshot.slices_of(&a).count(), snapshot.slices_of(&b).count()), (0, 1));
    let both = BTreeSet::from([Dirty::Service(a), Dirty::Service(b)]);
    assert_eq!(snapshot.changes_since(1), Changes::Some(both));
}

#[test]
fn a_few_changes_are_told_by_name_and_many_by_number() {
    let of = |names: &[&str]| {
        let services = names.iter().map(|name| Dirty::Service(Key::new("n", *name)));
        Changes::Some(services.collect())
    };
    for (changes, told) in [
        (Changes::All, "everything"),
        (of(&[]), "nothing"),
        (of(&["a"]), "Service n/a"),
        (of(&["b", "a", "c"]), "Service n/a, Service n/b, Service n/c"),
        (of(&["a", "b", "c", "d", "e"]), "Service n/a, Service n/b, Service n/c and 2 more"),
    ] {
        assert_eq!(changes.to_string(), told);
    }
}

#[test]
fn an_equal_object_is_no_change() {
    let (mut store, snapshots) = Store::new([Kind::Service]);
    assert!(store.apply([empty(Kind::Service), Change::Upsert(service("a", 1))]));
    assert!(!store.apply([Change::Upsert(service("a", 1))]));
    let list = vec![service("a", 1)];
    let relist = Change::Replace { kind: Kind::Service, objects: list, refused: Vec::new() };
    assert!(!store.apply([relist]));
    assert_eq!(snapshots.borrow().as_ref().unwrap().revision(), 1);
}

#[test]
fn a_reader_too_far_behind_is_told_to_look_at_everything() {
    let (mut store, snapshots) = Store::new([Kind::Service]);
    store.apply([empty(Kind::Service)]);
    for i in 0..10_000u32 {
        store.apply([Change::Upsert(service(&format!("s{i}"), 0))]);
    }
    let snapshot = snapshots.borrow().clone().unwrap();
    let now = snapshot.revision();
    for (revision, all) in [(0, true), (1, true), (now - 9000, true), (now - 8000, false)] {
        let changes = snapshot.changes_since(revision);
        assert_eq!(changes == Changes::All, all, "since {revision} of {now}");
    }
    assert_eq!(snapshot.changes_since(now), Changes::Some(BTreeSet::new()));
    assert_eq!(snapshot.changes_since(now + 1), Changes::All, "of another life");
}
