//! What a cluster costs in memory, as the allocator counts it: exact, and the same on every machine.
//! One test, since all of a process are counted together.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::sync::Arc;

use fairlead_state::{
    Change, Kind, Object, Snapshot, Store,
    decode::{Decoded, Decoder},
    model::{Addresses, Endpoint, EndpointPort, EndpointSlice, Key, Service, ServicePort},
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const SERVICES: usize = 10_000;
/// A Service, its slice and two endpoints, with their places in the tables and the pools of names.
const SERVICE_BYTES_MAX: usize = 700;
/// What a list of everything may add while it comes in.
const RELIST_PERCENT_MAX: usize = 10;

fn service(i: usize) -> String {
    format!(
        r#"{{"metadata":{{"name":"service-{i:05}","namespace":"team-{}",
            "creationTimestamp":"2026-01-31T12:00:00Z","resourceVersion":"{i}"}},
            "spec":{{"type":"ClusterIP","clusterIP":"10.96.{}.{}",
            "ports":[{{"name":"http","port":80,"targetPort":8080}}]}}}}"#,
        i % 50,
        i / 250,
        i % 250 + 1
    )
}

fn slice(i: usize) -> String {
    let endpoint = |n: usize| {
        format!(
            r#"{{"addresses":["10.{n}.{}.{}"],"conditions":{{"ready":true}},
                "nodeName":"node-{:03}","zone":"zone-{}",
                "targetRef":{{"kind":"Pod","name":"service-{i:05}-6b7c9d5f4-{n:05}"}}}}"#,
            i / 250,
            i % 250 + 1,
            (i + n) % 100,
            n % 3
        )
    };
    format!(
        r#"{{"metadata":{{"name":"service-{i:05}-x7k2p","namespace":"team-{}",
            "labels":{{"kubernetes.io/service-name":"service-{i:05}"}}}},"addressType":"IPv4",
            "ports":[{{"name":"http","port":8080}}],"endpoints":[{},{}]}}"#,
        i % 50,
        endpoint(1),
        endpoint(2)
    )
}

/// Each object is decoded alone, and what is known of it is not kept twice, as lists come in.
fn list(
    decoder: &mut Decoder,
    kind: Kind,
    document: fn(usize) -> String,
    known: Option<&Snapshot>,
) -> Change {
    let origin: Arc<str> = "here".into();
    let mut objects: Vec<Object> = Vec::new();
    for i in 0..SERVICES {
        let item = decoder.json(kind, &document(i), &origin).unwrap();
        let Decoded::Object(object) = item.decoded else { panic!("{:?}", item.decoded) };
        objects.push(known.map_or(object.clone(), |known| known.known(object)));
    }
    Change::Replace { kind, objects, refused: Vec::new() }
}

#[test]
fn a_service_costs_so_much_and_a_list_of_everything_hardly_more() {
    // On 64 bits; each is a place in a table or in every object.
    let sizes = [
        ("Key", size_of::<Key>(), 16),
        ("Addresses", size_of::<Addresses>(), 24),
        ("ServicePort", size_of::<ServicePort>(), 40),
        ("Service", size_of::<Service>(), 80),
        ("EndpointPort", size_of::<EndpointPort>(), 24),
        ("Endpoint", size_of::<Endpoint>(), 72),
        ("EndpointSlice", size_of::<EndpointSlice>(), 104),
    ];
    for (name, size, expected) in sizes {
        assert_eq!(size, expected, "{name}");
    }

    let kinds = [(Kind::Service, service as fn(usize) -> String), (Kind::EndpointSlice, slice)];
    let before = ALLOCATOR.current_usage();
    let (mut store, snapshots) = Store::new(kinds.map(|(kind, _)| kind));
    let mut decoders = kinds.map(|(kind, document)| (Decoder::default(), kind, document));
    for (decoder, kind, document) in &mut decoders {
        store.apply([list(decoder, *kind, *document, None)]);
    }
    let held = ALLOCATOR.current_usage() - before;
    let each = held / SERVICES;
    assert!(each <= SERVICE_BYTES_MAX, "{each} bytes a Service");

    ALLOCATOR.reset_peak_usage();
    for (decoder, kind, document) in &mut decoders {
        let known = snapshots.borrow().clone();
        let all = list(decoder, *kind, *document, known.as_deref());
        drop(known);
        assert!(!store.apply([all]), "nothing has changed");
    }
    let added = ALLOCATOR.peak_usage() - before - held;
    let percent = added * 100 / held;
    assert!(percent <= RELIST_PERCENT_MAX, "{percent} % more than {held} bytes");
    assert_eq!(ALLOCATOR.current_usage() - before, held, "and all of it is given back");
}
