//! What a connection costs that has asked once and waits.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    path::Path,
};

use crate::{
    ROUNDS,
    changes::SETTLING,
    client::Tls as Client,
    paced::sleep,
    report::Row,
    subject::{ALL, Kind, Log, Proxy, nginx},
    table::{self, Table, Tls},
};

const CONNECTIONS: usize = 5000;
/// Before the first look at memory: what is allocated once is no connection's.
const WARM_UP: usize = 50;
/// Of them all connections are open at a time: with more, 20,000 descriptors would not be enough.
const TOGETHER: usize = 3;

pub fn measure(dir: &Path, rounds: usize, rows: &mut Vec<Row>) {
    let (_upstream, upstream) = nginx::files(dir, 1);
    let table = Table::new(1, Tls::Shared, &[upstream]);
    let client = Client::trusting(&table.authority);
    let host = table::host(0);
    for (figure, over_tls) in [("idle_kib", false), ("idle_tls_kib", true)] {
        let open = |proxy: &Proxy, count| -> Vec<TcpStream> {
            let connect = |_| {
                let opened = if over_tls {
                    // What the client knows of a session is of no use any more, and much.
                    client.connect(proxy.place.tls, &host).and_then(|mut connection| {
                        let reply = connection.get(&host)?;
                        Ok((reply, connection.stream.into_parts().1))
                    })
                } else {
                    proxy.connect().and_then(|mut connection| {
                        let reply = connection.get(&host)?;
                        Ok((reply, connection.stream))
                    })
                };
                let (reply, socket) =
                    opened.unwrap_or_else(|error| panic!("{}: {error}", proxy.name()));
                assert!(reply.is_good() && !reply.is_last, "{}: {reply:?}", proxy.name());
                socket
            };
            (0..count).map(connect).collect()
        };
        for kinds in ALL.chunks(TOGETHER) {
            // All of them first: pages that one more process shares count less for the others.
            let start = |kind: &Kind| kind.start(dir, &table, Log::Off);
            let proxies: Vec<_> = kinds.iter().map(start).collect();
            proxies.iter().for_each(|proxy| drop(open(proxy, WARM_UP)));
            let held = proxies.into_iter().map(|proxy| {
                let before = proxy.memory_mib();
                let sockets = open(&proxy, CONNECTIONS * rounds / ROUNDS);
                (proxy, before, sockets)
            });
            let held: Vec<_> = held.collect();
            sleep(SETTLING);
            for (proxy, before, sockets) in held {
                let kib = (proxy.memory_mib() - before) * 1024.0 / sockets.len() as f64;
                assert!(sockets.iter().all(is_open), "{} ended connections", proxy.name());
                println!("{figure} {}: {kib:.2} KiB", proxy.name());
                rows.push(Row::new(figure, proxy.name(), 1, "KiB", &[kib]));
            }
        }
    }
}

fn is_open(mut socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => return false,
            // Session tickets come unasked.
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
