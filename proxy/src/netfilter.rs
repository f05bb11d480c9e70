//! Connections that netfilter translates.
//!
//! Those that kube-proxy's rules have led to a backend go on from a port of the node's, which may be any
//! (`masquerade fully-random`). Another connection to that backend must not get the same port here: the
//! backend could not tell the two apart, and replies to the one would go to the other's client.

mod conntrack;

use std::io;

use fairlead_ebpf::{
    abi::{CONNECTION_ANSWERED, CONNECTION_ASSURED, CONNECTION_REPLY, Connection, Tuple},
    connection::{Entry, twin},
};

use self::conntrack::Held;
use crate::{connections, hash::FastMap, object::Tables, snat_ports};

/// They get one place in so many of the connection table, which is for this proxy's own.
const SHARE: u32 = 4;
const ENTRIES_EACH: u32 = 2;

/// Enters those that lead to backends of Services in the connection table, as what they are: their packets
/// pass as they come, and keep their ports taken until they have ended.
///
/// To be called before the programs run: what they handle netfilter does not translate. What it begins in
/// the moment between is not known of.
pub(crate) fn spare(tables: &Tables) -> io::Result<()> {
    let settings = tables.settings.read()?;
    let ports = settings.snat_port_first..=settings.snat_port_last;
    let local = snat_ports::local();
    // The range of today, and those that others may follow it as NodePorts come and go.
    let mut held = conntrack::translated(|port| {
        ports.contains(&port) || snat_ports::may_be_used(&local, port)
    })?;
    // A look at every backend is for those who come from another proxy.
    if held.is_empty() {
        return Ok(());
    }
    let mut servers: FastMap<_, bool> = held.iter().map(|held| (held.server(), false)).collect();
    tables.backends.each(|_, backend| {
        if let Some(is_backend) = servers.get_mut(&(backend.address, backend.port)) {
            *is_backend = true;
        }
    })?;
    held.retain(|held| servers.get(&held.server()) == Some(&true));
    let max = tables.sizes.connections / SHARE / ENTRIES_EACH;
    let left_out = held.len().saturating_sub(max as usize);
    held.truncate(max as usize);
    let now = connections::now();
    for (key, value) in held.iter().flat_map(|held| entries(held, now)) {
        // This proxy's own, of an earlier start, stay.
        if tables.openings.get(&key)?.is_none() {
            tables.connections.add(&key, &value)?;
        }
    }
    if !held.is_empty() {
        let connections = held.len();
        tracing::info!(connections, left_out, "netfilter's connections keep their ports");
    }
    Ok(())
}

/// For both directions; over when netfilter would say so.
fn entries(Held { reply, left_ticks }: &Held, now: u32) -> [Entry; 2] {
    let of = |key: Tuple, state: u16| {
        let state = state | CONNECTION_ANSWERED | CONNECTION_ASSURED;
        let value = Connection::unchanged(&key, state, now);
        let silent_ticks = value.limit(key.protocol).saturating_sub(*left_ticks);
        (key, Connection { seen: now.wrapping_sub(silent_ticks), ..value })
    };
    let back = of(*reply, CONNECTION_REPLY);
    let there = of(twin(&back.0, &back.1), 0);
    [there, back]
}

#[cfg(test)]
mod tests {
    use fairlead_ebpf::{
        abi::{EGRESS, INGRESS, TCP, UDP},
        connection::{is_twin, rewritten},
        packet::mapped,
    };

    use super::*;

    #[test]
    fn what_netfilter_translates_passes_as_it_is_and_is_over_when_netfilter_says_so() {
        let now = 1_000_000;
        for (protocol, left_ticks, over_after) in
            [(TCP, 86_400, 86_400), (TCP, 432_000, 86_400), (TCP, 60, 60), (UDP, 30, 30)]
        {
            let reply = Tuple {
                source: mapped([10, 244, 1, 5]),
                destination: mapped([192, 168, 0, 2]),
                source_port: 8080u16.to_be_bytes(),
                destination_port: 5000u16.to_be_bytes(),
                protocol,
                hook: INGRESS,
                zero: [0; 2],
            };
            let [there, back] = entries(&Held { reply, left_ticks }, now);
            assert_eq!(back.0, reply);
            assert_eq!(there.0.hook, EGRESS);
            assert_eq!((there.0.source, there.0.source_port), (reply.destination, [0x13, 0x88]));
            assert_eq!((there.0.destination, there.0.destination_port), (reply.source, [31, 144]));
            for ((key, value), (_, other)) in [(&there, &back), (&back, &there)] {
                assert_eq!(rewritten(key, value), *key);
                assert!(is_twin(key, other));
                assert!(!value.is_over(protocol, now + over_after - 1), "{left_ticks}");
                assert!(value.is_over(protocol, now + over_after), "{left_ticks}");
            }
        }
    }
}
