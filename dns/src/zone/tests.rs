use std::{net::Ipv4Addr, path::Path};

use fairlead_state::{
    Change, Snapshot, Store,
    model::{
        Endpoint, EndpointPort, EndpointSlice, Key, Kind, Labels, Namespace, Object, ObjectRef,
        Pod, Protocol, Rare, Service, ServiceExtras, ServicePort, ServiceType, TrafficPolicy,
    },
};
use proptest::prelude::*;

use super::*;
use crate::{config::DnsConfig, corefile::Corefile};

const SERIAL: u32 = 7;

/// One thing that happens to a small cluster: few names, so that events meet.
#[derive(Clone, Debug)]
enum Event {
    Service { key: u8, kind: u8, address: u8, ports: u8 },
    Slice { key: u8, of: u8, endpoints: Vec<(u8, bool, bool)> },
    Namespace { number: u8, shown: bool },
    Pod { key: u8, addresses: Vec<u8> },
    Gone(u8, u8),
}

fn events() -> impl Strategy<Value = Event> {
    let endpoints = proptest::collection::vec((0..6_u8, any::<bool>(), any::<bool>()), 0..4);
    prop_oneof![
        (0..6_u8, 0..4_u8, 0..4_u8, 0..3_u8)
            .prop_map(|(key, kind, address, ports)| Event::Service { key, kind, address, ports }),
        (0..6_u8, 0..6_u8, endpoints).prop_map(|(key, of, endpoints)| Event::Slice {
            key,
            of,
            endpoints
        }),
        (0..3_u8, any::<bool>()).prop_map(|(number, shown)| Event::Namespace { number, shown }),
        (0..6_u8, proptest::collection::vec(0..4_u8, 0..3))
            .prop_map(|(key, addresses)| Event::Pod { key, addresses }),
        (0..4_u8, 0..6_u8).prop_map(|(kind, key)| Event::Gone(kind, key)),
    ]
}

fn key(number: u8) -> Key {
    Key::new(format!("ns{}", number % 2), format!("s{}", number / 2))
}

fn change(event: &Event) -> Change {
    match event {
        Event::Service { key, kind, address, ports } => {
            Change::Upsert(Object::Service(Arc::new(service(*key, *kind, *address, *ports))))
        }
        Event::Slice { key: name, of, endpoints } => {
            let endpoints = endpoints.iter().map(|(address, ready, named)| Endpoint {
                addresses: [Ipv4Addr::new(10, 1, 0, *address).into()].into(),
                ready: *ready,
                serving: *ready,
                terminating: false,
                hostname: named.then(|| format!("pod-{address}").into()),
                node_name: None,
                zone: None,
                hints: Rare::default(),
                pod: None,
            });
            let port = EndpointPort {
                name: "p0".into(),
                protocol: Protocol::Tcp,
                port: 8080,
                app_protocol: None,
            };
            let of = key(*of);
            Change::Upsert(Object::EndpointSlice(Arc::new(EndpointSlice {
                key: Key::new(of.namespace.clone(), format!("slice-{name}")),
                service: of,
                ipv6: false,
                ports: [port].into(),
                endpoints: endpoints.collect(),
                headless_label: false,
                trigger_time_ms: None,
                import: None,
                left_out: None,
            })))
        }
        Event::Namespace { number, shown } => {
            let key = Key::new("", format!("ns{number}"));
            let labels: Labels = shown.then(|| ("shown".into(), "".into())).into_iter().collect();
            Change::Upsert(Object::Namespace(Arc::new(Namespace { key, labels })))
        }
        Event::Gone(0, number) => {
            Change::Delete(ObjectRef { kind: Kind::Service, key: key(*number) })
        }
        Event::Gone(1, number) => {
            let key = Key::new(format!("ns{}", number % 2), format!("slice-{number}"));
            Change::Delete(ObjectRef { kind: Kind::EndpointSlice, key })
        }
        Event::Pod { key: number, addresses } => {
            let address = |last: &u8| Ipv4Addr::new(10, 1, 0, *last).into();
            Change::Upsert(Object::Pod(Arc::new(Pod {
                key: key(*number),
                ips: addresses.iter().map(address).collect(),
                node_name: None,
                host_network: number % 3 == 0,
            })))
        }
        Event::Gone(2, number) => Change::Delete(ObjectRef { kind: Kind::Pod, key: key(*number) }),
        Event::Gone(_, number) => {
            let key = Key::new("", format!("ns{}", number % 3));
            Change::Delete(ObjectRef { kind: Kind::Namespace, key })
        }
    }
}

fn service(number: u8, kind: u8, address: u8, ports: u8) -> Service {
    let port = |i: u8| ServicePort {
        name: format!("p{i}").into(),
        protocol: if i == 0 { Protocol::Tcp } else { Protocol::Udp },
        port: 80 + u16::from(i),
        node_port: None,
        target_port: None,
        app_protocol: None,
    };
    let cluster_ips: &[std::net::IpAddr] = &[Ipv4Addr::new(10, 96, 0, address).into()];
    Service {
        key: key(number),
        created_seconds: 0,
        service_type: if kind == 3 { ServiceType::ExternalName } else { ServiceType::ClusterIp },
        cluster_ips: if kind < 2 { cluster_ips.into() } else { [].into() },
        headless: kind == 2,
        ports: (0..ports).map(port).collect(),
        extras: ServiceExtras {
            external_name: (kind == 3).then(|| "www.example".into()),
            ..ServiceExtras::default()
        }
        .into(),
        internal_traffic_policy: TrafficPolicy::Cluster,
        external_traffic_policy: TrafficPolicy::Cluster,
        publish_not_ready_addresses: false,
        traffic_distribution: None,
        headless_label: false,
    }
}

fn empty_zone() -> Zone {
    Zone::unsynced(Arc::new(origin(&DnsConfig::default()).unwrap()), SERIAL)
}

/// Of those namespaces alone that have a label.
fn choosing_zone() -> Zone {
    let text = ".:53 {\n kubernetes cluster.local in-addr.arpa {\n namespace_labels shown\n }\n}\n";
    let corefile = Corefile::parse(Path::new("Corefile"), text, &|_| None).unwrap();
    let origin = Origin::new(&corefile.kubernetes().unwrap(), 5).unwrap();
    Zone::unsynced(Arc::new(origin), SERIAL)
}

proptest! {
    /// Whatever happened in whatever order and batches, the names are those of the objects that are
    /// left.
    #[test]
    fn incremental_updates_equal_one_full_plan(
        batches in proptest::collection::vec(proptest::collection::vec(events(), 1..6), 1..20),
        skipped in proptest::collection::vec(any::<bool>(), 20),
    ) {
        let (mut store, snapshots) = Store::new([]);
        let empty = [empty_zone(), choosing_zone()];
        let mut zones = empty.clone();
        for (batch, skip) in batches.iter().zip(skipped) {
            store.apply(batch.iter().map(change));
            // A reader may miss snapshots: it takes the newest.
            if skip {
                continue;
            }
            let newest: Option<Arc<Snapshot>> = snapshots.borrow().clone();
            if let Some(snapshot) = newest {
                for (zone, empty) in zones.iter_mut().zip(&empty) {
                    *zone = zone.updated(&snapshot, SERIAL);
                    prop_assert_eq!(&*zone, &empty.updated(&snapshot, SERIAL));
                }
            }
        }
    }
}

#[test]
fn a_change_shares_everything_else_with_the_zone_before() {
    let (mut store, snapshots) = Store::new([]);
    store.apply((0..6).map(|n| change(&Event::Service { key: n, kind: 0, address: n, ports: 1 })));
    let snapshot = snapshots.borrow().clone().unwrap();
    let before = empty_zone().updated(&snapshot, SERIAL);
    store.apply([change(&Event::Service { key: 3, kind: 0, address: 9, ports: 1 })]);
    let snapshot = snapshots.borrow().clone().unwrap();
    let after = before.updated(&snapshot, SERIAL);
    let known: Vec<_> = before.services.values().collect();
    let is_shared =
        |new: &&ServiceNames| known.iter().any(|old| Arc::ptr_eq(&old.service, &new.service));
    assert_eq!(after.services.values().filter(is_shared).count(), known.len() - 1);
}

#[test]
fn a_service_costs_the_zone_an_entry_a_name_and_an_address() {
    assert!(size_of::<ServiceNames>() <= 16);
    assert!(size_of::<Pointer>() <= 24);
}

#[test]
fn configured_domains_are_checked() {
    let with = |domain: &str, reverse: &str| {
        origin(&DnsConfig {
            cluster_domain: domain.to_owned(),
            reverse_zones: vec![reverse.to_owned()],
            ..DnsConfig::default()
        })
    };
    assert!(with("cluster.local.", "10.in-addr.arpa").is_ok());
    assert!(matches!(with("", "in-addr.arpa"), Err(DnsError::Domain { .. })));
    assert!(matches!(with("a..b", "in-addr.arpa"), Err(DnsError::Domain { .. })));
    assert!(matches!(with("cluster.local", "example.com"), Err(DnsError::ReverseZone { .. })));
}

fn origin(config: &DnsConfig) -> Result<Origin, DnsError> {
    Origin::new(&config.in_force().kubernetes().unwrap(), config.negative_ttl_seconds)
}
