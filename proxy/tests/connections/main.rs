//! The connection table: who meets which backend, from which port, and for how long.

mod backends;
mod datagrams;
mod ends;
mod resets;
mod room;
mod source_ports;
mod table;
#[path = "../support"]
mod support {
    pub(crate) mod client;
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

use fairlead_ebpf::abi::FrontendKey;
use support::{
    frames::Packet,
    services::{frontend, node_port},
    uplink::{IN, OUT, Uplink},
};

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
struct Family {
    is_ipv4: bool,
    /// The node's, by NodePort 30080.
    dialled: &'static str,
    /// A Service's range.
    cidr: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { is_ipv4: true, dialled: "192.168.0.2:30080", cidr: "10.96.0.0/16" },
    Family { is_ipv4: false, dialled: "[2001:db8::2]:30080", cidr: "fd00:96::/112" },
];

impl Family {
    /// A port of client number `n`, who is outside.
    fn client(self, n: u16, port: u16) -> String {
        let [high, low] = n.to_be_bytes();
        match self.is_ipv4 {
            true => format!("198.18.{high}.{low}:{port}"),
            false => format!("[2001:2::{n:x}]:{port}"),
        }
    }

    /// A port of a pod's.
    fn pod(self, port: u16) -> String {
        if self.is_ipv4 { format!("10.244.0.9:{port}") } else { format!("[fd00:10::9]:{port}") }
    }

    /// Backend number `n`.
    fn backend(self, n: u8) -> String {
        if self.is_ipv4 { format!("10.244.1.{n}:8080") } else { format!("[fd00:11::{n}]:8080") }
    }

    /// A ClusterIP's port; no Service has number 200.
    fn cluster_ip(self, n: u8, port: u16) -> String {
        if self.is_ipv4 { format!("10.96.0.{n}:{port}") } else { format!("[fd00:96::{n}]:{port}") }
    }

    fn cluster_ip_key(self, n: u8, port: u16, protocol: u8) -> FrontendKey {
        frontend(&self.cluster_ip(n, port), protocol)
    }

    /// Of the NodePort that is dialled.
    fn key(self, protocol: u8) -> FrontendKey {
        node_port(self.is_ipv4, 30080, protocol)
    }

    /// What opens a connection to the NodePort.
    fn first(self, protocol: u8, n: u16, port: u16) -> Packet {
        Packet::first(protocol, &self.client(n, port), self.dialled)
    }
}

/// A connection from outside to a backend on another node.
struct FromOutside<'a> {
    uplink: &'a Uplink,
    first: Packet,
}

impl FromOutside<'_> {
    fn there(&self, packet: &Packet) -> Packet {
        self.uplink.pass(OUT, &self.uplink.pass(IN, packet))
    }

    fn and_back(&self, at_backend: &Packet) -> Packet {
        self.uplink.pass(OUT, &self.uplink.pass(IN, at_backend))
    }

    fn open(&self) {
        self.and_back(&self.there(&self.first).reply());
        self.there(&self.first.later());
    }
}
