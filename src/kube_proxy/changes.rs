//! What changed between two snapshots, as kube-proxy counts it.

use std::{collections::BTreeSet, sync::Arc};

use fairlead_state::{Changes, Dirty, Key, Snapshot, model::EndpointSlice};

/// Changes from one snapshot to a newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Services added, changed and removed.
    pub(crate) services: u64,
    /// EndpointSlices added, changed and removed.
    pub(crate) slices: u64,
    /// When what made slices change happened.
    pub(crate) triggers: Vec<Trigger>,
}

/// `endpoints.kubernetes.io/last-change-trigger-time` of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    /// Milliseconds since the epoch.
    pub(crate) at_ms: i64,
    /// Of an IPv6 slice.
    pub(crate) is_ipv6: bool,
}

/// From `old`; `None`: from nothing, where nobody can tell how long ago what happened matters.
pub(crate) fn between(old: Option<&Snapshot>, new: &Snapshot) -> Counted {
    let Some(old) = old else {
        let services = new.services().len() as u64;
        let slices = new.endpoint_slices().values().filter(is_meant).count() as u64;
        return Counted { services, slices, triggers: Vec::new() };
    };
    let keys: BTreeSet<Key> = match new.changes_since(old.revision()) {
        Changes::Some(dirty) => {
            let services = dirty.into_iter().filter_map(|dirty| match dirty {
                Dirty::Service(key) => Some(key),
                _ => None,
            });
            services.collect()
        }
        Changes::All => {
            let of_slices = |snapshot: &Snapshot| {
                let slices = snapshot.endpoint_slices().values();
                slices.map(|slice| slice.service.clone()).collect::<Vec<_>>()
            };
            let services = old.services().keys().chain(new.services().keys()).cloned();
            services.chain(of_slices(old)).chain(of_slices(new)).collect()
        }
    };
    let mut counted = Counted::default();
    for key in &keys {
        let is_same = match (old.services().get(key), new.services().get(key)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
            (None, None) => true,
            _ => false,
        };
        counted.services += u64::from(!is_same);
        count_slices(&mut counted, old, new, key);
    }
    counted
}

/// Slices of headless Services are none of a proxy's: kube-proxy does not even ask for them.
fn is_meant(slice: &&Arc<EndpointSlice>) -> bool {
    !slice.headless_label
}

fn count_slices(counted: &mut Counted, old: &Snapshot, new: &Snapshot, service: &Key) {
    let find = |snapshot: &Snapshot, key: &Key| snapshot.endpoint_slices().get(key).cloned();
    for slice in new.slices_of(service).filter(is_meant) {
        let before = find(old, &slice.key);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, slice) || before == slice) {
            continue;
        }
        counted.slices += 1;
        // A slice that says the same time again changed for another reason, which it does not tell.
        let known = before.and_then(|before| before.trigger_time_ms);
        if let Some(at_ms) = slice.trigger_time_ms.filter(|at| Some(*at) != known) {
            counted.triggers.push(Trigger { at_ms, is_ipv6: slice.ipv6 });
        }
    }
    let gone =
        old.slices_of(service).filter(is_meant).filter(|slice| find(new, &slice.key).is_none());
    counted.slices += gone.count() as u64;
}

#[cfg(test)]
mod tests {
    use fairlead_state::{Change, Kind, Object, ObjectRef, Store};

    use super::*;

    const SERVICE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, internalTrafficPolicy: Local, ports: [{port: 80, name: a}, {port: 81, name: b}]}
---
";

    fn slice(name: &str, time: &str, node: &str) -> String {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, \
             namespace: default, labels: {{kubernetes.io/service-name: web}}, annotations: \
             {{endpoints.kubernetes.io/last-change-trigger-time: \"{time}\"}}}}\n\
             addressType: IPv4\nports: [{{port: 8080}}]\n\
             endpoints: [{{addresses: [10.1.0.1], nodeName: {node}}}]\n---\n"
        )
    }

    fn snapshot(text: &str) -> Arc<Snapshot> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        std::fs::write(&file, text).unwrap();
        let loaded =
            fairlead_state::source::directory::load(&[file], None, BTreeSet::new()).unwrap();
        loaded.snapshot
    }

    #[test]
    fn services_and_slices_are_counted_apart_and_new_trigger_times_once() {
        let at = |second: u8| format!("2026-01-31T12:00:0{second}Z");
        let first = snapshot(&format!("{SERVICE}{}", slice("a", &at(1), "n1")));
        assert_eq!(between(None, &first), Counted { services: 1, slices: 1, triggers: vec![] });
        let trigger = |ms: i64| Trigger { at_ms: 1_769_860_800_000 + ms, is_ipv6: false };
        let counted = between(Some(&Snapshot::default()), &first);
        assert_eq!(counted, Counted { services: 1, slices: 1, triggers: vec![trigger(1000)] });

        // Same revision numbers, other world: as after a re-list, everything is compared.
        let (b, c) = (slice("a", &at(1), "n2"), slice("b", &at(2), "n1"));
        let second = snapshot(&format!("{SERVICE}{b}{c}"));
        let compared = |old: &Snapshot, new: &Snapshot| {
            let mut counted = Counted::default();
            count_slices(&mut counted, old, new, &Key::new("default", "web"));
            (counted.slices, counted.triggers)
        };
        assert_eq!(compared(&first, &second), (2, vec![trigger(2000)]));
        assert_eq!(compared(&second, &first).0, 2, "one changed, one gone");
        assert_eq!(compared(&first, &first), (0, vec![]));

        let headless = slice("d", &at(3), "n1").replace(
            "kubernetes.io/service-name: web",
            "kubernetes.io/service-name: web, service.kubernetes.io/headless: \"\"",
        );
        let third = snapshot(&format!("{SERVICE}{b}{c}{headless}"));
        assert_eq!(compared(&second, &third), (0, vec![]), "none of a proxy's");
        assert_eq!(between(None, &third).slices, 2);
    }

    /// Objects of a manifest, as a source tells of them.
    fn upserts(text: &str) -> Vec<Change> {
        let seen = snapshot(text);
        let services = seen.services().values().cloned().map(Object::Service);
        let slices = seen.endpoint_slices().values().cloned().map(Object::EndpointSlice);
        services.chain(slices).map(Change::Upsert).collect()
    }

    #[test]
    fn what_is_added_changed_and_removed_is_counted_from_one_snapshot_to_a_later_one() {
        let delete =
            |kind, name: &str| Change::Delete(ObjectRef { kind, key: Key::new("default", name) });
        let slice = |name: &str, node: &str| slice(name, "2026-01-31T12:00:01Z", node);
        let other = SERVICE.replace("name: web", "name: other").replace("10.96.0.1", "10.96.0.2");
        let (mut store, snapshots) = Store::new([]);
        let mut seen = vec![];
        for batch in [
            upserts(&format!("{SERVICE}{}{}", slice("a", "n1"), slice("b", "n1"))),
            [
                upserts(&format!("{other}{}", slice("a", "n2"))),
                vec![delete(Kind::EndpointSlice, "b")],
            ]
            .concat(),
            [
                upserts(&SERVICE.replace("port: 81", "port: 82")),
                vec![delete(Kind::Service, "other"), delete(Kind::EndpointSlice, "a")],
            ]
            .concat(),
        ] {
            assert!(store.apply(batch));
            seen.push(snapshots.borrow().clone().unwrap());
        }
        let never = Arc::new(Snapshot::default());
        for (from, to, services, slices) in [
            (&never, &seen[0], 1, 2),
            // One more Service, one slice changed, one gone.
            (&seen[0], &seen[1], 1, 2),
            // A Service changed, one and a slice gone.
            (&seen[1], &seen[2], 2, 1),
            // The other Service came and went meanwhile.
            (&seen[0], &seen[2], 1, 2),
            (&seen[2], &seen[2], 0, 0),
            // Of what was before nothing is logged: all is compared.
            (&seen[2], &seen[1], 2, 1),
            (&seen[1], &never, 2, 1),
        ] {
            let counted = between(Some(from), to);
            let place = (from.revision(), to.revision());
            assert_eq!((counted.services, counted.slices), (services, slices), "{place:?}");
        }
    }
}
