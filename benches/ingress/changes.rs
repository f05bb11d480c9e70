//! One change among many hosts: when the first request follows it, and what it takes in memory.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    ROUNDS, objects,
    origin::{LETTERS, Origins},
    paced::{Ends, sleep},
    report::{Row, quantile},
    subject::{Kind, Log, Proxy},
    table::{self, Table, Tls},
};

const SCALES: [usize; 2] = [1000, 10_000];
/// With so many hosts memory is of interest.
const HOSTS: usize = 10_000;
const KINDS: [Kind; 3] = [Kind::Fairlead, Kind::Nginx, Kind::Haproxy];
/// Of each kind, to the agent.
const CHANGES: usize = 150;
/// A reload may take seconds: as many as begin within this, but three.
const RELOADING: Duration = Duration::from_secs(4);
const RELOADS_MIN: usize = 3;
const BETWEEN_CHANGES: Duration = Duration::from_millis(20);
/// Asking without a pause would take the processor from what is measured.
const BETWEEN_REQUESTS: Duration = Duration::from_micros(200);
/// The agent gives memory back five seconds after a change.
pub const SETTLING: Duration = Duration::from_secs(7);
/// A look takes milliseconds of the core that asks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// No common divisor with the numbers of hosts: each is changed once.
const STRIDE: usize = 7919;

/// Names of figures.
struct Figures {
    /// Median and 99th percentile of waits.
    ingress: [&'static str; 2],
    endpoints: [&'static str; 2],
    /// Medians.
    test: &'static str,
    reload: &'static str,
    /// Before, during and after; the second over the first.
    memory: [&'static str; 4],
}

const PLAIN: Figures = Figures {
    ingress: ["route_change_ms_p50", "route_change_ms_p99"],
    endpoints: ["endpoints_ms_p50", "endpoints_ms_p99"],
    test: "config_test_ms",
    reload: "reload_ms",
    memory: ["memory_before_mib", "memory_during_mib", "memory_after_mib", "memory_growth"],
};
const WITH_TLS: Figures = Figures {
    ingress: ["route_change_tls_ms_p50", "route_change_tls_ms_p99"],
    endpoints: ["endpoints_tls_ms_p50", "endpoints_tls_ms_p99"],
    test: "config_test_tls_ms",
    reload: "reload_tls_ms",
    memory: [
        "memory_tls_before_mib",
        "memory_tls_during_mib",
        "memory_tls_after_mib",
        "memory_tls_growth",
    ],
};

/// Milliseconds, by change.
#[derive(Default)]
struct Waits {
    ingress: Vec<f64>,
    endpoints: Vec<f64>,
    /// Parts of the first.
    test: Vec<f64>,
    reload: Vec<f64>,
}

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let origins = Origins::start();
    let count = (CHANGES * rounds / ROUNDS).max(1);
    for (tls, figures) in [(Tls::Off, &PLAIN), (Tls::Each, &WITH_TLS)] {
        for hosts in SCALES {
            let mut table = Table::new(hosts, tls, &origins.addresses);
            let proxies = KINDS.map(|kind| {
                let begun = Instant::now();
                let proxy = kind.start(dir, &table, Log::Off);
                println!("{}: {hosts} hosts after {:.1?}", proxy.name(), begun.elapsed());
                proxy
            });
            let is_settled = hosts == HOSTS;
            let settled = || {
                sleep(if is_settled { SETTLING } else { Duration::ZERO });
                proxies.each_ref().map(Proxy::memory_mib)
            };
            let before = settled();
            let seen = proxies.each_ref().map(|proxy| {
                let seen = watched(proxy, || waits(proxy, &mut table, count));
                // The next one begins with what it knows.
                (0..hosts).for_each(|host| table.lead(host, 0));
                seen
            });
            let after = settled();
            for (n, (waits, during)) in seen.iter().enumerate() {
                let memory = is_settled.then_some([before[n], *during, after[n]]);
                tell(&proxies[n], (hosts, figures), waits, memory, rows);
            }
        }
    }
}

fn tell(
    proxy: &Proxy,
    (hosts, figures): (usize, &Figures),
    waits: &Waits,
    memory: Option<[f64; 3]>,
    rows: &mut Vec<Row>,
) {
    let mut row = |figure, unit, value| {
        println!("{}: {figure} {hosts} {value:.2} {unit}", proxy.name());
        rows.push(Row::new(figure, proxy.name(), hosts as u64, unit, &[value]));
    };
    for (figure, samples, share) in [
        (figures.ingress[0], &waits.ingress, 0.5),
        (figures.ingress[1], &waits.ingress, 0.99),
        (figures.endpoints[0], &waits.endpoints, 0.5),
        (figures.endpoints[1], &waits.endpoints, 0.99),
        (figures.test, &waits.test, 0.5),
        (figures.reload, &waits.reload, 0.5),
    ] {
        if !samples.is_empty() {
            row(figure, "ms", quantile(&mut samples.clone(), share));
        }
    }
    if let Some([before, during, after]) = memory {
        let values = [("MiB", before), ("MiB", during), ("MiB", after), ("times", during / before)];
        for (figure, (unit, value)) in figures.memory.into_iter().zip(values) {
            row(figure, unit, value);
        }
    }
}

/// From each change of an Ingress and of endpoints to the first answer that follows it. ingress-nginx takes endpoints without
/// a reload, by Lua that Debian's nginx does not have: only Ingresses are changed there.
fn waits(proxy: &Proxy, table: &mut Table, count: usize) -> Waits {
    let total = table.hosts();
    let hosts = (0..).map(|n: usize| n * STRIDE % total);
    let mut waits = Waits::default();
    if proxy.kind == Kind::Fairlead {
        let changed = |change: fn(&Table, usize) -> Value, host| {
            let begun = Instant::now();
            proxy.api().put(change(table, host));
            let wait = followed(proxy, host, LETTERS[1], begun);
            sleep(BETWEEN_CHANGES);
            wait
        };
        let ingress = |table: &Table, host| objects::ingress(table, host, &objects::service_at(1));
        let endpoints =
            |table: &Table, host| objects::slice(&objects::service_of(host), table.upstreams[1]);
        waits.ingress.extend(hosts.clone().take(count).map(|host| changed(ingress, host)));
        waits.endpoints.extend(hosts.skip(count).take(count).map(|host| changed(endpoints, host)));
        return waits;
    }
    let started = Instant::now();
    for host in hosts.take(count.max(RELOADS_MIN)) {
        if waits.ingress.len() >= RELOADS_MIN && started.elapsed() > RELOADING {
            break;
        }
        table.lead(host, 1);
        let begun = Instant::now();
        let reload = proxy.reload(table);
        let whole = followed(proxy, host, LETTERS[1], begun);
        waits.ingress.push(whole);
        waits.test.push(reload.tested.as_secs_f64() * 1000.0);
        waits.reload.push(whole - (reload.told - begun).as_secs_f64() * 1000.0);
    }
    waits
}

/// Asks until this upstream answers; milliseconds since it began.
pub fn followed(proxy: &Proxy, host: usize, letter: u8, begun: Instant) -> f64 {
    let name = table::host(host);
    let mut kept = None;
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}: no change came", proxy.name());
        // A process that is replaced may end a connection at any time.
        let mut asked = || {
            let mut connection = kept.take().map_or_else(|| proxy.connect(), Ok)?;
            let reply = connection.get(&name)?;
            kept = (!reply.is_last).then_some(connection);
            Ok::<_, std::io::Error>(reply.letter)
        };
        if asked().is_ok_and(|answered| answered == Some(letter)) {
            return begun.elapsed().as_secs_f64() * 1000.0;
        }
        sleep(BETWEEN_REQUESTS);
    }
}

/// What `work` gives, and the most memory the proxy had meanwhile.
pub fn watched<T>(proxy: &Proxy, work: impl FnOnce() -> T) -> (T, f64) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut most = 0.0_f64;
            while !ended.load(Relaxed) {
                most = most.max(proxy.memory_mib());
                sleep(BETWEEN_LOOKS);
            }
            most
        });
        let ends = Ends(&ended);
        let given = work();
        drop(ends);
        (given, looking.join().unwrap())
    })
}
