//! What would become of a connection: the programs' own decisions, asked for without a packet.
//!
//! The same functions decide here and in the kernel ([`fairlead_ebpf::dialled`],
//! [`fairlead_ebpf::select`]); here they read the maps from outside, or from memory.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
};

use bytemuck::Zeroable as _;
use fairlead_ebpf::{
    abi::{
        Address, BACKEND_LOCAL, Backend, BackendKey, FRONTEND_EXTERNAL, FRONTEND_LOCAL,
        FRONTEND_SOURCE_RANGES, FrontendEntry, FrontendKey, FrontendValue, NODE_ADDRESS_OWN,
        NODE_ADDRESS_PORTS, SETTINGS_NODE_SOCKETS, Settings, SourceRangeKey, TableSize,
    },
    dialled::{self, Found, Tables},
    packet::{is_mapped, unmapped},
    select::{self, Lead, Origin},
};
use fairlead_state::{Key, Snapshot, model::Protocol};
use ipnetwork::IpNetwork;

use crate::{
    attach::{Kernel, KernelOptions, settings},
    error::{KernelError, Step},
    image::Image,
    maps::{Capacities, memory::MemoryMaps},
    node::{api_servers, occupant},
    object,
    plan::{Rules, address},
    sync::{ProxyStatus, Synchroniser},
    text,
};

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A process of the node itself, by the socket hooks.
    Node,
    /// A pod of the node, by the socket hooks unless those are the node's alone; its address where that is known.
    Pod(Option<IpAddr>),
    /// Anybody else, by packets that arrive at the node.
    Outside(IpAddr),
}

/// Why a connection is given no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The service has no endpoints for the port.
    NoEndpoints,
    /// It has some, but policy Local and none on this node.
    NoLocalEndpoints,
    /// The service at this address has no such port.
    UnusedPort,
    /// No service has this address of the Service CIDR.
    Unallocated,
    /// The client is in none of the source ranges.
    SourceDenied,
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No service's: the network decides.
    Pass,
    /// One of these, each as likely as the others.
    Backends(Vec<Endpoint>),
    /// The client is told at once.
    Reject(Why),
    /// Packets are dropped in silence; a socket of this node is told "no route to host".
    Drop(Why),
}

/// A backend in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// On this node.
    pub is_local: bool,
}

/// The frontend that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// In words: `tcp 10.96.0.10:53`, `udp *:30053 (NodePort, IPv6)`.
    pub text: String,
    /// Key of [`ProxyStatus::counter_owners`].
    pub counter_id: u32,
    /// The Service's own port; 0: a port it does not have.
    pub service_port: u16,
    /// A NodePort, load balancer or external address.
    pub is_external: bool,
    /// `externalTrafficPolicy: Local`.
    pub is_local: bool,
    /// Source ranges limit it.
    pub is_limited: bool,
    /// For so long a client keeps its backend; 0: no affinity.
    pub affinity_seconds: u32,
    /// Packets' flows are given to backends by a table of so many places, on every node alike.
    pub maglev_places: Option<u32>,
}

/// A decision and what it was made by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `None`: no service's.
    pub frontend: Option<Frontend>,
    /// What becomes of the connection.
    pub verdict: Verdict,
    /// It is met as packets, not as a socket connects: whose are dropped is told nothing.
    pub by_packets: bool,
}

/// The maps of a running agent's programs.
#[derive(Debug)]
pub struct LiveMaps<'a> {
    tables: &'a object::Tables,
    settings: Option<Settings>,
    /// The first failure; look-ups are then "not there".
    failed: RefCell<Option<io::Error>>,
}

/// What the maps would hold.
#[derive(Debug)]
pub struct PlannedMaps {
    image: Image,
    settings: Option<Settings>,
    node_addresses: BTreeMap<Address, u32>,
}

/// Maps that can be asked.
pub trait Lookup: Tables {
    /// A slot of a set.
    fn backend(&self, key: &BackendKey) -> Option<Backend>;
    /// Whether a client is in a service's source ranges.
    fn is_in_source_ranges(&self, counter_id: u32, client: &Address) -> bool;
    /// Whether the address is one of the node's own.
    fn is_node_address(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.is_own(&crate::plan::address(address))
    }
    /// Whether something could not be read, and why.
    ///
    /// # Errors
    /// The first failure since the last call.
    fn check(&self) -> Result<(), KernelError>;
}

impl<'a> LiveMaps<'a> {
    /// Those of a kernel.
    ///
    /// # Errors
    /// The settings cannot be read.
    pub fn of(kernel: &'a Kernel) -> Result<Self, KernelError> {
        let tables = kernel.tables();
        let settings = tables
            .settings
            .read()
            .map_err(|error| KernelError::system(Step::ReadCounters, error))?;
        Ok(Self { tables, settings: Some(settings), failed: RefCell::new(None) })
    }

    /// `NODE_ADDRESS_*`; 0: it is none of the node's.
    fn node_address(&self, address: &Address) -> u32 {
        self.taken(self.tables.node_addresses.get(address)).unwrap_or_default()
    }

    fn taken<T>(&self, read: io::Result<Option<T>>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.failed.replace(Some(error));
            None
        })
    }
}

impl Tables for LiveMaps<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry> {
        self.taken(self.tables.frontends.get(key))
    }

    fn other_ports(&self, key: &FrontendKey) -> Option<FrontendValue> {
        self.frontend(key).map(|entry| entry.value)
    }

    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn has_node_ports(&self, address: &Address) -> bool {
        self.node_address(address) & NODE_ADDRESS_PORTS != 0
    }

    fn is_own(&self, address: &Address) -> bool {
        self.node_address(address) & NODE_ADDRESS_OWN != 0
    }
}

impl Lookup for LiveMaps<'_> {
    fn backend(&self, key: &BackendKey) -> Option<Backend> {
        self.taken(self.tables.backends.get(key))
    }

    fn is_in_source_ranges(&self, counter_id: u32, client: &Address) -> bool {
        let key = SourceRangeKey { prefix_len: SourceRangeKey::BITS, counter_id, address: *client };
        let version = self.taken(self.tables.source_ranges.get(&key));
        version.is_some_and(|version| SourceRangeKey::lets_in(version, client))
    }

    fn check(&self) -> Result<(), KernelError> {
        match self.failed.take() {
            Some(error) => Err(KernelError::system(Step::ReadCounters, error)),
            None => Ok(()),
        }
    }
}

impl PlannedMaps {
    /// What an agent on the node `node_name` would write for `snapshot`, and how it would stand.
    /// The node's addresses are those of its Node object. No kernel is asked: this one may be of
    /// another machine, and older than any that programs run on.
    pub fn plan(
        snapshot: &Snapshot,
        node_name: &str,
        rules: Rules,
        service_cidrs: &[IpNetwork],
    ) -> (Self, ProxyStatus) {
        let (all, counters) = (usize::MAX, usize::MAX);
        let room =
            Capacities { frontends: all, backends: all, maglev: all, source_ranges: all, counters };
        let sync = Synchroniser::new(MemoryMaps::new(room), node_name);
        let mut sync = sync.with_rules(rules);
        sync.reconcile(snapshot);
        let status = sync.status();
        let image = sync.into_maps().image().clone();
        let node = snapshot.nodes().get(&Key::new("", node_name));
        let own = node.map(|node| node.addresses.to_vec()).unwrap_or_default();
        let pods = node.map(|node| node.pod_cidrs.clone()).unwrap_or_default();
        let known = snapshot.service_cidrs().values().flat_map(|object| object.ranges.iter());
        let known = known.chain(service_cidrs).copied();
        let api_servers = api_servers(snapshot);
        let is_services = |range: &IpNetwork| {
            occupant(*range, own.iter().copied(), &pods, &api_servers).is_none()
        };
        let service_cidrs = known.filter(is_services).collect();
        let options = KernelOptions { service_cidrs, ..KernelOptions::default() };
        let first = |is_ipv6: bool| {
            own.iter().find(|ip| ip.is_ipv6() == is_ipv6).map_or([0; 16], |ip| address(*ip))
        };
        let settings = settings::of(&options, &Settings::zeroed(), 0, options.sizes);
        let (node_port_first, node_port_last) = image.node_ports.bounds();
        let settings = Settings {
            address_v4: first(false),
            address_v6: first(true),
            node_port_first,
            node_port_last,
            ..settings
        };
        let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
        let node_addresses = own.iter().map(|ip| (address(*ip), flags)).collect();
        (Self { image, settings: Some(settings), node_addresses }, status)
    }
}

impl Tables for PlannedMaps {
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry> {
        self.image.frontends.get(key).copied()
    }

    fn other_ports(&self, key: &FrontendKey) -> Option<FrontendValue> {
        self.frontend(key).map(|entry| entry.value)
    }

    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn has_node_ports(&self, address: &Address) -> bool {
        self.node_addresses.get(address).is_some_and(|flags| flags & NODE_ADDRESS_PORTS != 0)
    }

    fn is_own(&self, address: &Address) -> bool {
        self.node_addresses.contains_key(address)
    }
}

impl Lookup for PlannedMaps {
    fn backend(&self, key: &BackendKey) -> Option<Backend> {
        self.image.backends.get(key).copied()
    }

    fn is_in_source_ranges(&self, counter_id: u32, client: &Address) -> bool {
        let address = u128::from_be_bytes(*client);
        self.image.source_ranges.iter().any(|range| {
            let bits = range.prefix_len.saturating_sub(32);
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0);
            let first = u128::from_be_bytes(range.address);
            let is_covered = (first & mask) == (address & mask);
            range.counter_id == counter_id
                && is_covered
                && SourceRangeKey::lets_in(range.version(), client)
        })
    }

    fn check(&self) -> Result<(), KernelError> {
        Ok(())
    }
}

/// What becomes of a connection of `client` to `to`.
///
/// # Errors
/// The maps cannot be read.
pub fn decide(
    maps: &impl Lookup,
    client: Client,
    protocol: Protocol,
    to: SocketAddr,
) -> Result<Decision, KernelError> {
    let dialled = FrontendKey {
        address: address(to.ip()),
        port: to.port().to_be_bytes(),
        protocol: protocol.number(),
        zero: 0,
    };
    let by_packets = match client {
        Client::Node => false,
        Client::Pod(_) => maps.settings().is_some_and(|s| s.flags & SETTINGS_NODE_SOCKETS != 0),
        Client::Outside(_) => true,
    };
    let (frontend, verdict) = match dialled::find(maps, &dialled, || client == Client::Node) {
        Found::Nothing => (None, Verdict::Pass),
        // A socket of this node is told; packets from elsewhere are dropped.
        Found::Unallocated if by_packets => (None, Verdict::Drop(Why::Unallocated)),
        Found::Unallocated => (None, Verdict::Reject(Why::Unallocated)),
        Found::UnusedPort(value) => {
            let key = FrontendKey::other_ports(dialled.address);
            (Some(frontend(&key, &value)), Verdict::Reject(Why::UnusedPort))
        }
        Found::Frontend(key, value) => {
            (Some(frontend(&key, &value)), verdict(maps, client, &key, &value))
        }
    };
    maps.check()?;
    Ok(Decision { frontend, verdict, by_packets })
}

fn verdict(
    maps: &impl Lookup,
    client: Client,
    key: &FrontendKey,
    value: &FrontendValue,
) -> Verdict {
    if value.flags & FRONTEND_SOURCE_RANGES != 0 {
        let identity = match client {
            Client::Node => maps.settings().map(|settings| dialled::node_identity(settings, key)),
            Client::Pod(ip) => ip.map(address),
            Client::Outside(ip) => Some(address(ip)),
        };
        if let Some(identity) = identity
            && !maps.is_in_source_ranges(value.counter_id, &identity)
        {
            return Verdict::Drop(Why::SourceDenied);
        }
    }
    let origin = match client {
        Client::Node | Client::Pod(_) => Origin::Inside,
        Client::Outside(_) => Origin::Outside,
    };
    match select::lead(value, origin) {
        Lead::Reject => Verdict::Reject(Why::NoEndpoints),
        Lead::Drop => Verdict::Drop(Why::NoLocalEndpoints),
        Lead::Backends { set_id, count } => {
            let slots = (0..u32::from(count)).map(|slot| BackendKey { set_id, slot });
            let backends = slots.filter_map(|key| maps.backend(&key));
            Verdict::Backends(backends.map(|backend| endpoint(&backend)).collect())
        }
    }
}

fn frontend(key: &FrontendKey, value: &FrontendValue) -> Frontend {
    Frontend {
        text: text::frontend(key).to_string(),
        counter_id: value.counter_id,
        service_port: u16::from_be_bytes(value.service_port),
        is_external: value.flags & FRONTEND_EXTERNAL != 0,
        is_local: value.flags & FRONTEND_LOCAL != 0,
        is_limited: value.flags & FRONTEND_SOURCE_RANGES != 0,
        affinity_seconds: value.affinity_seconds,
        maglev_places: TableSize::of(value.flags).map(TableSize::places),
    }
}

fn endpoint(backend: &Backend) -> Endpoint {
    let ip = if is_mapped(&backend.address) {
        unmapped(&backend.address).into()
    } else {
        IpAddr::from(backend.address)
    };
    Endpoint {
        address: SocketAddr::new(ip, u16::from_be_bytes(backend.port)),
        is_local: backend.flags & BACKEND_LOCAL != 0,
    }
}
