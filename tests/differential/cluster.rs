//! A small cluster that changes: few names, so that questions meet them.

mod objects;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

pub(crate) use self::objects::{headless, headless_slice};
use self::objects::{import, imported, namespace, pod, service, slice};
use crate::{questions::ask_a, random::Random, setups::Setup, support::apiserver::ApiServer};

pub(crate) const NAMESPACES: [&str; 3] = ["demo", "prod", "empty"];
pub(crate) const SERVICES: [&str; 6] = ["web", "db", "cache", "alias", "dual", "odd"];
pub(crate) const PORTS: [&str; 3] = ["http", "dns", "grpc"];
pub(crate) const HOSTS: [&str; 3] = ["db-0", "db-1", "web-0"];
/// Of other clusters.
pub(crate) const CLUSTERS: [&str; 2] = ["c1", "c2"];
/// Of endpoints, by their numbers; the others are in none.
pub(crate) const ZONES: [&str; 2] = ["east-1", "Rack.two"];
/// Longer than a label.
const LONG_POD: &str = "a-pod-whose-name-is-longer-than-any-label-of-a-name-may-ever-be-0";
const TARGETS: [&str; 7] = [
    "web.demo.svc.cluster.local",
    "alias.prod.svc.cluster.local",
    "www.example",
    "alias.example",
    "fail.example",
    "nope.example",
    "10.9.8.7",
];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
/// Addresses a Service takes in turn.
const ADDRESSES_EACH: u64 = 16;
/// Pods that come and go.
const PODS: u64 = 12;
/// Longest wait until both servers know of a change.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is, as rules about answers want to know it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// By namespace and name.
    services: BTreeMap<(String, String), Value>,
    /// Likewise, of the cluster set.
    imports: BTreeMap<(String, String), Value>,
}

/// What a change is of: a namespace, and a Service in it.
pub(crate) type Touched = (&'static str, &'static str);

pub(crate) struct Cluster<'s> {
    server: &'s ApiServer,
    pub(crate) known: Known,
    turn: u64,
}

impl Known {
    pub(crate) fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn has_import(&self, namespace: &str, name: &str) -> bool {
        self.imports.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn put_service(&mut self, namespace: &str, name: &str, service: Value) {
        self.services.insert((namespace.to_owned(), name.to_owned()), service);
    }

    pub(crate) fn is_alias(&self, namespace: &str, name: &str) -> bool {
        let service = self.service(namespace, name);
        service.is_some_and(|service| service["spec"]["type"] == "ExternalName")
    }
}

impl<'s> Cluster<'s> {
    pub(crate) fn new(server: &'s ApiServer, random: &mut Random) -> Self {
        for name in NAMESPACES.iter().chain(&["kube-system", "probe"]) {
            server.put(namespace(name));
        }
        server.put(headless("ends"));
        server.put(pod("demo", "client", &["127.0.0.1".to_owned()]));
        let mut cluster = Self { server, known: Known::default(), turn: 0 };
        for _ in 0..20 {
            cluster.change_of(Self::pick(random), random);
            cluster.change_aside(random);
        }
        cluster
    }

    /// Some objects change; then those that tell when everyone knows.
    pub(crate) fn change(&mut self, random: &mut Random) {
        for _ in 0..=random.below(6) {
            self.change_of(Self::pick(random), random);
        }
        self.change_aside(random);
        self.mark();
    }

    /// Puts what tells that everything before is known, kind by kind.
    pub(crate) fn mark(&mut self) {
        self.turn += 1;
        let (turn, address) = (self.turn, self.turn_address());
        self.server.put(service(
            "probe",
            "turn",
            json!({
                "clusterIP": address, "clusterIPs": [address],
                "ports": [{"name": "p", "port": 1, "protocol": "TCP"}],
            }),
        ));
        let host = format!("turn-{turn}");
        let end = json!({
            "addresses": ["10.98.0.1"], "hostname": host, "conditions": {"ready": true},
        });
        let slice = headless_slice("ends", &[end]);
        self.server.put(slice.clone());
        let mut slice = imported(slice, CLUSTERS[0]);
        slice["metadata"]["name"] = json!("ends-imported");
        self.server.put(slice);
        let end = json!({"addresses": ["10.98.0.2"], "conditions": {"ready": true}});
        self.server.put(headless_slice("turn", &[end]));
        self.server.put(pod("probe", "turn", std::slice::from_ref(&address)));
        let ports = json!([{"name": "p", "port": 1, "protocol": "TCP"}]);
        self.server.put(import("probe", "ends", &[], &ports));
        self.server.put(import("probe", "turn", &[address], &ports));
    }

    fn turn_address(&self) -> String {
        format!("10.97.{}.{}", self.turn / 250, self.turn % 250 + 1)
    }

    /// Waits until both answer by the newest objects.
    pub(crate) async fn await_sync(&self, setup: &Setup, servers: &[SocketAddr]) {
        let (turn, address) = (self.turn, self.turn_address());
        let end = || "10.98.0.1".to_owned();
        let mut wanted = vec![
            ("turn.probe.svc.cluster.local.".to_owned(), address.clone()),
            (format!("turn-{turn}.ends.probe.svc.cluster.local."), end()),
        ];
        if setup.has("noendpoints") {
            wanted.truncate(1);
        }
        if setup.has("pods verified") {
            let name = format!("{}.probe.pod.cluster.local.", address.replace('.', "-"));
            wanted.push((name, address.clone()));
        }
        if setup.has("multicluster") {
            wanted.push(("turn.probe.svc.clusterset.local.".to_owned(), address));
            let name = format!("turn-{turn}.{}.ends.probe.svc.clusterset.local.", CLUSTERS[0]);
            wanted.push((name, end()));
        }
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

    /// A Service that may change.
    pub(crate) fn pick(random: &mut Random) -> Touched {
        (*random.of(&NAMESPACES[..2]), *random.of(&SERVICES))
    }

    /// One object of a Service changes.
    pub(crate) fn change_of(&mut self, (namespace, name): Touched, random: &mut Random) {
        let key = (namespace.to_owned(), name.to_owned());
        if random.one_in(12) && self.known.services.remove(&key).is_some() {
            self.server.delete("Service", namespace, name);
        // Nothing makes slices for an alias.
        } else if name == "alias" || random.one_in(2) {
            self.put_service(namespace, name, random);
        } else {
            let slice = slice_of(namespace, name, random);
            self.server.put(slice);
        }
    }

    /// A pod, and something of the cluster set.
    fn change_aside(&mut self, random: &mut Random) {
        let number = random.below(PODS);
        let namespace = *random.of(&NAMESPACES[..2]);
        let mut ips = vec![format!("10.1.0.{}", random.below(60) + 1)];
        if random.one_in(3) {
            ips.push(format!("fd00:1::{:x}", random.below(60) + 1));
        }
        // A name is in one namespace, or one address could be a pod's of two.
        self.server.put(pod(
            NAMESPACES[usize::from(number.is_multiple_of(2))],
            &format!("pod-{number}"),
            &ips,
        ));
        let name = *random.of(&["web", "db", "dual"]);
        let key = (namespace.to_owned(), name.to_owned());
        if random.one_in(6) && self.known.imports.remove(&key).is_some() {
            return self.server.delete("ServiceImport", namespace, name);
        }
        if random.one_in(2) {
            let cluster = *random.of(&CLUSTERS);
            let slice = slice_of(namespace, name, random).to_string();
            // Elsewhere: CoreDNS sends no reply at all about an address whose slice names no Service here.
            let slice = slice.replace("10.1.0.", "10.94.0.").replace("fd00:1::", "fd00:94::");
            let mut slice = imported(serde_json::from_str(&slice).unwrap(), cluster);
            let own = slice["metadata"]["name"].as_str().map(|own| format!("{own}-{cluster}"));
            slice["metadata"]["name"] = json!(own);
            self.server.put(slice);
            return;
        }
        let number = own_number(namespace, name, random);
        let (v4, v6) = (format!("10.95.0.{number}"), format!("fd00:95::{number:x}"));
        let ips = random.of(&[vec![], vec![v4.clone()], vec![v4, v6.clone()], vec![v6]]).clone();
        let import = import(namespace, name, &ips, &service_ports(true, random));
        self.known.imports.insert(key, import.clone());
        self.server.put(import);
    }

    fn put_service(&mut self, namespace: &str, name: &str, random: &mut Random) {
        let number = own_number(namespace, name, random);
        let (v4, v6) = (format!("10.96.0.{number}"), format!("fd00:96::{number:x}"));
        let ips = match random.below(5) {
            0 => vec!["None".to_owned()],
            1 => vec![v4, v6],
            2 => vec![v6],
            _ => vec![v4],
        };
        // An API server takes none without a port but headless ones.
        let ports = service_ports(ips[0] != "None", random);
        let mut spec = json!({"clusterIP": ips[0], "clusterIPs": ips, "ports": ports});
        if name == "alias" {
            spec = json!({"type": "ExternalName", "externalName": random.of(&TARGETS)});
        }
        let mut service = service(namespace, name, spec);
        if name != "alias" && ips[0] != "None" && random.one_in(3) {
            make_reachable(&mut service, number, random);
        }
        self.known.put_service(namespace, name, service.clone());
        self.server.put(service);
    }
}

/// No two Services have one address: an API server allots them.
fn own_number(namespace: &str, name: &str, random: &mut Random) -> u64 {
    let place = |all: &[&str], one| all.iter().position(|known| *known == one).unwrap_or(0);
    let own = place(&NAMESPACES, namespace) * SERVICES.len() + place(&SERVICES, name);
    own as u64 * ADDRESSES_EACH + random.below(ADDRESSES_EACH) + 1
}

/// Ports of a Service: without names only where there is one.
fn service_ports(at_least_one: bool, random: &mut Random) -> Value {
    let mut ports = vec![];
    for (index, name) in PORTS.iter().enumerate() {
        if random.one_in(2) {
            let protocol = *random.of(&PROTOCOLS);
            ports.push(json!({"name": name, "port": 80 + index, "protocol": protocol}));
        }
    }
    if ports.is_empty() && at_least_one {
        ports.push(json!({"name": "http", "port": 80, "protocol": "TCP"}));
    }
    if ports.len() == 1 && random.one_in(2) {
        ports[0].as_object_mut().unwrap().remove("name");
    }
    json!(ports)
}

/// Gives a Service addresses, or a name, outside of the cluster.
fn make_reachable(service: &mut Value, number: u64, random: &mut Random) {
    if random.one_in(3) {
        service["spec"]["externalIPs"] = json!([format!("203.0.113.{number}")]);
    }
    let balancer = match random.below(4) {
        0 => return,
        1 => json!([{"hostname": random.of(&["www.example", "alias.example", "nope.example"])}]),
        2 => {
            json!([{"ip": format!("198.51.100.{number}")}, {"ip": format!("2001:db8::{number:x}")}])
        }
        _ => json!([{"ip": format!("198.51.100.{number}")}]),
    };
    service["spec"]["type"] = json!("LoadBalancer");
    service["status"] = json!({"loadBalancer": {"ingress": balancer}});
}

/// A slice of a Service, by one family; a name has two of each.
fn slice_of(namespace: &str, service: &str, random: &mut Random) -> Value {
    let (family, suffix) = if random.one_in(4) { ("IPv6", "6") } else { ("IPv4", "4") };
    let mut endpoints = vec![];
    for _ in 0..random.below(5) {
        let number = random.below(60) + 1;
        // A slice of the API allows up to a hundred; what makes slices gives one.
        let more = if random.one_in(8) { 1 + random.below(2) } else { 0 };
        let address = |number: u64| match family {
            "IPv6" => format!("fd00:1::{number:x}"),
            _ => format!("10.1.0.{number}"),
        };
        // One address is in one zone, however often it is listed: those that follow are three apart.
        let addresses: Vec<_> = (0..=more).map(|next| address(number + 3 * next)).collect();
        let mut endpoint = json!({"addresses": addresses, "conditions": {}});
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
        if random.one_in(3) {
            let name = if random.one_in(3) { LONG_POD.to_owned() } else { format!("pod-{number}") };
            endpoint["targetRef"] = json!({"kind": "Pod", "namespace": namespace, "name": name});
        }
        endpoints.push(endpoint);
    }
    let named = [
        json!({"name": "http", "protocol": "TCP", "port": 8080}),
        json!({"name": "dns", "protocol": "UDP", "port": 5353}),
    ];
    let ports = match random.below(5) {
        0 => json!([]),
        1 => json!([{"name": "", "protocol": "TCP", "port": 8081}]),
        2 => json!([{"protocol": "UDP", "port": 8082}]),
        3 => json!(named[..1]),
        _ => json!(named),
    };
    let name = format!("{service}-{suffix}{}", random.of(&["a", "b"]));
    slice(namespace, service, &name, family, &ports, &endpoints)
}
