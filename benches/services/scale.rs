//! Shapes that break proxies: one Service with very many endpoints, many NodePorts on a node with several addresses, very many
//! endpoints in all, and changes without a pause.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{client, objects, process, report::Row, subject, world::World};

/// The EndpointSlice controller's own limit.
const SLICE_ENDPOINTS: u64 = 100;
const ROUNDS: usize = 3;
const CHANGES_PER_S: u64 = 1000;
const CHANGE_SECONDS: u64 = 10;
const CHANGE_SCALE: u64 = 10_000;

pub fn measure(rows: &mut Vec<Row>) {
    programmed("one_service_10k_endpoints", 1, wide(1, 10_000), &[], rows);
    programmed("endpoints_250k", 2_500, wide(2_500, 100), &[], rows);
    let more = ["10.1.0.11/24", "10.1.0.12/24", "10.1.0.13/24"];
    programmed("node_ports_4_addresses", 5_000, node_ports(5_000), &more, rows);
    sustained(rows);
}

/// From the last object received to complete maps, and what it takes.
fn programmed(
    shape: &'static str,
    scale: u64,
    objects: Vec<Value>,
    addresses: &[&str],
    rows: &mut Vec<Row>,
) {
    let (programmed, cold, memory) = match shape {
        "one_service_10k_endpoints" => {
            ("10k_endpoints_programmed_ms", "10k_endpoints_cold_ms", "10k_endpoints_rss_mib")
        }
        "endpoints_250k" => {
            ("250k_endpoints_programmed_ms", "250k_endpoints_cold_ms", "250k_endpoints_rss_mib")
        }
        _ => ("node_ports_programmed_ms", "node_ports_cold_ms", "node_ports_rss_mib"),
    };
    let world = World::new();
    for address in addresses {
        world.add_address(address);
    }
    let api = subject::serve(&world, objects);
    let (mut took, mut started, mut rss) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        world.clear_pins();
        let agent = subject::Agent::start(&world, &api);
        took.push(agent.programmed_ms);
        started.push(agent.started_ms);
        rss.push(process::settled_rss_mib(agent.pid()));
    }
    println!("{shape}: programmed {took:.1?} ms");
    rows.push(Row::new(programmed, "fairlead", scale, "ms", &took));
    rows.push(Row::new(cold, "fairlead", scale, "ms", &started));
    rows.push(Row::new(memory, "fairlead", scale, "MiB", &rss));
}

/// Endpoints change a thousand times a second; how late the last of it is, and what each cost.
fn sustained(rows: &mut Vec<Row>) {
    let world = World::new();
    let api = subject::serve(&world, objects::services(CHANGE_SCALE));
    let agent = subject::Agent::start(&world, &api);
    let mut follower = subject::Follower::start(&world);
    let before = process::cpu_us(agent.pid());
    let total = CHANGES_PER_S * CHANGE_SECONDS;
    let started = Instant::now();
    for n in 0..total {
        let due = Duration::from_micros(n * 1_000_000 / CHANGES_PER_S);
        if let Some(left) = due.checked_sub(started.elapsed()) {
            #[expect(
                clippy::disallowed_methods,
                reason = "a rate is kept, and no runtime is blocked"
            )]
            std::thread::sleep(left);
        }
        let service = n % CHANGE_SCALE;
        if service != subject::Follower::SERVICE {
            let port = objects::PORT + 1 + u16::from((n / CHANGE_SCALE).is_multiple_of(2));
            api.put(objects::slice(service, [port, port]));
        }
    }
    let sent = started.elapsed();
    let behind = follower.change(&api, client::OTHER_PORT);
    let cpu = process::cpu_us(agent.pid()) - before;
    println!("{total} changes in {sent:.1?}: the one after them took {behind:.0} us");
    rows.push(Row::new("changes_1000_per_s_lag_us", "fairlead", CHANGE_SCALE, "us", &[behind]));
    let each = cpu / f64::from(u32::try_from(total).unwrap());
    rows.push(Row::new("change_cpu_us", "fairlead", CHANGE_SCALE, "us", &[each]));
    let rss = process::settled_rss_mib(agent.pid());
    rows.push(Row::new("changes_rss_mib", "fairlead", CHANGE_SCALE, "MiB", &[rss]));
}

fn wide(services: u64, endpoints: u64) -> Vec<Value> {
    let mut all = objects::services(services);
    all.retain(|object| object["kind"] != "EndpointSlice");
    for service in 0..services {
        for first in (0..endpoints).step_by(usize::try_from(SLICE_ENDPOINTS).unwrap()) {
            let of_slice = first..(first + SLICE_ENDPOINTS).min(endpoints);
            let endpoints = of_slice.map(|n| {
                let n = service * endpoints + n;
                let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
                json!({
                    "addresses": [format!("10.{}.{b}.{c}", 128 + a)],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": format!("node-{}", n % 1000), "zone": "a",
                    "targetRef": {"kind": "Pod", "name": format!("pod-{n}"), "namespace": "default"}
                })
            });
            let endpoints: Vec<Value> = endpoints.collect();
            all.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "name": format!("svc-{service}-{first}"), "namespace": "default",
                    "labels": {"kubernetes.io/service-name": format!("svc-{service}")}
                },
                "ports": [{"name": "http", "port": objects::PORT, "protocol": "TCP"}],
                "endpoints": endpoints
            }));
        }
    }
    all
}

/// More than the default range has: NodePorts are allotted by the API server, not here.
fn node_ports(count: u64) -> Vec<Value> {
    let mut all = objects::services(count);
    for (object, n) in all.iter_mut().filter(|object| object["kind"] == "Service").zip(0u64..) {
        object["spec"]["type"] = json!("NodePort");
        object["spec"]["ports"][0]["nodePort"] = json!(25_000 + n);
    }
    all
}
