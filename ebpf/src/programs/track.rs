//! The connection table: found, kept up to date, and written.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    programs::TcContext,
};
use fairlead_ebpf::{
    abi::{CONNECTION_RESET, Connection, Tuple},
    connection::{Entry, is_twin, twin},
    packet::{RST, opens_connection},
};

use super::{frame::Frame, maps};

/// Whether there is an entry for a packet: then it is in `found`. A packet keeps it alive, an ICMP
/// error only finds it.
///
/// Entries are written in place. The kernel may give one to another connection meanwhile; that one
/// then looks younger, or closed until its next packet.
#[inline(never)]
pub(crate) fn is_known(ctx: &TcContext, frame: &mut Frame) -> bool {
    let Some(entry) = maps::CONNECTIONS.get_ptr_mut(&frame.tuple) else { return false };
    // SAFETY: a map value, valid and aligned under RCU.
    let entry = unsafe { &mut *entry };
    if !frame.is_error() {
        let now = maps::now();
        if entry.seen != now {
            entry.seen = now;
        }
        let flags = frame.tcp_flags(ctx);
        // Nobody talks on after a reset: it was forged, or was no good. A new connection is another
        // matter.
        let is_going_on = flags & RST == 0 && !opens_connection(flags);
        if entry.state & CONNECTION_RESET != 0 && is_going_on {
            entry.state &= !CONNECTION_RESET;
        }
        let (own, twins) = entry.news(flags);
        if own != 0 {
            entry.state |= own;
            tell_twin(&frame.tuple, entry, twins);
        }
    }
    frame.found = *entry;
    true
}

/// Stores what must be no other connection's. `false`: it is.
#[inline(never)]
pub(crate) fn store_new((key, value): &Entry) -> bool {
    if store((key, value), BPF_NOEXIST.into()) {
        return true;
    }
    is_ours_or_free(key, value) && store((key, value), BPF_ANY.into())
}

#[inline(always)]
pub(crate) fn store((key, value): (&Tuple, &Connection), flags: u64) -> bool {
    maps::CONNECTIONS.insert(key, value, flags).is_ok()
}

#[inline(never)]
fn tell_twin(tuple: &Tuple, entry: &Connection, news: u16) {
    let key = twin(tuple, entry);
    let Some(other) = maps::CONNECTIONS.get_ptr_mut(key) else { return };
    // SAFETY: as in `is_known`.
    let other = unsafe { &mut *other };
    if is_twin(tuple, other) {
        other.state |= news;
    }
}

/// Whether what is stored already is the same connection's, or that of one that has ended.
#[inline(never)]
fn is_ours_or_free(key: &Tuple, wanted: &Connection) -> bool {
    // SAFETY: read under RCU; written by others, but field by field.
    let Some(found) = (unsafe { maps::CONNECTIONS.get(key) }) else { return true };
    if found.is_same_way(wanted) {
        return true;
    }
    if !found.is_free(key.protocol, wanted.seen) {
        return false;
    }
    let other_key = twin(key, found);
    // SAFETY: as above.
    let Some(other) = (unsafe { maps::CONNECTIONS.get(&other_key) }) else { return true };
    !is_twin(key, other) || other.is_free(key.protocol, wanted.seen)
}
