//! The one text form of what the maps hold: `fairlead plan`, `fairlead dump` and scenario tests.
//!
//! One line a frontend, sorted by address, port and protocol; ids never show. The same line comes
//! from a plan and from maps that hold it:
//!
//! ```text
//! tcp *:30080 (NodePort, IPv4) -> REJECT (no endpoints)
//! udp 10.96.0.10:53 -> 10.244.1.5:53 local, 10.244.2.7:53
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use fairlead_ebpf::{
    abi::{ANY_V4, ANY_V6, Address, BACKEND_LOCAL, Backend, BackendKey, FrontendKey, TCP, UDP},
    packet::{is_mapped, unmapped},
};
use fairlead_state::Snapshot;

use crate::{
    image::Image,
    plan::{NodeView, Planned, Plans},
};

/// What maps would hold for `snapshot` on `node`.
pub fn plan_text(snapshot: &Snapshot, node: &NodeView) -> String {
    plan_lines(snapshot, node, |_, _| String::new())
}

/// As [`plan_text`], each line ending in the service that is behind it and its port's name:
/// `  # default/dns:dns-tcp`. Maps know no names, so their text has none.
pub fn plan_text_with_names(snapshot: &Snapshot, node: &NodeView) -> String {
    plan_lines(snapshot, node, |planned, port| {
        let service = snapshot.services().get(&planned.key);
        let port = service.and_then(|service| service.ports.get(port));
        match port {
            Some(port) if !port.name.is_empty() => format!("  # {}:{}", planned.key, port.name),
            _ => format!("  # {}", planned.key),
        }
    })
}

/// What maps hold.
pub fn image_text(image: &Image) -> String {
    let mut text = String::new();
    for (key, value) in &image.frontends {
        let slots = (0..u32::from(value.backends)).map(|slot| {
            let backend = image.backends.get(&BackendKey { set_id: value.set_id, slot });
            backend.map_or_else(|| format!("slot {slot} MISSING"), self::backend)
        });
        text.push_str(&line(key, slots));
        text.push('\n');
    }
    text
}

/// A frontend: `tcp 10.96.0.10:53`, `udp *:30053 (NodePort, IPv6)`.
pub fn frontend(key: &FrontendKey) -> impl fmt::Display {
    let protocol = match key.protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        other => format!("protocol {other}"),
    };
    let port = u16::from_be_bytes(key.port);
    match key.address {
        ANY_V4 => format!("{protocol} *:{port} (NodePort, IPv4)"),
        ANY_V6 => format!("{protocol} *:{port} (NodePort, IPv6)"),
        address => format!("{protocol} {}", SocketAddr::new(ip(&address), port)),
    }
}

fn plan_lines(
    snapshot: &Snapshot,
    node: &NodeView,
    suffix: impl Fn(&Planned, usize) -> String,
) -> String {
    let plans = Plans::of(snapshot, node);
    let mut frontends: Vec<_> = plans.frontends().collect();
    frontends.sort_unstable_by_key(|(key, ..)| *key);
    let mut text = String::new();
    for (key, planned, port, set) in frontends {
        let backends = set.into_iter().flat_map(|set| set.iter());
        text.push_str(&line(&key, backends.map(backend)));
        text.push_str(&suffix(planned, port));
        text.push('\n');
    }
    text
}

fn line(key: &FrontendKey, backends: impl Iterator<Item = String>) -> String {
    let backends: Vec<String> = backends.collect();
    if backends.is_empty() {
        return format!("{} -> REJECT (no endpoints)", frontend(key));
    }
    format!("{} -> {}", frontend(key), backends.join(", "))
}

fn backend(backend: &Backend) -> String {
    let at = SocketAddr::new(ip(&backend.address), u16::from_be_bytes(backend.port));
    let is_local = backend.flags & BACKEND_LOCAL != 0;
    format!("{at}{}", if is_local { " local" } else { "" })
}

fn ip(address: &Address) -> IpAddr {
    if is_mapped(address) { unmapped(address).into() } else { Ipv6Addr::from(*address).into() }
}

#[cfg(test)]
mod tests;
