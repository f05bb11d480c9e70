//! What a body of 1 MiB costs, plain and over TLS.

use std::path::Path;

use crate::{
    check, in_turn,
    load::{Load, Wrk},
    origin::BIG,
    report::Row,
    subject::{Kind, Log, Proxy, nginx},
    table::{Table, Tls},
};

/// As set up by default, and as set up for bodies.
const KINDS: [Kind; 7] = [
    Kind::Fairlead,
    Kind::Nginx,
    Kind::NginxBuffers,
    Kind::Haproxy,
    Kind::HaproxySplice,
    Kind::Caddy,
    Kind::Pingora,
];
const ROUND_S: u32 = 1;

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let (_upstream, upstream) = nginx::files(dir, 1);
    let table = Table::new(1, Tls::Shared, &[upstream]);
    let load = Load::new(dir, &table);
    let proxies: Vec<Proxy> = KINDS.iter().map(|kind| kind.start(dir, &table, Log::Off)).collect();
    proxies.iter().for_each(|proxy| check::big(proxy, &table));
    for (figure, tls) in [("cpu_us_body_1mib", false), ("cpu_us_tls_body_1mib", true)] {
        let big = Wrk { tls, path: "/big", size: BIG, connections: 8 };
        in_turn((&[(figure, "us")], 1), &proxies, rounds, rows, |proxy| {
            load.wrk(proxy, big, ROUND_S).all()
        });
    }
}
