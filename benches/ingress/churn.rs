//! A thousand changes at ten a second among ten thousand hosts, under load: what fails, and what breaks.

use std::{
    path::Path,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use crate::{
    ROUNDS, calls,
    changes::{followed, watched},
    objects,
    origin::{LETTERS, Origins},
    paced::{Ends, Pace, Seen, sleep_until},
    report::{Row, quantile},
    subject::{Kind, Log, Proxy},
    table::{Table, Tls},
    websockets,
};

const HOSTS: usize = 10_000;
const CHANGES_PER_S: u32 = 10;
const CHANGES: usize = 1000;
/// Every reload leaves a process of half a gigabyte behind for as long as its WebSockets live.
const CHANGES_RELOADED: usize = 200;
/// ingress-nginx applies changes at most 0.3 times a second (`--sync-rate-limit`).
const BETWEEN_SYNCS: Duration = Duration::from_millis(3333);
const PACE: Pace = Pace { per_s: 5000, connections: 32 };
const WEBSOCKETS: usize = 50;
const CALLS: usize = 50;

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let origins = Origins::start();
    for kind in [Kind::Fairlead, Kind::Nginx, Kind::Haproxy] {
        let mut table = Table::new(HOSTS, Tls::Off, &origins.addresses).with_calls();
        let proxy = kind.start(dir, &table, Log::Off);
        let hosts = (table.asked(), table.called().to_vec());
        let ((mut seen, sockets, calls), peak) = watched(&proxy, || {
            under_load(&proxy, &hosts, || match kind {
                Kind::Fairlead => change(&proxy, &table, CHANGES * rounds / ROUNDS),
                _ => reload(&proxy, &mut table, CHANGES_RELOADED * rounds / ROUNDS),
            })
        });
        let requests = seen.waits.len() + seen.failures.len();
        println!(
            "{}: first failures {:?}",
            kind.name(),
            seen.failures.iter().take(5).collect::<Vec<_>>()
        );
        for (figure, unit, value) in [
            ("change_requests", "", requests as f64),
            ("change_failed", "", seen.failures.len() as f64),
            ("change_websockets_broken", "", sockets as f64),
            ("change_grpc_calls_broken", "", calls as f64),
            ("change_latency_ms_p99", "ms", quantile(&mut seen.waits, 0.99) / 1000.0),
            ("change_peak_mib", "MiB", peak),
        ] {
            println!("{}: {figure} {value:.2} {unit}", kind.name());
            rows.push(Row::new(figure, kind.name(), HOSTS as u64, unit, &[value]));
        }
    }
}

/// Requests at a fixed rate, WebSockets and gRPC calls while `work` goes on; what was seen of them.
fn under_load(
    proxy: &Proxy,
    (asked, called): &(Vec<usize>, Vec<usize>),
    work: impl FnOnce(),
) -> (Seen, usize, usize) {
    let ended = AtomicBool::new(false);
    let address = proxy.place.plain;
    thread::scope(|scope| {
        let sockets = scope.spawn(|| websockets::broken(address, asked, WEBSOCKETS, &ended));
        let calls = scope.spawn(|| calls::broken(proxy.place.calls, called, CALLS, &ended));
        let load = scope.spawn(|| PACE.run(address, asked, &ended));
        let ends = Ends(&ended);
        work();
        drop(ends);
        (load.join().unwrap(), sockets.join().unwrap(), calls.join().unwrap())
    })
}

/// Every other change is one of endpoints; half of them are of hosts that are asked, a quarter of hosts that have gRPC.
/// Returns when the last are followed.
fn change(proxy: &Proxy, table: &Table, count: usize) {
    let asked = table.asked();
    let mut leads = vec![LETTERS[0]; asked.len()];
    let begun = Instant::now();
    // By fours: two of a host that is asked, one of its endpoints and one of its Ingress, and two of another.
    for n in 0..count.next_multiple_of(4) {
        sleep_until(begun + n as u32 * Duration::from_secs(1) / CHANGES_PER_S);
        let place = n / 4 % asked.len();
        let host = if n % 4 < 2 { asked[place] } else { other(n, &asked, table.called()) };
        // Once around it leads elsewhere.
        let upstream = n / 4 / asked.len() % 2;
        leads[place] = LETTERS[1 - upstream];
        let service = objects::service_of(host);
        proxy.api().put(match n % 2 {
            0 => objects::slice(&service, table.upstreams[1 - upstream]),
            _ => {
                let to = if upstream == 0 { objects::service_at(1) } else { service };
                objects::ingress(table, host, &to)
            }
        });
    }
    all_followed(proxy, &asked, &leads);
}

/// One that has gRPC, and one that nobody asks, in turn: what those that are asked lead to is looked at in the end.
fn other(n: usize, asked: &[usize], called: &[usize]) -> usize {
    if (n / 4).is_multiple_of(2) {
        return called[n / 8 % called.len()];
    }
    let host = n % HOSTS;
    if asked.contains(&host) { host + 1 } else { host }
}

/// The same changes, as often as a reload is done and allowed.
fn reload(proxy: &Proxy, table: &mut Table, count: usize) {
    let asked = table.asked();
    let begun = Instant::now();
    let (mut synced, mut done) = (begun, 0);
    while done < count {
        sleep_until(synced + BETWEEN_SYNCS);
        let due = (begun.elapsed().as_secs_f64() * f64::from(CHANGES_PER_S)) as usize;
        for n in done..due.min(count) {
            let host = if n % 4 < 2 { asked[n / 4 % asked.len()] } else { n % HOSTS };
            table.lead(host, 1 - table.leads(host));
        }
        done = due.min(count);
        synced = Instant::now();
        proxy.reload(table);
    }
    let leads: Vec<u8> = asked.iter().map(|host| LETTERS[table.leads(*host)]).collect();
    all_followed(proxy, &asked, &leads);
}

/// Changes that are not taken would harm nobody.
fn all_followed(proxy: &Proxy, asked: &[usize], leads: &[u8]) {
    for (host, letter) in asked.iter().zip(leads) {
        followed(proxy, *host, *letter, Instant::now());
    }
}
