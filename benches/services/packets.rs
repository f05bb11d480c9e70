//! What the packet programs cost, by BPF_PROG_TEST_RUN: one run a call, since a second one would meet the frame that the first
//! one has rewritten.

use fairlead_ebpf::{
    abi::{
        BACKEND_LOCAL, Backend, BackendKey, FirstBackends, FrontendEntry, FrontendKey,
        FrontendValue, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, TCP,
    },
    packet::mapped,
};
use fairlead_proxy::{
    Kernel, KernelOptions,
    delta::Step,
    maps::{Maps as _, kernel::KernelMaps},
};

use crate::{report::Row, support_frames::Packet, world::World};

const RUNS: u16 = 20_000;
const IN: &str = "uplink_ingress";
const NODE: [u8; 4] = [192, 168, 0, 2];
const EMPTY_PORT: u16 = 30_001;

/// With so many Services in the maps.
pub fn measure(scale: u64, rows: &mut Vec<Row>) {
    let world = World::new();
    let options = KernelOptions {
        bpffs: world.bpffs(),
        cgroup_root: Some(world.node_cgroup()),
        ..KernelOptions::default()
    };
    let kernel = Kernel::open(&options).unwrap();
    let node = mapped(NODE);
    let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
    kernel.set_node(&[(node, flags)].into(), node, [0; 16]).unwrap();
    fill(&mut kernel.maps().unwrap(), scale);

    let to = |port: u16| format!("192.168.0.2:{port}");
    let client = |n: u16| format!("203.0.113.9:{}", 1024 + n);
    let first = |n: u16| Packet::first(TCP, &client(n), &to(30_000));
    let opened: Vec<f64> = (0..RUNS).map(|n| ns(&kernel, &first(n))).collect();
    let later = Packet::first(TCP, &client(7), &to(30_000)).later();
    let mut row = |figure, runs: Vec<f64>| {
        let row = Row::new(figure, "fairlead", scale, "ns", &runs);
        println!("{figure} at {scale}: {:.0} ns", row.value);
        rows.push(row);
    };
    row("ns_per_packet_hit", opened);
    row("ns_per_packet_established", (0..RUNS).map(|_| ns(&kernel, &later)).collect());
    let miss = |n: u16| Packet::first(TCP, &client(n), "198.51.100.1:443");
    row("ns_per_packet_miss", (0..RUNS).map(|n| ns(&kernel, &miss(n))).collect());
    let refused = |n: u16| Packet::first(TCP, &client(n), &to(EMPTY_PORT));
    row("ns_per_packet_rejected", (0..RUNS).map(|n| ns(&kernel, &refused(n))).collect());
    for (program, instructions) in kernel.verified_instructions().unwrap() {
        if program == IN {
            rows.push(Row::new("insns_verified", "fairlead", scale, "", &[instructions.into()]));
        }
    }
}

fn ns(kernel: &Kernel, packet: &Packet) -> f64 {
    f64::from(kernel.run_on_packet(IN, &packet.frame(), 1).unwrap().duration_ns)
}

/// ClusterIPs up to the scale, a NodePort with two local backends, one without any.
fn fill(maps: &mut KernelMaps, scale: u64) {
    let (mut slots, mut frontends) = (vec![], vec![]);
    let mut put = |key: FrontendKey, value: FrontendValue, set: &[Backend]| {
        let first = FirstBackends::of(&key, set.iter().copied());
        frontends.push((key, FrontendEntry { value, first }));
    };
    for n in 0..u32::try_from(scale).unwrap() {
        let set_id = n + 1;
        let [_, a, b, c] = n.to_be_bytes();
        let set = [0, 1].map(|slot| {
            let address = mapped([10, 244 + slot, b, c]);
            Backend { address, port: 8080u16.to_be_bytes(), flags: BACKEND_LOCAL }
        });
        let keys = (0..).map(|slot| BackendKey { set_id, slot });
        slots.extend(keys.zip(set));
        let value = FrontendValue {
            set_id,
            counter_id: set_id,
            backends: 2,
            ..bytemuck::Zeroable::zeroed()
        };
        let mut key = FrontendKey {
            address: mapped([10, 96 + a, b, c]),
            port: 80u16.to_be_bytes(),
            protocol: TCP,
            zero: 0,
        };
        put(key, value, &set);
        if n == 0 {
            (key.address, key.port) = (fairlead_ebpf::abi::ANY_V4, 30_000u16.to_be_bytes());
            put(key, value, &set);
            key.port = EMPTY_PORT.to_be_bytes();
            put(key, FrontendValue { backends: 0, ..value }, &[]);
        }
    }
    maps.apply(&Step::PutBackends(slots)).unwrap();
    maps.apply(&Step::PutFrontends(frontends)).unwrap();
}
