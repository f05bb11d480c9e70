//! Processor time per DNS answer: the agent beside a bare recvmmsg loop, both asked by dnsperf.
//!
//! Server on core 0, dnsperf on core 1, loopback; rounds interleaved. Needs dnsperf.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark ends at the first surprise"
)]
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a program that prints its table"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures: a clock and an index of samples"
)]
#![allow(unreachable_pub, dead_code, reason = "shared by several benchmarks")]

#[path = "../common/agent.rs"]
mod agent;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/report.rs"]
mod report;

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use agent::Running;
use report::Row;

const SERVICES: u64 = 10_000;
const NAMESPACES: u64 = 100;
const ROUNDS: usize = 5;
const ROUND_S: &str = "4";

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let fairlead = start_fairlead(dir.path());
    let floor = start_floor(dir.path());
    let hit = queries(dir.path(), "hit", |i| format!("{} A", name(i)));
    let miss = queries(dir.path(), "miss", |i| {
        format!("www{i}.example.com.ns{}.svc.cluster.local A", i % NAMESPACES)
    });
    let srv = queries(dir.path(), "srv", |i| format!("_http._tcp.{} SRV", name(i)));

    let plans: [(&'static str, &str, &'static str, &(Running, SocketAddr)); 5] = [
        ("cpu_us_hit", &hit, "fairlead", &fairlead),
        ("cpu_us_hit", &hit, "floor", &floor),
        ("cpu_us_nxdomain", &miss, "fairlead", &fairlead),
        ("cpu_us_nxdomain", &miss, "floor", &floor),
        ("cpu_us_srv", &srv, "fairlead", &fairlead),
    ];
    let mut runs = vec![(vec![], vec![]); plans.len()];
    for round in 0..ROUNDS {
        for (plan, (cost, rate)) in plans.iter().zip(&mut runs) {
            let (us, per_s) = measure(plan.1, plan.3);
            println!("round {round}: {} {} {us:.2} us", plan.0, plan.2);
            cost.push(us);
            rate.push(per_s);
        }
    }
    let mut rows = vec![];
    for (plan, (cost, _)) in plans.iter().zip(&runs) {
        rows.push(Row::new(plan.0, plan.2, SERVICES, "us", cost));
    }
    for (plan, (_, rate)) in plans.iter().zip(&runs).take(2) {
        rows.push(Row::new("answers_per_s", plan.2, SERVICES, "1/s", rate));
    }
    let rss = process::status_kib(fairlead.0.pid(), "VmRSS") / 1024.0;
    rows.push(Row::new("rss_mib", "fairlead", SERVICES, "MiB", &[rss]));
    report::finish("dns", NOTES, &rows);
}

const NOTES: &str = "Processor time of the server per completed query (all threads, /proc schedstat), loopback, \
server on core 0, dnsperf (8 clients, 200 outstanding) on core 1, 10,000 Services in 100 namespaces. `floor` is a bare \
recvmmsg/sendmmsg loop that answers every question with the same canned address. `answers_per_s` is bounded by dnsperf's own core.";

fn name(i: u64) -> String {
    format!("svc{i}.ns{}.svc.cluster.local", i % NAMESPACES)
}

fn measure(queries: &str, (server, address): &(Running, SocketAddr)) -> (f64, f64) {
    let port = address.port().to_string();
    let before = process::cpu_us(server.pid());
    let text = agent::load(
        "dnsperf",
        &["-s", "127.0.0.1", "-p", &port, "-d", queries, "-l", ROUND_S, "-c", "8", "-q", "200"],
    );
    let used = process::cpu_us(server.pid()) - before;
    let completed = agent::number(&text, "Queries completed:");
    let lost = agent::number(&text, "Queries lost:");
    assert!(lost < completed / 1000.0, "lost {lost} of {completed}");
    (used / completed, agent::number(&text, "Queries per second:"))
}

fn queries(dir: &Path, kind: &str, line: impl Fn(u64) -> String) -> String {
    // A fixed stride visits all names in an order that is no help to any cache.
    let text: String = (0..20_000).map(|i| line((i * 7919) % SERVICES) + "\n").collect();
    let path = dir.join(format!("{kind}.queries"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn start_fairlead(dir: &Path) -> (Running, SocketAddr) {
    let manifests = dir.join("manifests");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("services.yaml"), services()).unwrap();
    let address = agent::free_address();
    let mut command = agent::agent(&manifests);
    command.args(["--no-proxy", "--no-ingress", "--node-name", "bench"]);
    command.args(["--dns-listen", &address.to_string(), "--upstream", "127.0.0.1:9"]);
    let server = Running::start(&mut command, &dir.join("fairlead.log"));
    agent::wait("the agent's first answer", || answers(address));
    (server, address)
}

fn start_floor(dir: &Path) -> (Running, SocketAddr) {
    let address = agent::free_address();
    let program =
        Path::new(env!("CARGO_BIN_EXE_fairlead")).with_file_name("examples").join("floor");
    let mut command = agent::on_core(0, program.to_str().unwrap());
    command.arg(address.to_string());
    let server = Running::start(&mut command, &dir.join("floor.log"));
    agent::wait("the floor's first answer", || answers(address));
    (server, address)
}

/// Asks for the last name, so that a half-read zone does not count as ready.
fn answers(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name(SERVICES - 1).split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut reply = [0; 512];
    let asked = socket.send_to(&query, address).is_ok();
    asked && socket.recv(&mut reply).is_ok_and(|n| n > 12 && reply[3] & 15 == 0 && reply[7] > 0)
}

fn services() -> String {
    let mut text = String::new();
    for n in 0..NAMESPACES {
        writeln!(text, "apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{n}}}\n---").unwrap();
    }
    for i in 0..SERVICES {
        let (hi, lo) = (i / 250, i % 250 + 1);
        writeln!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: svc{i}, namespace: ns{}}}\nspec:\n  clusterIP: 10.96.{hi}.{lo}\n  \
             ports: [{{name: http, port: 80, protocol: TCP, targetPort: 8080}}]\n---",
            i % NAMESPACES
        )
        .unwrap();
    }
    text
}
