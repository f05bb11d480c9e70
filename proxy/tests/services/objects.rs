//! Objects in few words, and a store to keep them in.

use std::{net::IpAddr, sync::Arc};

use fairlead_proxy::plan::{NodeView, Plans};
use fairlead_state::{
    Change, Key, Kind, Name, Object, ObjectRef, Snapshot, Store,
    model::{
        Endpoint, EndpointPort, EndpointSlice, Node, Protocol, Rare, Service, ServiceExtras,
        ServicePort, ServiceType, TrafficPolicy,
    },
    store::Snapshots,
};

/// The node that is planned for.
pub(crate) const NODE: &str = "node-a";

/// A cluster under change.
pub(crate) struct Cluster {
    store: Store,
    snapshots: Snapshots,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let (store, snapshots) = Store::new([]);
        Self { store, snapshots }
    }

    /// Applies changes as one; the newest snapshot.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Arc<Snapshot> {
        self.store.apply(changes);
        self.newest()
    }

    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone().unwrap_or_default()
    }

    pub(crate) fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }
}

pub(crate) fn node_view(snapshot: &Snapshot) -> NodeView {
    NodeView::new(NODE, snapshot)
}

pub(crate) fn plans(snapshot: &Snapshot) -> Plans {
    Plans::of(snapshot, &node_view(snapshot))
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("default", name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A ClusterIP Service with TCP port 80, unnamed.
pub(crate) fn service(name: &str, cluster_ip: &str) -> Service {
    Service {
        key: key(name),
        created_seconds: 0,
        service_type: ServiceType::ClusterIp,
        cluster_ips: [ip(cluster_ip)].into(),
        headless: false,
        ports: Arc::new([port("", Protocol::Tcp, 80, None)]),
        extras: Rare::default(),
        internal_traffic_policy: TrafficPolicy::Cluster,
        external_traffic_policy: TrafficPolicy::Cluster,
        publish_not_ready_addresses: false,
        traffic_distribution: None,
        headless_label: false,
    }
}

pub(crate) fn port(
    name: &str,
    protocol: Protocol,
    port: u16,
    node_port: Option<u16>,
) -> ServicePort {
    let name = name.into();
    ServicePort { name, protocol, port, node_port, target_port: None, app_protocol: None }
}

/// A slice of `service` with the unnamed TCP port 8080 and ready endpoints.
pub(crate) fn slice(name: &str, service: &str, endpoints: &[&str]) -> EndpointSlice {
    EndpointSlice {
        key: key(name),
        service: key(service),
        ipv6: endpoints.first().is_some_and(|address| ip(address).is_ipv6()),
        ports: Arc::new([endpoint_port("", Protocol::Tcp, 8080)]),
        endpoints: endpoints.iter().map(|address| endpoint(ip(address))).collect(),
        headless_label: false,
        trigger_time_ms: None,
        import: None,
        left_out: None,
    }
}

pub(crate) fn endpoint_port(name: &str, protocol: Protocol, port: u16) -> EndpointPort {
    EndpointPort { name: name.into(), protocol, port, app_protocol: None }
}

pub(crate) fn endpoint(address: IpAddr) -> Endpoint {
    Endpoint {
        addresses: [address].into(),
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node_name: None,
        zone: None,
        hints: Rare::default(),
        pod: None,
    }
}

pub(crate) fn node(zone: Option<&str>) -> Change {
    Change::Upsert(Object::Node(Arc::new(Node {
        key: Key::new("", NODE),
        addresses: Arc::new([]),
        zone: zone.map(Name::from),
        pod_cidrs: Arc::new([]),
        deleting: false,
        taints: Arc::new([]),
    })))
}

/// A Service with what few have.
pub(crate) fn with(service: Service, change: impl FnOnce(&mut ServiceExtras)) -> Service {
    let mut extras = ServiceExtras::clone(&service.extras);
    change(&mut extras);
    Service { extras: extras.into(), ..service }
}

pub(crate) fn put_service(service: Service) -> Change {
    Change::Upsert(Object::Service(Arc::new(service)))
}

pub(crate) fn put_slice(slice: EndpointSlice) -> Change {
    Change::Upsert(Object::EndpointSlice(Arc::new(slice)))
}

pub(crate) fn delete(kind: Kind, name: &str) -> Change {
    Change::Delete(ObjectRef { kind, key: key(name) })
}

/// `count` services with two endpoints each.
pub(crate) fn many(count: usize) -> Vec<Change> {
    let changes = (0..count).flat_map(|i| {
        let (name, bytes) = (format!("s{i}"), [i >> 8, i & 255]);
        let address = |net: &str| format!("{net}.{}.{}", bytes[0], bytes[1]);
        let endpoints = [address("10.1"), address("10.2")];
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        [put_service(service(&name, &address("10.96"))), put_slice(slice(&name, &name, &endpoints))]
    });
    changes.collect()
}
