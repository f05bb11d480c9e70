//! How long answers take at a rate that everybody can keep.

use std::{path::Path, sync::atomic::AtomicBool, thread, time::Duration};

use crate::{
    in_turn,
    paced::{Ends, Pace, sleep},
    report::{Row, quantile},
    subject::{ALL, Log, Proxy, nginx},
    table::{Table, Tls},
};

const PACE: Pace = Pace { per_s: 8000, connections: 32 };
const ROUND: Duration = Duration::from_secs(3);

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let (_upstream, upstream) = nginx::files(dir, 1);
    let table = Table::new(1, Tls::Shared, &[upstream]);
    let proxies: Vec<Proxy> = ALL.iter().map(|kind| kind.start(dir, &table, Log::Off)).collect();
    let figures = &[("latency_us_p50", "us"), ("latency_us_p99", "us")];
    in_turn((figures, 1), &proxies, rounds, rows, |proxy| {
        let mut waits = waits(proxy, &table);
        [0.5, 0.99].map(|share| quantile(&mut waits, share))
    });
}

fn waits(proxy: &Proxy, table: &Table) -> Vec<f64> {
    let ended = AtomicBool::new(false);
    let asked = table.asked();
    let seen = thread::scope(|scope| {
        let load = scope.spawn(|| PACE.run(proxy.place.plain, &asked, &ended));
        let ends = Ends(&ended);
        sleep(ROUND);
        drop(ends);
        load.join().unwrap()
    });
    assert!(seen.failures.is_empty(), "{}: {:?}", proxy.name(), seen.failures.first());
    seen.waits
}
