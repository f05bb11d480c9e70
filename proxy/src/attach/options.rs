//! What an agent asks of the kernel.

use std::{ops::RangeInclusive, path::PathBuf};

use ipnetwork::IpNetwork;

use super::NodePortAddresses;
use crate::object::MapSizes;

/// Which devices are uplinks: where traffic for NodePorts arrives from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Whatever others can reach an address of this node by, and overlays; not what leads to this node's pods.
    #[default]
    Auto,
    /// Exactly these, by name; a bridge with a card stands for its ports, of which those to pods are none.
    List(Vec<String>),
}

/// Where and how to load.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// The cgroup whose processes are served, children included; `None`: the cgroup2 mount.
    pub cgroup_root: Option<PathBuf>,
    /// A BPF file system, or an empty directory to mount one on.
    pub bpffs: PathBuf,
    /// The uplinks.
    pub devices: Devices,
    /// The maps' sizes, where they are not pinned already.
    pub sizes: MapSizes,
    /// Ports for source translation towards other nodes: neither NodePorts nor
    /// `net.ipv4.ip_local_port_range`. Others are taken where NodePorts come to be among them.
    pub snat_ports: RangeInclusive<u16>,
    /// Where NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
    /// Where ClusterIPs come from; what is in them and not allotted is dropped.
    pub service_cidrs: Vec<IpNetwork>,
    /// Backends see the node's address instead of the client's, for every packet to a service but those to an external
    /// address under `externalTrafficPolicy: Local`. What sockets of this node send keeps its address.
    pub masquerade_all: bool,
    /// Of sockets only those in the node's own network namespace are led to backends as they connect: packets of the others
    /// leave their namespace for what was dialled, and are met at their devices.
    pub node_sockets_only: bool,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            cgroup_root: None,
            bpffs: "/sys/fs/bpf".into(),
            devices: Devices::Auto,
            sizes: MapSizes::default(),
            // Before usual NodePorts and Linux's default local ports, 32768 to 60999.
            snat_ports: 1024..=29999,
            node_port_addresses: NodePortAddresses::default(),
            service_cidrs: Vec::new(),
            masquerade_all: false,
            node_sockets_only: false,
        }
    }
}
