//! Flows of datagrams that the node has begun, or masquerades for its pods, from a port that is a service's, too.
//!
//! Nothing in an answer tells it from a client's first datagram to that service. netfilter asks connection tracking before
//! it translates (nf_nat_inet_fn); here two entries by which nothing is done say what was begun from this side.

use fairlead_ebpf::{
    abi::{CONNECTION_REPLY, Connection, FrontendKey, Tuple},
    connection::twin,
};

use super::{frame::Frame, maps, track};

/// Takes up the flow of a packet on its way out, as it is after source translation. `is_known`: it has met an entry.
#[inline(always)]
pub(super) fn remember(frame: &Frame, is_known: bool) {
    if frame.is_datagram() && (!is_known || is_torn(frame)) && is_service_port(&frame.tuple) {
        store(&frame.tuple);
    }
}

/// Whether it is such a flow's, and its entry for answers has given way, which is looked for once in a tick. What is whole
/// stays: made anew it would be assured no more.
#[inline(always)]
fn is_torn(Frame { tuple, found, is_first_in_tick, .. }: &Frame) -> bool {
    *is_first_in_tick != 0
        && !found.is_reply()
        && found.is_unchanged(tuple)
        && !track::is_paired(tuple)
}

/// Whether answers would be led to a service: its address and port are one of the node's own.
#[inline(never)]
fn is_service_port(tuple: &Tuple) -> bool {
    let Tuple { source, source_port, protocol, .. } = *tuple;
    let key = FrontendKey { address: source, port: source_port, protocol, zero: 0 };
    // Nearly all that is asked: few datagrams come from such a port.
    if maps::FRONTENDS.get_ptr(key).is_some() {
        return maps::is_own(&source);
    }
    maps::settings().is_some_and(|settings| settings.is_node_port(source_port))
        && maps::has_node_ports(&source)
        && maps::FRONTENDS.get_ptr(key.as_node_port()).is_some()
}

/// Where the other side is that service's client already, it stays so: on its way out through a second device an
/// answer to it looks the same.
#[inline(never)]
fn store(there: &Tuple) {
    let now = maps::now();
    let value = Connection::unchanged(there, 0, now);
    let back = twin(there, &value);
    let is_own = |found: &mut Connection| found.is_reply() && found.is_unchanged(&back);
    if track::entry(&back).is_none_or(is_own) {
        // Without them the answer goes the service's way, as before.
        track::store(&back, &Connection::unchanged(&back, CONNECTION_REPLY, now));
        track::store(there, &value);
    }
}
