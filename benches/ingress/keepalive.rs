//! What a request costs over connections that are kept: by hosts known, logged or not, over TLS, by HTTP/2.

use std::path::Path;

use crate::{
    Figure, SCALES, in_turn,
    load::{Load, Wrk},
    origin,
    report::Row,
    subject::{ALL, Log, Proxy, nginx},
    table::{Table, Tls},
};

/// TLS and HTTP/2 are measured with so many hosts, and what a plain request is made of.
const HOSTS: usize = 1000;
const ROUND_S: u32 = 1;
pub const SMALL: Wrk = Wrk { tls: false, path: "/small", size: origin::SMALL, connections: 32 };
const KEEPALIVE: &[Figure] = &[
    ("cpu_us_keepalive", "us"),
    ("user_us_keepalive", "us"),
    ("system_us_keepalive", "us"),
    ("requests_per_s", "1/s"),
    ("core_busy_percent", "%"),
];
/// Every line is longer than so many bytes.
const LINE_MIN: f64 = 100.0;
/// Of all requests, in bytes.
const QUIET_MAX: u64 = 1000;

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let (_upstream, upstream) = nginx::files(dir, 1);
    for hosts in SCALES {
        let table = Table::new(hosts, Tls::Shared, &[upstream]);
        let load = Load::new(dir, &table);
        let start = |log| ALL.iter().map(|kind| kind.start(dir, &table, log)).collect::<Vec<_>>();
        let (silent, logging) = (start(Log::Off), start(Log::On));
        let scale = hosts as u64;
        let figures = if hosts == HOSTS { KEEPALIVE } else { &KEEPALIVE[..1] };
        in_turn((figures, scale), &silent, rounds, rows, |proxy| {
            load.wrk(proxy, SMALL, ROUND_S).all()
        });
        in_turn((&[("cpu_us_keepalive_logged", "us")], scale), &logging, rounds, rows, |proxy| {
            logged(proxy, &load)
        });
        if hosts == HOSTS {
            let tls = Wrk { tls: true, ..SMALL };
            in_turn((&[("cpu_us_tls_keepalive", "us")], scale), &silent, rounds, rows, |proxy| {
                load.wrk(proxy, tls, ROUND_S).all()
            });
            in_turn((&[("cpu_us_h2", "us")], scale), &silent, rounds, rows, |proxy| {
                load.h2load(proxy, ROUND_S).all()
            });
        }
        for proxy in &silent {
            assert!(proxy.logged() < QUIET_MAX, "{} logs though it is not to", proxy.name());
        }
    }
}

/// What was not written cost nothing.
fn logged(proxy: &Proxy, load: &Load) -> [f64; 5] {
    let before = proxy.logged();
    let cost = load.wrk(proxy, SMALL, ROUND_S);
    let written = (proxy.logged() - before) as f64;
    assert!(
        written >= LINE_MIN * cost.requests,
        "{}: logged {written} bytes of {} requests",
        proxy.name(),
        cost.requests
    );
    cost.all()
}
