//! Memory of a proxy that knows so many hosts and has served.

use std::path::Path;

use crate::{
    SCALES,
    changes::SETTLING,
    keepalive::SMALL,
    load::Load,
    paced::sleep,
    report::Row,
    subject::{ALL, Log, nginx},
    table::{Table, Tls},
};

pub fn measure(dir: &Path, _rounds: usize, rows: &mut Vec<Row>) {
    let (_upstream, upstream) = nginx::files(dir, 1);
    for hosts in SCALES {
        let table = Table::new(hosts, Tls::Shared, &[upstream]);
        let load = Load::new(dir, &table);
        let proxies: Vec<_> = ALL.iter().map(|kind| kind.start(dir, &table, Log::Off)).collect();
        for proxy in &proxies {
            load.wrk(proxy, SMALL, 1);
        }
        sleep(SETTLING);
        for proxy in &proxies {
            let mib = proxy.memory_mib();
            println!("{hosts} hosts: {} {mib:.1} MiB", proxy.name());
            rows.push(Row::new("rss_mib", proxy.name(), hosts as u64, "MiB", &[mib]));
        }
    }
}
