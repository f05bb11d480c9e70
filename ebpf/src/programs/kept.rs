//! Whether a packet that may open a connection belongs to the one that is known.

use fairlead_ebpf::{
    abi::{BACKEND_LOCAL, Backend, Connection, EGRESS, Tuple, UDP},
    connection::rewritten,
    dialled,
    select::{self, Lead, Origin},
};

use super::{
    frame::Frame,
    maps, track,
    uplink::{beside, dialled, is_masqueraded},
};

/// Established TCP keeps its backend to the end, also one that left the set (it may be terminating), and whatever SYN
/// meets it; a new connection or a datagram goes only where the service goes.
///
/// A flow of datagrams of which some entries are gone is noted in the frame: nothing else would ever bring them back, as no
/// packet opens such a flow again.
#[inline(always)]
pub(super) fn is_kept(frame: &mut Frame, origin: Origin) -> bool {
    let Frame { tuple, found, is_first_in_tick, is_torn, .. } = frame;
    if found.is_closed() {
        return false;
    }
    let is_datagram = tuple.protocol == UDP;
    let is_bound = !found.is_of_service()
        || (!is_datagram && found.is_pinned())
        || is_current(tuple, found, origin);
    if !is_bound {
        return false;
    }
    if !is_datagram {
        return is_whole(tuple, found, origin);
    }
    // Every datagram comes here. A look keeps what it finds, too: of a flow without answers yet, the entries for
    // them are met by nothing else, and would give way first.
    if *is_first_in_tick == 0 {
        return true;
    }
    if found.is_reply() {
        // Of the node's own flow, which either side keeps alive: whoever goes on after its end is a client of the service
        // at that port.
        return !found.is_unchanged(tuple) || track::is_paired(tuple);
    }
    *is_torn = u32::from(!is_whole(tuple, found, origin));
    *is_torn == 0
}

/// Whether the service still leads to this connection's backend; of a flow of datagrams, whether the backend
/// still serves: what policies, hints and drains change is where new flows go (kube-proxy's
/// pkg/proxy/conntrack/cleanup.go).
#[inline(never)]
fn is_current(tuple: &Tuple, connection: &mut Connection, origin: Origin) -> bool {
    // Where it leads nowhere any more, that is counted as it is opened anew.
    let found = dialled::find(&maps::AT_DEVICE, &dialled(tuple), || false);
    let dialled::Found::Frontend(key, frontend) = found else { return false };
    if tuple.protocol == UDP {
        let own = (frontend.set_id, frontend.backends);
        if own.0 == connection.set_id && own.1 > 0 {
            return true;
        }
        let [_, _, a, b, c, d, e, f] = beside(&key).to_be_bytes();
        let all = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]));
        // Of one that stays by it, each packet would otherwise be looked for in the other first.
        if all.0 == connection.set_id && all.1 > 0 {
            return true;
        }
        return is_within(tuple, connection, own) || is_within(tuple, connection, all);
    }
    let Lead::Backends { set_id, count } = select::lead(&frontend, origin) else { return false };
    // A policy Local may lead to the head of the set alone: this node's own.
    let is_of_all = count == frontend.backends || connection.flags & BACKEND_LOCAL != 0;
    if set_id == connection.set() && !is_of_all {
        return is_moved(tuple, connection, (set_id, count));
    }
    is_within(tuple, connection, (set_id, count))
}

/// Whether the backend is in the set, which the connection may know already.
#[inline(always)]
fn is_within(tuple: &Tuple, connection: &mut Connection, (set_id, count): (u32, u16)) -> bool {
    count > 0 && (set_id == connection.set() || is_moved(tuple, connection, (set_id, count)))
}

/// Whether the backend is in the set, which it is known to be of from then on.
#[inline(never)]
fn is_moved(tuple: &Tuple, connection: &mut Connection, (set_id, count): (u32, u16)) -> bool {
    let backend = Backend {
        address: connection.address,
        port: connection.destination_port,
        flags: connection.flags & BACKEND_LOCAL,
    };
    if maps::find(set_id, count, &backend).is_none() {
        return false;
    }
    connection.belong(set_id);
    track::moved(tuple, connection);
    true
}

/// Whether a client that opens a connection again meets all its entries. They age in twos: one whose
/// end was seen at one hook only would lead its packets out with the client's address.
#[inline(never)]
fn is_whole(tuple: &Tuple, found: &Connection, origin: Origin) -> bool {
    if !track::is_paired(tuple) {
        return false;
    }
    if !is_masqueraded(found, found.address == tuple.source, origin) {
        return true;
    }
    track::is_paired(&Tuple { hook: EGRESS, ..rewritten(tuple, found) })
}
