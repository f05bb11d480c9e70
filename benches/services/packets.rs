//! What the packet programs cost, by BPF_PROG_TEST_RUN: one run a call, since a second one would meet the frame that the first
//! one has rewritten.

use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, Address, BACKEND_LOCAL, Backend, BackendKey, FirstBackends, FrontendEntry,
        FrontendKey, FrontendValue, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, TCP, UDP,
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
/// Of that many connections the one that is in the table for certain.
const NEWEST: u16 = RUNS - 1;
const IN: &str = "uplink_ingress";
const OUT: &str = "uplink_egress";
const POD: &str = "pod_ingress";
const NODE: [u8; 4] = [192, 168, 0, 2];
const NODE_V6: [u8; 16] = *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02";
/// Of two backends on this node, of one on another, of none.
const LOCAL_PORT: u16 = 30_000;
const EMPTY_PORT: u16 = 30_001;
const REMOTE_PORT: u16 = 30_002;

/// Programs over maps that somebody fills, attached to nothing.
struct Bed {
    kernel: Kernel,
    _world: World,
}

impl Bed {
    fn new() -> Self {
        let world = World::new();
        let options = KernelOptions {
            bpffs: world.bpffs(),
            cgroup_root: Some(world.node_cgroup()),
            ..KernelOptions::default()
        };
        Self { kernel: Kernel::open(&options).unwrap(), _world: world }
    }

    /// Nanoseconds of a run, and the packet after it.
    fn run(&self, program: &'static str, packet: &Packet) -> (f64, Packet) {
        let run = self.kernel.run_on_packet(program, &packet.frame(), 1).unwrap();
        (run.duration_ns.into(), Packet::read_unchecked(&run.packet))
    }
}

/// With so many Services in the maps.
pub fn measure(scale: u64, rows: &mut Vec<Row>) {
    let bed = Bed::new();
    let node = mapped(NODE);
    let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
    bed.kernel.set_node(&[(node, flags), (NODE_V6, flags)].into(), node, NODE_V6).unwrap();
    fill(&mut bed.kernel.maps().unwrap(), scale);
    let mut row = |figure, runs: Vec<f64>| {
        let row = Row::new(figure, "fairlead", scale, "ns", &runs);
        println!("{figure} at {scale}: {:.0} ns", row.value);
        rows.push(row);
    };
    let ns = |program, packet: &Packet| bed.run(program, packet).0;
    let each = |program, packet: &dyn Fn(u16) -> Packet| -> Vec<f64> {
        (0..RUNS).map(|n| ns(program, &packet(n))).collect()
    };
    let to =
        |port: u16| move |n: u16| Packet::first(TCP, &client(n), &format!("192.168.0.2:{port}"));
    let to_v6 = |n: u16| Packet::first(TCP, &client_v6(n), &format!("[2001:db8::2]:{LOCAL_PORT}"));
    let datagram = |n: u16| Packet::first(UDP, &client(n), &format!("192.168.0.2:{LOCAL_PORT}"));
    let of_pod = |n: u16| Packet::first(TCP, &format!("10.244.9.9:{}", 1024 + n), "10.96.0.0:80");
    let no_service = |n: u16| Packet::first(TCP, &client(n), "198.51.100.1:443");

    row("ns_per_packet_hit", each(IN, &to(LOCAL_PORT)));
    row("ns_per_packet_established", each(IN, &|_| to(LOCAL_PORT)(NEWEST).later()));
    row("ns_per_packet_miss", each(IN, &no_service));
    row("ns_per_packet_rejected", each(IN, &to(EMPTY_PORT)));
    row("ns_per_packet_hit_v6", each(IN, &to_v6));
    row("ns_per_packet_established_v6", each(IN, &|_| to_v6(NEWEST).later()));
    row("ns_per_packet_hit_udp", each(IN, &datagram));
    row("ns_per_packet_established_udp", each(IN, &|_| datagram(NEWEST)));
    row("ns_per_packet_hit_remote", each(IN, &to(REMOTE_PORT)));
    row("ns_per_packet_established_remote", each(IN, &|_| to(REMOTE_PORT)(NEWEST).later()));
    row("ns_per_packet_hit_pod", each(POD, &of_pod));
    row("ns_per_packet_established_pod", each(POD, &|_| of_pod(NEWEST).later()));
    row("ns_per_packet_miss_pod", each(POD, &no_service));
    // What the other end of it sees, of connections opened above: the last ones, which are in the table still.
    let at_backend = bed.run(IN, &to(LOCAL_PORT)(NEWEST)).1;
    let answer = at_backend.reply();
    assert_eq!(bed.run(OUT, &answer).1.from, to(LOCAL_PORT)(0).to, "an answer is the NodePort's");
    row("ns_per_packet_egress", each(OUT, &|_| answer.clone()));
    let outward = bed.run(IN, &to(REMOTE_PORT)(NEWEST)).1;
    assert_eq!(bed.run(OUT, &outward).1.from.ip(), to(REMOTE_PORT)(0).to.ip(), "from the node");
    row("ns_per_packet_egress_remote", each(OUT, &|_| outward.clone()));
    row("ns_per_packet_egress_miss", each(OUT, &no_service));
}

/// Of each program, what the kernel went through to check it.
pub fn instructions(rows: &mut Vec<Row>) {
    let verified = Bed::new().kernel.verified_instructions().unwrap();
    rows.push(Row::new("insns_verified", "fairlead", 0, "", &[verified[IN].into()]));
    for (program, instructions) in verified {
        let row = Row::new("", "fairlead", 0, "", &[instructions.into()]);
        rows.push(Row { figure: format!("insns_{program}").into(), ..row });
    }
}

fn client(n: u16) -> String {
    format!("203.0.113.9:{}", 1024 + n)
}

fn client_v6(n: u16) -> String {
    format!("[2001:db8:9::9]:{}", 1024 + n)
}

/// What there is for whom.
#[derive(Default)]
struct Content {
    slots: Vec<(BackendKey, Backend)>,
    frontends: Vec<(FrontendKey, FrontendEntry)>,
    sets: u32,
}

impl Content {
    /// A set of backends, led to by all these.
    fn put(&mut self, keys: &[FrontendKey], set: &[Backend]) {
        self.sets += 1;
        let set_id = self.sets;
        let slots = (0..).map(|slot| BackendKey { set_id, slot });
        self.slots.extend(slots.zip(set.iter().copied()));
        let value = FrontendValue {
            set_id,
            counter_id: set_id,
            backends: u16::try_from(set.len()).unwrap(),
            ..bytemuck::Zeroable::zeroed()
        };
        self.frontends.extend(keys.iter().map(|key| {
            let first = FirstBackends::of(key, set.iter().copied());
            (*key, FrontendEntry { value, first })
        }));
    }
}

fn frontend(address: Address, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey { address, port: port.to_be_bytes(), protocol, zero: 0 }
}

fn backend(address: Address, flags: u16) -> Backend {
    Backend { address, port: 8080u16.to_be_bytes(), flags }
}

/// ClusterIPs up to the scale; NodePorts with two local backends, with one elsewhere and without any.
fn fill(maps: &mut KernelMaps, scale: u64) {
    let mut content = Content::default();
    for n in 0..u32::try_from(scale).unwrap() {
        let [_, a, b, c] = n.to_be_bytes();
        let set = [0, 1].map(|slot| backend(mapped([10, 244 + slot, b, c]), BACKEND_LOCAL));
        let mut keys = vec![frontend(mapped([10, 96 + a, b, c]), 80, TCP)];
        if n == 0 {
            keys.extend([TCP, UDP].map(|protocol| frontend(ANY_V4, LOCAL_PORT, protocol)));
        }
        content.put(&keys, &set);
    }
    let in_v6 = |last| [0xfd, 0, 0x10, 0x24, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let set = [1, 2].map(|last| backend(in_v6(last), BACKEND_LOCAL));
    content.put(&[frontend(ANY_V6, LOCAL_PORT, TCP)], &set);
    content.put(&[frontend(ANY_V4, REMOTE_PORT, TCP)], &[backend(mapped([10, 250, 0, 1]), 0)]);
    content.put(&[frontend(ANY_V4, EMPTY_PORT, TCP)], &[]);
    maps.apply(&Step::PutBackends(content.slots)).unwrap();
    maps.apply(&Step::PutFrontends(content.frontends)).unwrap();
}
