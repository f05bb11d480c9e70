//! What DNS answers cost, and what names take in memory: the agent beside CoreDNS, hickory and a
//! bare recvmmsg loop.
//!
//! Servers on core 0, dnsperf on core 1, loopback; rounds interleaved. Needs dnsperf and CoreDNS.
#![allow(unreachable_pub, dead_code, missing_docs, reason = "shared by several programs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "ends at a surprise")]
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "it prints its table")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clocks and samples")]

#[path = "../common/shared.rs"]
mod common;
mod memory;
mod objects;
mod subject;
#[path = "../../tests/it/support"]
mod support {
    pub(crate) mod apiserver;
}

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use common::{
    agent,
    charts::Chart,
    process,
    report::{self, Row},
};
use subject::{KUBEADM, MINIMAL, Subject};
use support::apiserver::ApiServer;
use tempfile::TempDir;

/// For what an answer costs.
const SERVICES: u64 = 10_000;
/// For memory, relists and the first answer.
const SCALES: [u64; 3] = [1_000, 10_000, 100_000];
const ROUNDS: usize = 5;
const ROUND_S: &str = "4";
/// Shares of what a server answers at most, in percent, at which its waits are measured: flat is what is no
/// longer at the last than at the first.
const PACES: [u32; 4] = [20, 40, 60, 80];
/// Questions of a pod that looks up `example.com` (ndots:5).
const WALK: usize = 4;

/// What is asked, and how.
struct Load {
    figure: &'static str,
    queries: String,
    mode: &'static str,
    /// Questions that belong together.
    questions: f64,
    subjects: &'static [&'static str],
}

/// A part is named by its last word.
const FIGURES: &[&str] = &[
    "cpu_us_hit",
    "cpu_us_nxdomain",
    "cpu_us_srv",
    "cpu_us_cached_external",
    "cpu_us_ndots_walk",
    "cpu_us_tcp",
];
/// At [`PACES`].
const WAITS: [&str; 4] =
    ["latency_us_p99_at_20", "latency_us_p99_at_40", "latency_us_p99_at_60", "latency_us_p99"];
const ALL: &[&str] = &["fairlead", "coredns-kubeadm", "coredns-minimal", "hickory", "floor"];
const NAMES: &[&str] = &["fairlead", "coredns-kubeadm", "coredns-minimal", "hickory"];
const CLUSTER_DNS: &[&str] = &["fairlead", "coredns-kubeadm"];

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let words = report::words();
    // `make bench-dns` measures everything and writes the page; a single part is only printed.
    let part = words.first().map(String::as_str);
    let services = words.get(1).map(|word| word.parse().expect("a number of Services"));
    tokio::task::block_in_place(|| match part {
        None => {
            let mut rows = answers(FIGURES, SERVICES);
            rows.extend(SCALES.into_iter().flat_map(footprints));
            report::finish("dns", NOTES, CHARTS, rows);
        }
        Some(report::DRAW) => report::publish("dns", NOTES, CHARTS),
        Some("memory") => {
            print!("{}", report::table(&footprints(services.unwrap_or(SERVICES))));
        }
        Some("work") => work(services.unwrap_or(SCALES[0])),
        Some(part) => {
            let figure = FIGURES.iter().find(|figure| figure.ends_with(&format!("_{part}")));
            let figure = figure.unwrap_or_else(|| panic!("parts are memory, work and {FIGURES:?}"));
            print!("{}", report::table(&answers(&[*figure], services.unwrap_or(SERVICES))));
        }
    });
}

const NOTES: &str = "Processor time of the server per completed query (all threads, /proc schedstat), loopback, \
server on core 0, dnsperf (8 clients, 200 outstanding) on core 1, 10,000 Services with an EndpointSlice each in 100 namespaces, read \
from one list/watch server. `coredns-kubeadm` is CoreDNS v1.15 with kubeadm's plugins but those that take ports, `coredns-minimal` \
with errors, kubernetes, forward and loadbalance; the agent has kubeadm's Corefile and counts metrics. `floor` is a bare recvmmsg/sendmmsg loop that answers every \
question with the same canned address; it is also everybody's upstream. `hickory` is hickory-server with its in-memory zone of the same names, on one thread. `cpu_us_ndots_walk` is the four questions of a pod that looks up example.com, together. \
`answers_per_s` is bounded by dnsperf's own core. `latency_us_p99` is at 80 % of the server's own answers_per_s, `..._at_20` and so on at less. `relist` is what memory rises by, and the \
longest wait for an answer, while everything is listed again after a compaction, five times (every answer is checked).";

const CHARTS: &[Chart] = &[
    Chart::Ratios {
        file: "ratios",
        title: "Cost of an answer with 10,000 Services: peers over Fairlead",
        scale: SERVICES,
        figures: FIGURES,
        peers: &["coredns-kubeadm", "coredns-minimal", "hickory", "floor"],
    },
    Chart::by_services("rss", "Memory at rest", "rss_mib", CLUSTER_DNS),
    Chart::by_services(
        "pause",
        "Longest wait for an answer meanwhile",
        "relist_pause_ms",
        CLUSTER_DNS,
    ),
    Chart::by_services(
        "first",
        "From the start to the first answer",
        "first_answer_ms",
        CLUSTER_DNS,
    ),
];

/// What servers answer of; fields end in this order.
struct Site {
    /// Everybody's.
    upstream: Subject,
    server: ApiServer,
    dir: TempDir,
    /// The last Service's name: who knows it knows all.
    last: String,
}

impl Site {
    fn with(services: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ApiServer::start_with_tls();
        let server = tokio::runtime::Handle::current().block_on(server);
        server.put_all(objects::cluster(services));
        let upstream = Subject::floor("upstream", dir.path());
        Self { upstream, server, dir, last: objects::name(services - 1) }
    }

    fn fairlead(&self) -> Subject {
        Subject::fairlead(self.dir.path(), &self.server, self.upstream.address, &self.last)
    }

    fn coredns(&self, name: &'static str, plugins: &str) -> Subject {
        let at = (&self.server, self.upstream.address);
        Subject::coredns(name, self.dir.path(), at, plugins, &self.last)
    }
}

/// What answers cost, by these figures.
fn answers(figures: &[&str], services: u64) -> Vec<Row> {
    let site = Site::with(services);
    let dir = site.dir.path();
    let subjects = [
        site.fairlead(),
        site.coredns("coredns-kubeadm", KUBEADM),
        site.coredns("coredns-minimal", MINIMAL),
        Subject::hickory(dir, services, &site.last),
        Subject::floor("floor", dir),
    ];
    let subject = |name: &str| subjects.iter().find(|subject| subject.name == name).unwrap();
    let mut loads = loads(dir, services);
    loads.retain(|load| figures.contains(&load.figure));
    let plans: Vec<_> = loads
        .iter()
        .flat_map(|load| load.subjects.iter().map(move |name| (load, subject(name))))
        .collect();
    let mut runs = vec![(vec![], vec![]); plans.len()];
    for round in 0..ROUNDS {
        for ((load, subject), (costs, rates)) in plans.iter().zip(&mut runs) {
            let (us, per_s) = measure(load, subject);
            println!("round {round}: {} {} {us:.2} us", load.figure, subject.name);
            costs.push(us * load.questions);
            rates.push(per_s);
        }
    }
    let mut rows = vec![];
    for ((load, subject), (costs, _)) in plans.iter().zip(&runs) {
        rows.push(Row::new(load.figure, subject.name, services, "us", costs));
    }
    let mut paced = vec![];
    for ((load, subject), (_, rates)) in plans.iter().zip(&runs) {
        if load.figure == "cpu_us_hit" {
            let row = Row::new("answers_per_s", subject.name, services, "1/s", rates);
            let most = row.value;
            rows.push(row);
            let at = |percent: u32| (most * f64::from(percent) / 100.0) as u64;
            paced.extend(
                PACES
                    .into_iter()
                    .zip(WAITS)
                    .map(|(percent, figure)| (figure, *load, *subject, at(percent), vec![])),
            );
        }
    }
    // In turn, as a disturbance of some seconds is most of a run.
    for _ in 0..ROUNDS {
        for (_, load, subject, pace, runs) in &mut paced {
            runs.push(waits(load, subject, *pace));
        }
    }
    rows.extend(paced.iter().map(|(figure, _, subject, _, runs)| {
        Row::new(*figure, subject.name, services, "us", runs)
    }));
    rows
}

/// What an agent does all day, measured by nobody: `tools/order.sh` watches what of it runs.
fn work(services: u64) {
    let site = Site::with(services);
    let subject = site.fairlead();
    memory::settle();
    memory::relist(&site.server, &subject, services);
    for load in loads(site.dir.path(), services) {
        let (us, _) = measure(&load, &subject);
        println!("{} {us:.2} us", load.figure);
    }
    drop(subject);
    site.server.put_all(objects::ingress());
    let at = (&site.server, site.upstream.address);
    let (subject, metrics) = Subject::with_ingress(site.dir.path(), at, &site.last);
    memory::settle();
    memory::relist(&site.server, &subject, services);
    let mut scrape = TcpStream::connect(metrics).expect("metrics are told");
    scrape.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut told = String::new();
    scrape.read_to_string(&mut told).unwrap();
    assert!(told.contains("fairlead_"), "{told}");
}

fn loads(dir: &Path, services: u64) -> Vec<Load> {
    let load = |figure, lines: Vec<String>, mode, questions, subjects| {
        let path = dir.join(format!("{figure}.queries"));
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        Load { figure, queries: path.to_str().unwrap().to_owned(), mode, questions, subjects }
    };
    // A fixed stride visits all names in an order that is no help to any cache.
    let each = |line: &dyn Fn(u64) -> String| -> Vec<String> {
        (0..20_000).map(|i| line((i * 7919) % services)).collect()
    };
    let namespace = |i: u64| i % objects::NAMESPACES;
    let hit = || each(&|i| format!("{} A", objects::name(i)));
    let miss = each(&|i| format!("www{i}.example.com.ns{}.svc.cluster.local A", namespace(i)));
    let srv = each(&|i| format!("_http._tcp.{} SRV", objects::name(i)));
    let cached = each(&|i| format!("www{}.example.com A", namespace(i)));
    let walk = (0..20_000_u64).flat_map(|i| {
        let own = format!("ns{}.svc.cluster.local", namespace(i));
        [&*own, "svc.cluster.local", "cluster.local", ""].map(|domain| {
            let name = format!("example.com.{domain}");
            format!("{} A", name.trim_end_matches('.'))
        })
    });
    vec![
        load("cpu_us_hit", hit(), "udp", 1.0, ALL),
        load("cpu_us_nxdomain", miss, "udp", 1.0, ALL),
        load("cpu_us_srv", srv, "udp", 1.0, NAMES),
        load("cpu_us_cached_external", cached, "udp", 1.0, CLUSTER_DNS),
        load("cpu_us_ndots_walk", walk.collect(), "udp", WALK as f64, CLUSTER_DNS),
        load("cpu_us_tcp", hit(), "tcp", 1.0, CLUSTER_DNS),
    ]
}

/// Processor time of an answer, and answers a second.
fn measure(load: &Load, subject: &Subject) -> (f64, f64) {
    let before = process::cpu_us(subject.process.pid());
    let text = dnsperf(load, subject, &["-l", ROUND_S, "-q", "200"]);
    let used = process::cpu_us(subject.process.pid()) - before;
    let completed = agent::number(&text, "Queries completed:");
    (used / completed, agent::number(&text, "Queries per second:"))
}

/// Microseconds below which 99 of 100 answers are, at so many questions a second.
fn waits(load: &Load, subject: &Subject, pace: u64) -> f64 {
    let text = dnsperf(load, subject, &["-l", ROUND_S, "-q", "200", "-v", "-Q", &pace.to_string()]);
    // `> NOERROR NAME TYPE SECONDS`
    let lines = text.lines().filter(|line| line.starts_with("> "));
    let mut waits: Vec<f64> =
        lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    report::quantile(&mut waits, 0.99) * 1_000_000.0
}

/// What is lost would be missing in a figure, and among waits the longest.
fn dnsperf(load: &Load, subject: &Subject, more: &[&str]) -> String {
    let port = subject.address.port().to_string();
    let arguments =
        ["-m", load.mode, "-s", "127.0.0.1", "-p", &port, "-d", &load.queries, "-c", "8"];
    let text = agent::load("dnsperf", &[&arguments, more].concat());
    let [completed, lost] =
        ["Queries completed:", "Queries lost:"].map(|line| agent::number(&text, line));
    assert!(lost < completed / 1000.0, "{}: lost {lost} of {completed}", subject.name);
    text
}

/// Memory, relist and first answer at one scale, one server after the other.
fn footprints(services: u64) -> Vec<Row> {
    let site = Site::with(services);
    let mut rows = vec![];
    for name in ["fairlead", "coredns-kubeadm"] {
        let subject = match name {
            "fairlead" => site.fairlead(),
            _ => site.coredns(name, KUBEADM),
        };
        let seen = memory::footprint(&site.server, &subject, services);
        let first = subject.first_answer.as_secs_f64() * 1000.0;
        println!("{services} {name}: {seen:?}, first answer after {first:.0} ms");
        let peaks = seen.relists.iter().map(|relist| relist.peak_mib).collect();
        let pauses = seen.relists.iter().map(|relist| relist.pause_ms).collect();
        for (figure, unit, runs) in [
            ("rss_mib", "MiB", vec![seen.rss_mib]),
            ("relist_peak_mib", "MiB", peaks),
            ("relist_pause_ms", "ms", pauses),
            ("first_answer_ms", "ms", vec![first]),
        ] {
            rows.push(Row::new(figure, name, services, unit, &runs));
        }
    }
    rows
}
