//! Whether a proxy does what it is to be measured at: its answers, and the fields that reach the upstream.

use std::io::{self, Read, Write};

use crate::{
    client::{self, Connection},
    origin::{BIG, LETTERS},
    subject::Proxy,
    table::{self, Table},
};

/// Where upstreams say which fields they were sent, a line each.
pub const PATH: &str = "/fields";
/// What ingress-nginx sets, but for what only its Lua has.
pub const FIELDS: [&str; 8] = [
    "X-Request-ID",
    "X-Real-IP",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-Scheme",
    "X-Scheme",
];
/// An identifier that is shorter would repeat.
const IDENTIFIER_MIN: usize = 16;

/// Every host that load will ask, and the last one, plain and over TLS.
pub fn answers(proxy: &Proxy, table: &Table) {
    let over_tls = client::Tls::trusting(&table.authority);
    let mut hosts = table.asked();
    hosts.push(table.hosts() - 1);
    for host in hosts {
        let (name, letter) = (table::host(host), LETTERS[table.leads(host)]);
        small(proxy, ("http", &name), proxy.connect(), letter);
        if !table.certificates.is_empty() {
            small(proxy, ("https", &name), over_tls.connect(proxy.place.tls, &name), letter);
        }
    }
}

/// The body of 1 MiB, plain and over TLS.
pub fn big(proxy: &Proxy, table: &Table) {
    let (over_tls, host) = (client::Tls::trusting(&table.authority), table::host(0));
    whole(proxy, &host, proxy.connect());
    whole(proxy, &host, over_tls.connect(proxy.place.tls, &host));
}

fn small<S: Read + Write>(
    proxy: &Proxy,
    (scheme, host): (&str, &str),
    connected: io::Result<Connection<S>>,
    letter: u8,
) {
    let subject = format!("{} at {scheme}://{host}", proxy.name());
    let mut connection = connected.unwrap_or_else(|error| panic!("{subject}: {error}"));
    let mut get = |path| {
        let reply = connection.send(&client::request(host, path));
        reply.unwrap_or_else(|error| panic!("{subject}{path}: {error}"))
    };
    let reply = get("/small");
    assert!(reply.is_good() && reply.letter == Some(letter), "{subject}: {reply:?}");
    let reply = get(PATH);
    assert_eq!(reply.status, 200, "{subject}{PATH}");
    let seen = String::from_utf8_lossy(connection.body());
    for name in FIELDS {
        let mut values = seen.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = values.next().unwrap_or_default();
        let is_right = match name {
            "X-Request-ID" => value.len() >= IDENTIFIER_MIN,
            "X-Real-IP" | "X-Forwarded-For" => value == "127.0.0.1",
            "X-Forwarded-Host" => value == host,
            "X-Forwarded-Port" => value.parse::<u16>().is_ok(),
            _ => value == scheme,
        };
        assert!(is_right, "{subject}: the upstream was sent {name}: {value:?}");
    }
}

fn whole<S: Read + Write>(proxy: &Proxy, host: &str, connected: io::Result<Connection<S>>) {
    let subject = proxy.name();
    let mut connection = connected.unwrap_or_else(|error| panic!("{subject}: {error}"));
    let reply = connection.send(&client::request(host, "/big"));
    let reply = reply.unwrap_or_else(|error| panic!("{subject}: {error}"));
    let body = connection.body();
    let is_whole = body.len() == BIG && body.iter().all(|byte| *byte == LETTERS[0]);
    assert!(reply.status == 200 && is_whole, "{subject}: {reply:?}, {} bytes", body.len());
}
