//! The packet programs on single frames, with what they must be told.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{collections::BTreeMap, net::SocketAddr};

use fairlead_ebpf::abi::{FrontendKey, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, Reason};
use fairlead_proxy::{
    Kernel, KernelOptions,
    maps::{Maps as _, kernel::KernelMaps},
};

use super::{
    frames::Packet,
    services::{address, put},
};

pub(crate) const NEXT: i32 = -1;
pub(crate) const DROP: i32 = 2;
pub(crate) const IN: &str = "uplink_ingress";
pub(crate) const POD: &str = "pod_ingress";
pub(crate) const OUT: &str = "uplink_egress";
pub(crate) const REDIRECT: i32 = 7;

pub(crate) const NODE_V4: &str = "192.168.0.2";
pub(crate) const NODE_V6: &str = "2001:db8::2";

pub(crate) struct Uplink {
    pub(crate) kernel: Kernel,
    pub(crate) maps: KernelMaps,
}

impl Uplink {
    pub(crate) fn new(options: &KernelOptions) -> Self {
        let kernel = Kernel::open(options).unwrap();
        let [v4, v6] = [NODE_V4, NODE_V6].map(|ip| address(ip.parse().unwrap()));
        let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
        kernel.set_node(&[(v4, flags), (v6, flags)].into(), v4, v6).unwrap();
        let maps = kernel.maps().unwrap();
        Self { kernel, maps }
    }

    pub(crate) fn put(&mut self, key: FrontendKey, set: u32, backends: &[&str], flags: u16) {
        let backends: Vec<(SocketAddr, u16)> =
            backends.iter().map(|at| (at.parse().unwrap(), flags)).collect();
        put(&mut self.maps, key, set, &backends);
    }

    /// The packet after it has passed `hook`; it must be let through, its checksums must hold.
    pub(crate) fn pass(&self, hook: &'static str, packet: &Packet) -> Packet {
        let run = self.kernel.run_on_packet(hook, &packet.frame(), 1).unwrap();
        assert_eq!(run.verdict, NEXT, "{hook} {packet:?}");
        let after = Packet::read(&run.packet);
        assert_eq!((after.flags, &after.payload), (packet.flags, &packet.payload), "{hook}");
        after
    }

    pub(crate) fn verdict(&self, hook: &'static str, frame: &[u8]) -> i32 {
        let run = self.kernel.run_on_packet(hook, frame, 1).unwrap();
        assert!(run.verdict == DROP || run.packet == frame, "{hook} changed the frame");
        run.verdict
    }

    /// As [`Self::verdict`], whatever becomes of the frame.
    pub(crate) fn verdict_of(&self, hook: &'static str, frame: &[u8]) -> i32 {
        self.kernel.run_on_packet(hook, frame, 1).unwrap().verdict
    }

    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.kernel.drops().unwrap()[&reason]
    }

    pub(crate) fn services(&self, set: u32) -> (u64, u64) {
        // Absent until something is counted.
        let counters = self.maps.counters().unwrap().remove(&set).unwrap_or_default();
        (counters.selected, counters.rejected())
    }

    pub(crate) fn refused(&self, set: u32) -> BTreeMap<Reason, u64> {
        self.maps.counters().unwrap().remove(&set).unwrap_or_default().refused
    }
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
