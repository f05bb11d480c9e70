//! Names of Services of the cluster set (KEP-1645, specification.md 1.0.0), as CoreDNS has them by
//! `multicluster`. They are few: all their records are made when an import changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    slice,
    sync::Arc,
};

use fairlead_state::model::{EndpointPort, EndpointSlice, ServiceImport};

use super::{
    Origin, Zone,
    dashed::Dashed,
    endpoints::own_name,
    lookup::{Found, one_of},
    service::srv_weight,
};
use crate::{
    corefile::Pods,
    error::DnsError,
    wire::{
        RECORDS_MAX,
        name::{LowerName, WireName, push_label},
        record::{RrSet, SetBuilder},
        rtype,
    },
};

/// The cluster set's domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetDomain {
    /// `clusterset.local.`
    pub(super) name: WireName,
    pub(super) labels: usize,
    /// `svc.clusterset.local.`
    services: WireName,
}

/// Endpoints of one import that have names, each as often as it has ports. A reply cannot hold as many.
pub(super) const SERVERS_MAX: usize = 1 << 14;

/// One import's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImportNames {
    /// By what stands in front of `SERVICE.NAMESPACE`, in wire form and lower case; no records where only
    /// names below it have some.
    sets: BTreeMap<Vec<u8>, Vec<RrSet>>,
    /// Endpoints beyond [`SERVERS_MAX`]: they have no names.
    pub(super) left_out: usize,
}

/// An endpoint's name and address.
struct Server<'s> {
    /// `HOSTNAME.CLUSTER`.
    prefix: Vec<u8>,
    /// How long its first label is.
    label_bytes: usize,
    name: WireName,
    address: IpAddr,
    ports: &'s [EndpointPort],
}

/// Who serves at each name.
#[derive(Default)]
struct Drafts(BTreeMap<Vec<u8>, Draft>);

#[derive(Default)]
struct Draft {
    addresses: BTreeSet<IpAddr>,
    servers: BTreeSet<(WireName, u16, IpAddr)>,
}

impl SetDomain {
    pub(super) fn new(text: &str) -> Result<Self, DnsError> {
        let bad = |source| DnsError::Domain { domain: text.to_owned(), source };
        let name = WireName::from_text(text).map_err(bad)?;
        let services = name.below(b"\x03svc").map_err(bad)?;
        Ok(Self { labels: name.label_count(), name, services })
    }
}

impl ImportNames {
    /// The names of `import`, whose wire form of `SERVICE.NAMESPACE` is `key`. `None` when there are
    /// none: a headless one without ready endpoints.
    pub(super) fn of<'a>(
        origin: &Origin,
        domain: &SetDomain,
        key: &[u8],
        import: &ServiceImport,
        slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    ) -> Option<Self> {
        let own = domain.services.below(key).ok()?;
        let slices = slices.filter(|_| !origin.no_endpoints);
        let (servers, left_out) = within(slices.flat_map(|slice| servers(origin, &own, slice)));
        if servers.is_empty() && (import.headless || origin.ignore_empty) {
            return None;
        }
        let mut drafts = Drafts::default();
        drafts.at(&[]);
        for Server { prefix, label_bytes, name, address, ports } in &servers {
            drafts.at(prefix.get(1 + label_bytes..).unwrap_or_default());
            drafts.at(prefix).serve(name, *address, ports);
            if import.headless {
                drafts.serve(name, *address, ports);
            }
        }
        for address in import.ips.iter().filter(|_| !import.headless) {
            drafts.serve(&own, *address, &import.ports);
        }
        let ttl_seconds = origin.ttl_seconds;
        let sets = drafts.0.into_iter().map(|(prefix, draft)| (prefix, draft.sets(ttl_seconds)));
        Some(Self { sets: sets.collect(), left_out })
    }
}

/// So many endpoints are left out, in words.
pub(super) fn nameless(count: usize) -> String {
    match count {
        1 => "1 endpoint has no name".to_owned(),
        _ => format!("{count} endpoints have no names"),
    }
}

impl Drafts {
    fn at(&mut self, prefix: &[u8]) -> &mut Draft {
        self.0.entry(prefix.to_vec()).or_default()
    }

    /// A server of the Service as a whole: at its own name, and at those of its ports.
    fn serve(&mut self, name: &WireName, address: IpAddr, ports: &[EndpointPort]) {
        self.at(&[]).serve(name, address, ports);
        for port in ports.iter().filter(|port| !port.name.is_empty()) {
            let (mut protocol, mut prefix) = (vec![], vec![]);
            let labels = [format!("_{}", port.name), format!("_{}", port.protocol.as_str())];
            let [of_port, of_protocol] = labels.each_ref().map(String::as_bytes);
            let is_name = push_label(&mut prefix, of_port).is_ok()
                && push_label(&mut prefix, of_protocol).is_ok()
                && push_label(&mut protocol, of_protocol).is_ok();
            if is_name {
                self.at(&protocol);
                self.at(&prefix).serve(name, address, slice::from_ref(port));
            }
        }
    }
}

impl Draft {
    fn serve(&mut self, name: &WireName, address: IpAddr, ports: &[EndpointPort]) {
        if self.addresses.len() < RECORDS_MAX {
            self.addresses.insert(address);
        }
        let ports = ports.iter().take(RECORDS_MAX.saturating_sub(self.servers.len()));
        self.servers.extend(ports.map(|port| (name.clone(), port.port, address)));
    }

    fn sets(&self, ttl_seconds: u32) -> Vec<RrSet> {
        let addresses =
            |rtype| RrSet::addresses(rtype, self.addresses.iter().copied(), ttl_seconds);
        let mut sets: Vec<_> = [rtype::A, rtype::AAAA].into_iter().filter_map(addresses).collect();
        if let Some(weight) = srv_weight(self.servers.len()) {
            let mut set = SetBuilder::new(rtype::SRV, ttl_seconds);
            let servers: BTreeSet<_> =
                self.servers.iter().map(|(name, port, _)| (name, port)).collect();
            for (name, port) in servers {
                let numbers = [[0, 0], weight.to_be_bytes(), port.to_be_bytes()];
                set.answer(&[numbers.as_flattened(), name.as_bytes()].concat());
            }
            let addresses: BTreeSet<_> =
                self.servers.iter().map(|(name, _, address)| (name, address)).collect();
            for (name, address) in addresses {
                set.additional_address(name, address);
            }
            sets.push(set.finish());
        }
        sets
    }
}

/// The first of all servers, as many as may have names, and how many there are behind them.
fn within<'s>(all: impl Iterator<Item = Server<'s>>) -> (Vec<Server<'s>>, usize) {
    let (mut servers, mut room, mut left_out) = (vec![], SERVERS_MAX, 0);
    for server in all {
        match room.checked_sub(server.ports.len().max(1)) {
            Some(left) if left_out == 0 => {
                room = left;
                servers.push(server);
            }
            _ => left_out += 1,
        }
    }
    (servers, left_out)
}

/// The ready endpoints of one slice of a Service whose own name is `own`.
fn servers<'s>(origin: &Origin, own: &WireName, slice: &'s EndpointSlice) -> Vec<Server<'s>> {
    let Some(import) = &slice.import else { return vec![] };
    // A label's value may have capitals.
    let cluster = import.cluster.to_ascii_lowercase();
    let server = |name: &[u8], address: IpAddr| {
        let mut prefix = vec![];
        push_label(&mut prefix, name).ok()?;
        push_label(&mut prefix, cluster.as_bytes()).ok()?;
        let full = own.below(&prefix).ok()?;
        let label_bytes = name.len();
        Some(Server { prefix, label_bytes, name: full, address, ports: &slice.ports })
    };
    let mut servers = vec![];
    for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
        let name = own_name(endpoint, origin.endpoint_pod_names);
        for address in endpoint.addresses.iter() {
            servers.extend(match &name {
                Some(name) => server(name.as_bytes(), *address),
                None => server(Dashed::of(*address).as_bytes(), *address),
            });
        }
    }
    servers
}

impl Zone {
    /// Looks a name of the cluster set up: `below` labels stand in front of its domain.
    pub(super) fn lookup_import(&self, name: &LowerName, below: usize, qtype: u16) -> Found<'_> {
        let Some(last) = below.checked_sub(1) else { return self.apex(qtype) };
        match (name.label(last), last) {
            (b"dns-version", 0) => one_of(&self.origin.version, qtype),
            (b"svc", 0) => Found::NoData,
            (b"svc", 1) => self.namespace(name.span(0, 1)),
            (b"svc", _) => {
                let names = self.imports.get(name.span(last - 2, last));
                let found = names.map(|names| names.sets.get(name.span(0, last - 2)));
                match found {
                    Some(Some(sets)) => {
                        let set = sets.iter().find(|set| set.rtype == qtype);
                        set.map_or(Found::NoData, Found::Records)
                    }
                    // They are not kept over a restart: only those of this run can be denied.
                    None if self.is_stand_in() => Found::NotSynced,
                    _ => Found::NoName,
                }
            }
            (b"pod", below) if below == 0 || self.origin.pods != Pods::Disabled => {
                self.lookup_pod(name, last, qtype)
            }
            _ => Found::NoName,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use fairlead_state::model::{Endpoint, Import, Key, Protocol, Rare};

    use super::*;
    use crate::{corefile::KubernetesOptions, wire::record::each_record};

    /// Of `web` in `cluster`, with so many endpoints of one port.
    fn imported(cluster: &str, endpoints: u32) -> EndpointSlice {
        let endpoint = |number| Endpoint {
            addresses: [IpAddr::from(Ipv4Addr::from_bits(0x0a01_0001 + number))].into(),
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node_name: None,
            zone: None,
            hints: Rare::default(),
            pod: None,
        };
        let protocol = Protocol::Tcp;
        let port = EndpointPort { name: "http".into(), protocol, port: 80, app_protocol: None };
        EndpointSlice {
            key: Key::new("demo", "web-1"),
            service: Key::new("demo", ""),
            ipv6: false,
            ports: [port].into(),
            endpoints: (0..endpoints).map(endpoint).collect(),
            headless_label: false,
            trigger_time_ms: None,
            import: Some(Arc::new(Import { service: "web".into(), cluster: cluster.into() })),
            left_out: None,
        }
    }

    #[test]
    fn a_cluster_s_id_with_capitals_is_found_in_lower_case() {
        let origin = Origin::new(&KubernetesOptions::default(), 5).unwrap();
        let slice = imported("East", 1);
        let own = WireName::from_text("web.demo.svc.set.test").unwrap();
        let [server] = &servers(&origin, &own, &slice)[..] else { panic!("one") };
        assert_eq!(server.prefix, b"\x0810-1-0-1\x04east");
    }

    #[test]
    fn an_import_of_very_many_endpoints_has_no_more_names_than_a_server_has_room_for() {
        // Whoever may write EndpointSlices of an import could take all memory of every node's DNS.
        let origin = Origin::new(&KubernetesOptions::default(), 5).unwrap();
        let domain = SetDomain::new("set.test").unwrap();
        let import = ServiceImport {
            key: Key::new("demo", "web"),
            headless: true,
            ips: [].into(),
            ports: [].into(),
        };
        let most = u32::try_from(SERVERS_MAX).unwrap();
        for (endpoints, left_out) in [(3, 0), (most, 0), (most + 1, 1), (most + 5, 5)] {
            let slice = Arc::new(imported("east", endpoints));
            let key = b"\x03web\x04demo";
            let slices = [&slice].into_iter();
            let names = ImportNames::of(&origin, &domain, key, &import, slices).unwrap();
            assert_eq!(names.left_out, left_out);
            let count = |prefix: &[u8], rtype| {
                let set = names.sets[prefix].iter().find(|set| set.rtype == rtype).unwrap();
                each_record(&set.answers).count()
            };
            let shown = RECORDS_MAX.min(endpoints.try_into().unwrap());
            assert_eq!([rtype::A, rtype::SRV].map(|rtype| count(b"", rtype)), [shown; 2]);
            // At each endpoint's name, its cluster's, the Service's, and two of its port.
            let named = SERVERS_MAX.min(endpoints.try_into().unwrap());
            assert_eq!(names.sets.len(), named + 4);
        }
        let said = [1, 5].map(nameless);
        assert_eq!(said, ["1 endpoint has no name", "5 endpoints have no names"]);
    }
}
