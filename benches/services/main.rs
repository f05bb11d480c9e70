//! Services: from objects to kernel maps, from a change to the first packet, and what connect() costs.
//!
//! The real agent, against the list/watch server of the tests, in network namespaces and a cgroup of its own.
#![allow(unreachable_pub, dead_code, missing_docs, reason = "shared by several programs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends at a surprise")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "it prints its table")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clocks and samples")]

mod client;
#[path = "../common/shared.rs"]
mod common;
mod exchanges;
mod flows;
mod kube_proxy;
mod nodeport;
mod objects;
mod packets;
mod scale;
mod stats;
mod subject;
#[path = "../../tests/it/support"]
mod support {
    pub(crate) mod apiserver;
}
#[path = "../../proxy/tests/support/frames.rs"]
mod support_frames;
mod world;

use client::{Connects, Way};
use common::{
    charts::Chart,
    process,
    report::{self, Row, quantile},
};
use kube_proxy::{KubeProxy, Mode};
use world::World;

const SYNC_SCALES: [u64; 4] = [1_000, 10_000, 30_000, 50_000];
const SYNC_ROUNDS: usize = 3;
const CONNECT_SCALES: [u64; 3] = [100, 10_000, 30_000];
const CONNECTS_MIN: u64 = 20_000;
/// Of each way: five ways' stay below the usual limit of open files.
const SOCKETS_AT_ONCE: usize = 150;
/// Beyond it kube-proxy's first sync takes many minutes.
const KUBE_PROXY_SCALE_MAX: u64 = 10_000;
const CHANGES: usize = 200;
/// It waits a second between syncs.
const KUBE_PROXY_CHANGES: usize = 15;
const PACKET_SCALES: [u64; 3] = [1_000, 10_000, 100_000];
const CHANGE_SCALES: [u64; 3] = [1_000, 10_000, 30_000];

/// What can be measured alone.
const PARTS: [&str; 6] = ["sync", "change", "scale", "connect", "flows", "packets"];

const NOTES: &str = "Two endpoints a Service, one TCP port. `programmed_ms`: from the last object received by the agent to complete kernel maps, as the \
agent logs it; `cold_start_ms`: from starting the process with empty maps to complete maps, listing included; `restart_ms`: the same over maps an earlier \
agent left. `kube-proxy-nft` and `kube-proxy-iptables` are the \
real kube-proxy in its two modes, fed by the same API server with the same objects, over TLS: `cold_start_ms` and `restart_ms` end with its first sync, by its own \
metrics; its processor time includes nft's and iptables-restore's. `rss_mib` is what stays, `rss_peak_mib` the most there was; `locked_mib` is the kernel's memory of the agent's maps and programs. \
`change_to_packet`: from the moment the API server sends a changed EndpointSlice to the end of the first connect() that reaches the \
new endpoint. `connect_us`: TCP connect() from one namespace through a routing one to a third, each time to another Service; client on core 0, server on \
core 1; the ways take turns connect by connect; nobody sleeps in accept(), since waking a halted core costs a virtual machine 11 us. `no-proxy` has three namespaces \
of its own with neither programs nor rules; `direct` is the endpoint's own address dialled past the agent's devices, outside the cgroup that has the hooks, \
`direct-past-nft` the same past the rules. `connect_first` is the first connect to each Service; \
`connect_added_us_p50` is the median of the differences to the `direct` connect of the same turn (`kube-proxy-nft`: to `direct-past-nft`), \
`connect_above_bare_us_p50` to `no-proxy`, both with their extremes; `connect_program_ns` is the mean \
run time of the connect4 program by the kernel's statistics, which add two clock readings. `ns_per_packet`: `uplink_ingress` on a TCP frame for a NodePort \
by BPF_PROG_TEST_RUN, one run a call: a SYN that opens a connection to a local backend, a later packet of one, a SYN for no service, one for a NodePort without \
backends (answered by RST); `_v6`, `_udp`: the same by IPv6, by UDP; `_remote`: to a backend on another node; `_pod`: `pod_ingress` on a pod's own to a ClusterIP; \
`_egress`: `uplink_egress` on the answer of a local backend, on what goes to one on another node (`_remote`), on what is of no connection (`_miss`). `insns_verified`, of `uplink_ingress`, and `insns_NAME`: the \
instructions that the kernel went through to check each program, however many Services there are. `crr`: one client, one after the other, connects, \
asks and closes; `udp_rr`: it asks on one socket; `udp_crr`: on a new one each; by ClusterIP and, `nodeport_`, from outside by the node's port. The ways take turns exchange by exchange, \
client on core 0, server on core 1, neither end sleeping: `_per_s` by the whole time of a round, `_us_p99`, and as with connect() the median differences to another exchange of the same turn, \
`_added_us_p50` (in the same world, to the endpoint itself) and `_above_bare_us_p50`; of NodePorts `_added_us_p50` is that above `no-proxy`, `nodeport_rtt_us_p99` and `nodeport_added_us_p50` those of `udp_rr`. \
`nodeport_gbit_per_s` is iperf3's one stream. \
`nodeport_packets_per_s`: datagrams of 18 bytes that arrive when one core of a client outside sends as many as it can over 64 sockets, the node's part being done on the \
same core, and `nodeport_packet_cpu_ns` that core's time for each. \
`changes_1000_per_s_lag_us`: how late the change after 10,000 at that rate is.";

const PROXIES: &[&str] = &["fairlead", "kube-proxy-nft", "kube-proxy-iptables"];
const CONNECTING: &[&str] = &["fairlead", "kube-proxy-nft", "no-proxy", "direct"];

const CHARTS: &[Chart] = &[
    Chart::Ratios {
        file: "ratios",
        title: "kube-proxy over Fairlead with 10,000 Services",
        scale: KUBE_PROXY_SCALE_MAX,
        figures: &[
            "cold_start_ms",
            "restart_ms",
            "cold_start_cpu_ms",
            "rss_mib",
            "rss_peak_mib",
            "change_to_packet_us_p50",
            "change_to_packet_us_p99",
            "connect_first_us_p50",
            "connect_us_p50",
            "connect_us_p99",
        ],
        peers: &["kube-proxy-nft", "kube-proxy-iptables"],
    },
    Chart::by_services("cold-start", "From the start to complete rules", "cold_start_ms", PROXIES),
    Chart::by_services("restart", "The same over what an earlier one left", "restart_ms", PROXIES),
    Chart::by_services("cpu", "Processor time of a start", "cold_start_cpu_ms", PROXIES),
    Chart::by_services("rss", "Memory at rest", "rss_mib", PROXIES),
    Chart::by_services(
        "change",
        "From a change to the first packet, median",
        "change_to_packet_us_p50",
        PROXIES,
    ),
    Chart::by_services(
        "connect",
        "TCP connect() to a Service, median",
        "connect_us_p50",
        CONNECTING,
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if client::is_role(&arguments) {
        return client::run(&arguments);
    }
    let words = report::words();
    // `make bench-services` measures everything and writes the page; a single part is only printed.
    let part = words.first().map(String::as_str);
    if part == Some(report::DRAW) {
        return report::publish("services", NOTES, CHARTS);
    }
    assert!(part.is_none_or(|part| PARTS.contains(&part)), "parts are {PARTS:?}");
    let mut rows = vec![];
    let is_wanted = |name: &str| part.is_none_or(|part| part == name);
    // Of sync and connect alone, and then without kube-proxy: its first sync would take most of the time.
    let services = arguments.get(2).and_then(|word| word.parse().ok());
    if is_wanted("sync") {
        match services {
            Some(scale) => sync(scale, false, &mut rows),
            None => SYNC_SCALES
                .into_iter()
                .for_each(|scale| sync(scale, scale <= KUBE_PROXY_SCALE_MAX, &mut rows)),
        }
    }
    if is_wanted("change") {
        for scale in CHANGE_SCALES {
            change(scale, &mut rows);
        }
    }
    if is_wanted("scale") {
        scale::measure(&mut rows);
    }
    if is_wanted("connect") {
        match services {
            Some(scale) => connect(scale, false, &mut rows),
            None => CONNECT_SCALES
                .into_iter()
                .for_each(|scale| connect(scale, scale <= KUBE_PROXY_SCALE_MAX, &mut rows)),
        }
    }
    if is_wanted("flows") {
        flows::measure(&mut rows);
    }
    if is_wanted("packets") {
        for scale in PACKET_SCALES {
            packets::measure(scale, &mut rows);
        }
        packets::instructions(&mut rows);
    }
    if part.is_some() {
        return print!("{}", report::table(&rows));
    }
    report::finish("services", NOTES, CHARTS, rows);
}

fn sync(scale: u64, beside_kube_proxy: bool, rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(scale));
    let (mut programmed, mut cold, mut restart) = (vec![], vec![], vec![]);
    let (mut cpu, mut rss, mut peak, mut locked) = (vec![], vec![], vec![], vec![]);
    for round in 0..SYNC_ROUNDS {
        world.clear_pins();
        let first = subject::Agent::start(&world, &api);
        programmed.push(first.programmed_ms);
        cold.push(first.started_ms);
        cpu.push(process::cpu_us(first.pid()) / 1000.0);
        rss.push(process::settled_rss_mib(first.pid()));
        peak.push(process::status_kib(first.pid(), "VmHWM") / 1024.0);
        locked.push(stats::locked_mib(first.pid()));
        println!(
            "{scale} round {round}: programmed {:.1} ms, cold {:.1} ms",
            first.programmed_ms, first.started_ms
        );
        drop(first);
        restart.push(subject::Agent::start(&world, &api).started_ms);
    }
    for (figure, unit, runs) in [
        ("programmed_ms", "ms", &programmed),
        ("cold_start_ms", "ms", &cold),
        ("restart_ms", "ms", &restart),
        ("cold_start_cpu_ms", "ms", &cpu),
        ("rss_mib", "MiB", &rss),
        ("rss_peak_mib", "MiB", &peak),
        ("locked_mib", "MiB", &locked),
    ] {
        rows.push(Row::new(figure, "fairlead", scale, unit, runs));
    }
    if beside_kube_proxy {
        for mode in [Mode::Nftables, Mode::Iptables] {
            sync_kube_proxy(mode, scale, rows);
        }
    }
}

fn sync_kube_proxy(mode: Mode, scale: u64, rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(scale));
    let proxy = KubeProxy::start(&world, &api, mode);
    let figures = [
        ("cold_start_ms", "ms", proxy.started_ms),
        ("cold_start_cpu_ms", "ms", proxy.cpu_ms()),
        ("rss_mib", "MiB", process::settled_rss_mib(proxy.pid())),
        ("rss_peak_mib", "MiB", process::status_kib(proxy.pid(), "VmHWM") / 1024.0),
    ];
    drop(proxy);
    let again = KubeProxy::start(&world, &api, mode).started_ms;
    for (figure, unit, value) in figures.into_iter().chain([("restart_ms", "ms", again)]) {
        println!("{scale}: {figure} {} {value:.0} {unit}", mode.subject());
        rows.push(Row::new(figure, mode.subject(), scale, unit, &[value]));
    }
}

fn change(scale: u64, rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(scale));
    let agent = subject::Agent::start(&world, &api);
    follow("fairlead", scale, subject::changes(&world, &api, CHANGES), rows);
    drop(agent);
    if scale <= KUBE_PROXY_SCALE_MAX {
        for mode in [Mode::Nftables, Mode::Iptables] {
            let world = World::new();
            let api = subject::serve(&world, objects::services(scale));
            let _proxy = KubeProxy::start(&world, &api, mode);
            let samples = subject::changes(&world, &api, KUBE_PROXY_CHANGES);
            follow(mode.subject(), scale, samples, rows);
        }
    }
}

fn follow(subject: &'static str, scale: u64, mut samples: Vec<f64>, rows: &mut Vec<Row>) {
    println!("{scale}: changes by {subject}: median {:.0} us", quantile(&mut samples, 0.5));
    for (figure, share) in [("change_to_packet_us_p50", 0.5), ("change_to_packet_us_p99", 0.99)] {
        rows.push(Row::new(figure, subject, scale, "us", &[quantile(&mut samples, share)]));
    }
}

fn connect(scale: u64, is_compared: bool, rows: &mut Vec<Row>) {
    // A world each: rules and programs of one way must not see the packets of another.
    let (bare, ours, theirs) = (World::new(), World::new(), World::new());
    let api = subject::serve(&ours, objects::services(scale));
    let agent = subject::Agent::start(&ours, &api);
    let mut ways = vec![
        Way { subject: "no-proxy", world: &bare, base: None },
        Way { subject: "direct", world: &ours, base: None },
        Way { subject: "fairlead", world: &ours, base: Some(1) },
    ];
    let mut proxy = None;
    if is_compared {
        let api = subject::serve(&theirs, objects::services(scale));
        proxy = Some(KubeProxy::start(&theirs, &api, Mode::Nftables));
        ways.push(Way { subject: "direct-past-nft", world: &theirs, base: None });
        ways.push(Way { subject: "kube-proxy-nft", world: &theirs, base: Some(3) });
    }
    let _sinks = [&bare, &ours, &theirs].map(client::sink);
    let mut client = Connects::start(&ways, scale);
    // The first connection to a Service meets its entries cold: a cost of its own.
    let first = connects(&mut client, ways.len(), scale);
    let again = connects(&mut client, ways.len(), scale.max(CONNECTS_MIN));
    for (way, (first, again)) in ways.iter().zip(first.iter().zip(&again)) {
        let mut row = |figure, samples: &[f64], share| {
            let value = quantile(&mut samples.to_vec(), share);
            rows.push(Row::new(figure, way.subject, scale, "us", &[value]));
        };
        row("connect_first_us_p50", first, 0.5);
        row("connect_us_p50", again, 0.5);
        row("connect_us_p99", again, 0.99);
    }
    for (way, own) in ways.iter().zip(&again) {
        let mut row = |figure, base: usize| {
            let pairs = own.iter().zip(&again[base]);
            let added: Vec<f64> = pairs.map(|(own, base)| own - base).collect();
            let row = Row::new(figure, way.subject, scale, "us", &added);
            println!("{scale}: {figure} {} {:.2} us", way.subject, row.value);
            rows.push(row);
        };
        if let Some(base) = way.base {
            row("connect_added_us_p50", base);
        }
        row("connect_above_bare_us_p50", 0);
    }
    let _stats = stats::Enabled::new();
    let before = stats::socket_programs(agent.pid());
    connects(&mut client, ways.len(), CONNECTS_MIN);
    let ns = stats::busiest_ns(&before, &stats::socket_programs(agent.pid()));
    println!("connect at {scale}: the program runs {ns:.0} ns");
    rows.push(Row::new("connect_program_ns", "fairlead", scale, "ns", &[ns]));
    drop((agent, proxy));
}

/// By way, `count` connects each.
fn connects(client: &mut Connects, ways: usize, count: u64) -> Vec<Vec<f64>> {
    let mut all = vec![vec![]; ways];
    let mut left = count as usize;
    while left > 0 {
        let batch = left.min(SOCKETS_AT_ONCE);
        for (all, mut samples) in all.iter_mut().zip(client.take(batch)) {
            all.append(&mut samples);
        }
        left -= batch;
    }
    all
}
