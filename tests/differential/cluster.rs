//! A small cluster that changes: few names, so that questions meet them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::{questions::ask_a, support::apiserver::ApiServer};

/// splitmix64 (Steele, Lea, Flood 2014): the same seed, the same run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub(crate) fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        let index = self.below(all.len() as u64);
        &all[usize::try_from(index).unwrap()]
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

pub(crate) const NAMESPACES: [&str; 3] = ["demo", "prod", "empty"];
pub(crate) const SERVICES: [&str; 6] = ["web", "db", "cache", "alias", "dual", "odd"];
pub(crate) const PORTS: [&str; 3] = ["http", "dns", "grpc"];
pub(crate) const HOSTS: [&str; 3] = ["db-0", "db-1", "web-0"];
/// Of endpoints, by their numbers; the others are in none.
pub(crate) const ZONES: [&str; 2] = ["east-1", "Rack.two"];
const TARGETS: [&str; 5] = [
    "web.demo.svc.cluster.local",
    "alias.prod.svc.cluster.local",
    "www.example",
    "nope.example",
    "10.9.8.7",
];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
/// Addresses a Service takes in turn.
const ADDRESSES_EACH: u64 = 16;
/// Longest wait until both servers know of a change.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster<'s> {
    server: &'s ApiServer,
    /// By namespace and name.
    services: BTreeMap<(String, String), Value>,
    turn: u64,
}

impl<'s> Cluster<'s> {
    pub(crate) fn new(server: &'s ApiServer, random: &mut Random) -> Self {
        let namespaces = NAMESPACES.iter().chain(&["kube-system", "probe"]);
        for name in namespaces {
            server.put(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata("", name)}),
            );
        }
        server.put(headless("ends"));
        let mut cluster = Self { server, services: BTreeMap::new(), turn: 0 };
        for _ in 0..20 {
            cluster.change_one(random);
        }
        cluster
    }

    /// Some objects change; then those that tell when everyone knows.
    pub(crate) fn change(&mut self, random: &mut Random) {
        for _ in 0..=random.below(6) {
            self.change_one(random);
        }
        self.turn += 1;
        let turn = self.turn;
        self.server.put(service(
            "probe",
            "turn",
            json!({
                "clusterIP": format!("10.97.{}.{}", turn / 250, turn % 250 + 1),
                "clusterIPs": [format!("10.97.{}.{}", turn / 250, turn % 250 + 1)],
                "ports": [{"name": "p", "port": 1, "protocol": "TCP"}],
            }),
        ));
        let host = format!("turn-{turn}");
        let end = json!({
            "addresses": ["10.98.0.1"], "hostname": host, "conditions": {"ready": true},
        });
        self.server.put(headless_slice("ends", &[end]));
    }

    /// Waits until both answer by the newest objects.
    pub(crate) async fn await_sync(&self, servers: &[SocketAddr]) {
        let turn = self.turn;
        let address = format!("10.97.{}.{}", turn / 250, turn % 250 + 1);
        let wanted = [
            ("turn.probe.svc.cluster.local.".to_owned(), address),
            (format!("turn-{turn}.ends.probe.svc.cluster.local."), "10.98.0.1".to_owned()),
        ];
        for server in servers {
            for (name, address) in &wanted {
                let known = async {
                    while ask_a(*server, name).await.as_deref() != Some(address) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                let known = tokio::time::timeout(PATIENCE, known).await;
                known.unwrap_or_else(|_| panic!("{server} does not learn of {name}"));
            }
        }
    }

    pub(crate) fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn is_alias(&self, namespace: &str, name: &str) -> bool {
        let service = self.services.get(&(namespace.to_owned(), name.to_owned()));
        service.is_some_and(|service| service["spec"]["type"] == "ExternalName")
    }

    fn change_one(&mut self, random: &mut Random) {
        let namespace = *random.of(&NAMESPACES[..2]);
        let name = *random.of(&SERVICES);
        // Nothing makes slices for an alias.
        if name == "alias" || random.one_in(2) {
            self.put_service(namespace, name, random);
        } else {
            self.put_slice(namespace, name, random);
        }
        let key = (namespace.to_owned(), name.to_owned());
        if random.one_in(12) && self.services.remove(&key).is_some() {
            self.server.delete("Service", namespace, name);
        }
    }

    fn put_service(&mut self, namespace: &str, name: &str, random: &mut Random) {
        // No two Services have one address: an API server allots them.
        let place = |all: &[&str], one| all.iter().position(|known| *known == one).unwrap_or(0);
        let own = place(&NAMESPACES, namespace) * SERVICES.len() + place(&SERVICES, name);
        let number = own as u64 * ADDRESSES_EACH + random.below(ADDRESSES_EACH) + 1;
        let (v4, v6) = (format!("10.96.0.{number}"), format!("fd00:96::{number:x}"));
        let ips = match random.below(5) {
            0 => vec!["None".to_owned()],
            1 => vec![v4, v6],
            2 => vec![v6],
            _ => vec![v4],
        };
        let mut ports = vec![];
        for (index, name) in PORTS.iter().enumerate() {
            if random.one_in(2) {
                let protocol = *random.of(&PROTOCOLS);
                ports.push(json!({"name": name, "port": 80 + index, "protocol": protocol}));
            }
        }
        // An API server takes none without a port but headless ones.
        if ports.is_empty() && ips[0] != "None" {
            ports.push(json!({"name": "http", "port": 80, "protocol": "TCP"}));
        }
        if ports.len() == 1 && random.one_in(2) {
            ports[0].as_object_mut().unwrap().remove("name");
        }
        let mut spec = json!({"clusterIP": ips[0], "clusterIPs": ips, "ports": ports});
        if name == "alias" {
            spec = json!({"type": "ExternalName", "externalName": random.of(&TARGETS)});
        }
        let service = service(namespace, name, spec);
        self.services.insert((namespace.to_owned(), name.to_owned()), service.clone());
        self.server.put(service);
    }

    fn put_slice(&self, namespace: &str, service: &str, random: &mut Random) {
        let (family, suffix) = if random.one_in(4) { ("IPv6", "6") } else { ("IPv4", "4") };
        let mut endpoints = vec![];
        for _ in 0..random.below(5) {
            let number = random.below(60) + 1;
            let address = match family {
                "IPv6" => format!("fd00:1::{number:x}"),
                _ => format!("10.1.0.{number}"),
            };
            let mut endpoint = json!({"addresses": [address], "conditions": {}});
            // One address is in one zone, however often it is listed.
            let zone = usize::try_from(number).unwrap() % (ZONES.len() + 1);
            if let Some(zone) = ZONES.get(zone) {
                endpoint["zone"] = json!(zone);
            }
            match random.below(4) {
                0 => {}
                1 => endpoint["conditions"]["ready"] = json!(false),
                _ => endpoint["conditions"]["ready"] = json!(true),
            }
            if random.one_in(3) {
                endpoint["hostname"] = json!(random.of(&HOSTS));
            }
            endpoints.push(endpoint);
        }
        let ports = [("http", "TCP", 8080_u16), ("dns", "UDP", 5353)];
        let ports = &ports[..usize::try_from(random.below(3)).unwrap()];
        let name = format!("{service}-{suffix}");
        self.server.put(slice(namespace, service, &name, family, ports, &endpoints));
    }
}

fn metadata(namespace: &str, name: &str) -> Value {
    let uid = format!("{namespace}-{name}");
    match namespace {
        "" => json!({"name": name, "uid": uid}),
        _ => json!({"name": name, "namespace": namespace, "uid": uid}),
    }
}

/// A Service of namespace `probe` without an address, with one port.
pub(crate) fn headless(name: &str) -> Value {
    let spec = json!({
        "clusterIP": "None", "clusterIPs": ["None"],
        "ports": [{"name": "p", "port": 1, "protocol": "TCP"}],
    });
    service("probe", name, spec)
}

/// What [`headless`] of this name leads to, by IPv4.
pub(crate) fn headless_slice(name: &str, endpoints: &[Value]) -> Value {
    slice("probe", name, &format!("{name}-1"), "IPv4", &[("p", "TCP", 1)], endpoints)
}

fn service(namespace: &str, name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("type").is_none() {
        spec["type"] = json!("ClusterIP");
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(namespace, name), "spec": spec})
}

fn slice(
    namespace: &str,
    service: &str,
    name: &str,
    family: &str,
    ports: &[(&str, &str, u16)],
    endpoints: &[Value],
) -> Value {
    let port = |(name, protocol, port): &(&str, &str, u16)| json!({"name": name, "protocol": protocol, "port": port});
    let mut metadata = metadata(namespace, name);
    metadata["labels"] = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": ports.iter().map(port).collect::<Vec<_>>(),
        "endpoints": endpoints,
    })
}
