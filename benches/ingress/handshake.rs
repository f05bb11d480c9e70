//! What a new connection costs: a full TLS 1.3 handshake, one request.

use std::path::Path;

use crate::{
    client::Tls as Client,
    in_turn,
    report::Row,
    subject::{ALL, Log, Proxy, nginx},
    table::{self, Table, Tls},
};

const HANDSHAKES: usize = 1500;

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let (_upstream, upstream) = nginx::files(dir, 1);
    let table = Table::new(1, Tls::Shared, &[upstream]);
    let proxies: Vec<Proxy> = ALL.iter().map(|kind| kind.start(dir, &table, Log::Off)).collect();
    let (client, host) = (Client::trusting(&table.authority), table::host(0));
    let handshakes = |proxy: &Proxy| {
        let before = proxy.cpu().total;
        for _ in 0..HANDSHAKES {
            let asked = client.connect(proxy.place.tls, &host).and_then(|mut c| c.get(&host));
            assert!(asked.unwrap().is_good(), "{}: not 200", proxy.name());
        }
        [(proxy.cpu().total - before) / HANDSHAKES as f64]
    };
    let figures = &[("cpu_us_tls_handshake", "us")];
    in_turn((figures, 1), &proxies, rounds, rows, handshakes);
}
