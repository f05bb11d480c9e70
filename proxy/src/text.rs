//! The one text form of what the maps hold: `fairlead plan`, `fairlead dump` and scenario tests.
//!
//! One line a frontend, sorted by address, port and protocol; ids never show. The same line comes
//! from a plan and from maps that hold it:
//!
//! ```text
//! tcp *:30080 (NodePort, IPv4) -> REJECT (no endpoints)
//! other ports of 10.96.0.10 -> REJECT
//! udp 10.96.0.10:53 -> 10.244.1.5:53 local, 10.244.2.7:53
//! flows of udp 10.96.0.10:53 -> 10.244.1.5:53 local, 10.244.2.7:53, 10.244.3.9:53
//! ```

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use fairlead_ebpf::{
    abi::{
        ANY_V4, ANY_V6, Address, BACKEND_LOCAL, Backend, BackendKey, FIRST_BACKENDS_MAX,
        FRONTEND_DROPS, FRONTEND_FOREIGN, FRONTEND_LOCAL, FRONTEND_SOURCE_RANGES, FrontendEntry,
        FrontendKey, MaglevKey, SCTP, SourceRangeKey, TCP, TableSize, UDP,
    },
    packet::{is_mapped, unmapped},
};
use fairlead_state::Snapshot;
use ipnetwork::IpNetwork;

use crate::{
    hash::FastMap,
    image::Image,
    maglev,
    plan::{BackendSet, Lead, NodeView, Planned, Plans},
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
    let mut ranges: FastMap<u32, Vec<IpNetwork>> = FastMap::default();
    for key in &image.source_ranges {
        ranges.entry(key.counter_id).or_default().extend(range(key));
    }
    let mut text = String::new();
    for (key, value) in &image.frontends {
        let slots = |set_id: u32, count: u16| {
            let slots = (0..u32::from(count)).map(|slot| {
                let backend = image.backends.get(&BackendKey { set_id, slot });
                backend.map_or_else(|| format!("slot {slot} MISSING"), self::backend)
            });
            slots.collect::<Vec<String>>()
        };
        let sets = [(value.set_id, value.backends), (value.local_set_id, value.local_backends)];
        let mut sets = sets.into_iter().filter(|(_, count)| *count > 0);
        let is_limited = value.flags & FRONTEND_SOURCE_RANGES != 0;
        let ranges = ranges.get(&value.counter_id).filter(|_| is_limited);
        let line = Line {
            backends: slots(value.set_id, value.backends),
            local: slots(value.local_set_id, value.local_backends),
            affinity_seconds: value.affinity_seconds,
            flags: value.flags,
            ranges: ranges.cloned().unwrap_or_default(),
            is_table_whole: TableSize::of(value.flags)
                .is_none_or(|size| sets.all(|set| is_table_whole(image, set, size))),
            is_first_same: is_first_same(image, key, value),
        };
        text.push_str(&line.of(key));
        text.push('\n');
    }
    text
}

/// A frontend: `tcp 10.96.0.10:53`, `udp *:30053 (NodePort, IPv6)`, `flows of udp 10.96.0.10:53`.
pub fn frontend(key: &FrontendKey) -> impl fmt::Display {
    match key.is_serving_of() {
        Some(of) => format!("flows of {}", dialled(&of)),
        None => dialled(key),
    }
}

fn dialled(key: &FrontendKey) -> String {
    if key.is_other_ports() {
        return format!("other ports of {}", ip(&key.address));
    }
    let protocol = match key.protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        SCTP => "sctp".to_owned(),
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
    let mut leads: Vec<_> = plans.leads().collect();
    leads.sort_unstable_by_key(|(_, lead)| lead.frontend.key);
    let mut text = String::new();
    for (planned, Lead { frontend, set, local, affinity_seconds }) in leads {
        let words = |set: Option<&BackendSet>, count: usize| {
            set.into_iter().flat_map(|set| set.iter()).take(count).map(backend).collect()
        };
        let line = Line {
            backends: words(set, usize::MAX),
            local: words(local, frontend.local_backends.into()),
            affinity_seconds,
            flags: frontend.flags,
            ranges: planned.plan.extras.source_ranges.clone(),
            is_table_whole: true,
            is_first_same: true,
        };
        text.push_str(&line.of(&frontend.key));
        text.push_str(&suffix(planned, frontend.port.into()));
        text.push('\n');
    }
    text
}

/// Where a frontend leads, in words.
struct Line {
    backends: Vec<String>,
    /// For clients from outside, where that is another question.
    local: Vec<String>,
    affinity_seconds: u32,
    flags: u16,
    /// Of both families.
    ranges: Vec<IpNetwork>,
    /// If there is a table.
    is_table_whole: bool,
    /// The first backends beside the frontend are its set's.
    is_first_same: bool,
}

impl Line {
    fn of(mut self, key: &FrontendKey) -> String {
        let to = match (self.backends.as_slice(), self.flags & FRONTEND_DROPS != 0) {
            _ if self.flags & FRONTEND_FOREIGN != 0 => "left to another proxy".to_owned(),
            _ if key.is_other_ports() => "REJECT".to_owned(),
            ([], true) => "DROP (no local endpoints)".to_owned(),
            ([], false) => "REJECT (no endpoints)".to_owned(),
            (backends, _) => backends.join(", "),
        };
        let mut line = format!("{} -> {to}", frontend(key));
        if self.flags & FRONTEND_LOCAL != 0 && !self.backends.is_empty() {
            let local = self.local.join(", ");
            let local = if local.is_empty() { "DROP (no local endpoints)" } else { &local };
            line.push_str(&format!("; from outside -> {local}"));
        }
        if let Some(size) = TableSize::of(self.flags).filter(|_| !self.backends.is_empty()) {
            let state = if self.is_table_whole { "" } else { " BROKEN" };
            line.push_str(&format!("; maglev {}{state}", size.places()));
        }
        if !self.is_first_same {
            line.push_str("; first backends BROKEN");
        }
        if self.affinity_seconds > 0 && !key.is_other_ports() {
            line.push_str(&format!("; affinity {} s", self.affinity_seconds));
        }
        if self.flags & FRONTEND_SOURCE_RANGES != 0 {
            self.ranges.retain(|range| range.is_ipv4() == is_mapped(&key.address));
            self.ranges.sort_unstable();
            self.ranges.dedup();
            let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
            line.push_str(&format!("; only for {}", ranges.join(", ")));
        }
        line
    }
}

/// Whether a set has the table it must have.
fn is_table_whole(image: &Image, (set_id, count): (u32, u16), size: TableSize) -> bool {
    let slots = (0..u32::from(count)).map(|slot| BackendKey { set_id, slot });
    let set: Vec<Backend> = slots.filter_map(|key| image.backends.get(&key).copied()).collect();
    let [first, last] = [0, u32::MAX].map(|part| MaglevKey { set_id, part });
    let found = image.maglev.range(first..=last).map(|(_, part)| *part);
    found.eq(maglev::parts(&set, size))
}

/// Whether the copies beside a frontend are of the set it leads to: sockets are given the copies.
fn is_first_same(image: &Image, key: &FrontendKey, entry: &FrontendEntry) -> bool {
    let set_id = entry.set_id;
    (0..u32::from(entry.backends)).take(FIRST_BACKENDS_MAX).all(|slot| {
        let held = image.backends.get(&BackendKey { set_id, slot });
        entry.first.get(key, slot).is_none_or(|copy| held == Some(&copy))
    })
}

fn range(key: &SourceRangeKey) -> Option<IpNetwork> {
    let bits = key.prefix_len.checked_sub(32)?;
    let is_ipv4 = is_mapped(&key.address) && bits >= 96;
    let prefix = if is_ipv4 { bits.checked_sub(96)? } else { bits };
    IpNetwork::new(ip(&key.address), u8::try_from(prefix).ok()?).ok()
}

fn backend(backend: &Backend) -> String {
    let at = SocketAddr::new(ip(&backend.address), u16::from_be_bytes(backend.port));
    let is_local = backend.flags & BACKEND_LOCAL != 0;
    format!("{at}{}", if is_local { " local" } else { "" })
}

pub(crate) fn ip(address: &Address) -> IpAddr {
    if is_mapped(address) { unmapped(address).into() } else { Ipv6Addr::from(*address).into() }
}

#[cfg(test)]
mod tests;
