//! The connection table: found, kept up to date, and written.
//!
//! It is two maps. What a packet opens stands in `openings`, where a flood of opening packets pushes
//! out nothing but other openings; it moves to `connections` when the client has shown that it has had
//! an answer (netfilter's ASSURED, see `proof`), and back when it is closed: many short connections push out none
//! that is silent for a while.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    programs::TcContext,
};
use fairlead_ebpf::{
    abi::{Connection, EGRESS, SCTP, TCP, Tuple},
    connection::{Entry, Flow, News, Trust, is_twin, twin},
    packet::{RST, Segment, opens_connection},
};

use super::{frame::Frame, maps, proof};

/// Whether there is an entry for a packet: then it is in `found`. A packet keeps it alive, an ICMP
/// error only finds it.
///
/// Entries are written in place. The kernel may give one to another connection meanwhile; that one
/// then looks younger, or closed until its next packet.
#[inline(never)]
pub(crate) fn is_known(ctx: &TcContext, frame: &mut Frame) -> bool {
    let Some(entry) = entry(&frame.tuple) else { return false };
    if frame.is_error() {
        frame.found = *entry;
        return true;
    }
    hear(ctx, frame, entry);
    note(frame, entry);
    true
}

/// What the packet tells. It is left in the frame, which is in a map: of what is written there the verifier remembers nothing,
/// so that each way through this does not make another of all that follows.
#[inline(never)]
fn hear(ctx: &TcContext, frame: &mut Frame, entry: &mut Connection) {
    let segment = frame.read_segment(ctx);
    frame.segment = segment;
    frame.was_settled = u32::from(entry.is_settled());
    let is_proof = !entry.is_assured() && proof::is_given(ctx, frame, entry);
    frame.news = entry.news(segment.flags, is_proof);
    let protocol = frame.tuple.protocol;
    let is_opening = match protocol {
        TCP => opens_connection(segment.flags),
        SCTP => matches!(frame.is_opening(ctx), Ok(true)),
        _ => false,
    };
    let more = if is_opening {
        if !entry.is_settled() || entry.is_reply() {
            return;
        }
        entry.ask(protocol, segment.sequence, entry.is_silent(maps::now()))
    } else if segment.flags & RST != 0 {
        trust(&frame.tuple, entry, &segment).news()
    } else if entry.is_in_question() {
        entry.going_on()
    } else {
        return;
    };
    frame.news.add(more);
}

/// Writes what was told into the entry and its twin.
#[inline(never)]
fn note(frame: &mut Frame, entry: &mut Connection) {
    let now = maps::now();
    frame.is_first_in_tick = u32::from(entry.seen != now);
    if entry.seen != now {
        entry.seen = now;
    }
    // Not atomic: two directions that note at once, on two CPUs, may lose a note. ASSURED is noted
    // again; without its end a connection only keeps its ports until it is over by silence.
    let news = frame.news;
    if news != News::NONE {
        entry.state = entry.state & !news.own_gone | news.own;
    }
    entry.follow(&frame.segment);
    // From here on the entry may be another connection's: what is written makes room.
    frame.found = *entry;
    if news != News::NONE {
        tell_twin(&frame.tuple, &frame.found, news.twins, news.twins_gone);
    }
    if u32::from(frame.found.is_settled()) != frame.was_settled {
        place(&frame.tuple, &frame.found);
    }
}

/// Whether a reset that has met this entry may be believed. One of a connection that begins is, as its refusal.
#[inline(never)]
fn trust(tuple: &Tuple, entry: &Connection, reset: &Segment) -> Trust {
    if !entry.is_assured() {
        return Trust::Doubtful;
    }
    match self::entry(&twin(tuple, entry)) {
        Some(other) if is_twin(tuple, other) => other.trust(reset),
        _ => Trust::Doubtful,
    }
}

/// Stores what must be no other connection's. `false`: it is.
#[inline(never)]
pub(crate) fn store_new((key, value): &Entry) -> bool {
    let is_taken = maps::CONNECTIONS.get_ptr(key).is_some()
        || maps::OPENINGS.insert(key, value, BPF_NOEXIST.into()).is_err();
    !is_taken || (is_ours_or_free(key, value) && store(key, value))
}

/// Whether there are entries for both directions.
#[inline(never)]
pub(crate) fn is_paired(key: &Tuple) -> bool {
    let Some(found) = entry(key) else { return false };
    entry(&twin(key, found)).is_some_and(|other| is_twin(key, other))
}

/// Whether replies of this flow, which goes where it was dialled, would be taken for those of another
/// connection that goes on; one that has ended makes room.
#[inline(never)]
pub(crate) fn is_contested(flow: &Flow<'_>) -> bool {
    let (key, value) = flow.reply_out();
    if entry(&key).is_none() {
        return false;
    }
    if !is_ours_or_free(&key, &value) {
        return true;
    }
    forget(&key);
    // Masqueraded, it went out from the same port.
    forget(&Tuple { hook: EGRESS, ..*flow.dialled });
    false
}

/// Nothing is done any more to packets that leave with this tuple.
#[inline(never)]
pub(crate) fn forget(key: &Tuple) {
    // It is in one of the two, or was never there.
    let _ = maps::CONNECTIONS.remove(key);
    let _ = maps::OPENINGS.remove(key);
}

/// Stores an opening in place of whatever there was.
#[inline(never)]
pub(crate) fn store(key: &Tuple, value: &Connection) -> bool {
    // That it was not there is no error.
    let _ = maps::CONNECTIONS.remove(key);
    maps::OPENINGS.insert(key, value, BPF_ANY.into()).is_ok()
}

/// The connection's backend is in another set now.
#[inline(never)]
pub(crate) fn moved(key: &Tuple, connection: &Connection) {
    if let Some(entry) = entry(key) {
        entry.belong(connection.set_id);
    }
}

#[inline(always)]
pub(super) fn entry(key: &Tuple) -> Option<&'static mut Connection> {
    let entry = match maps::CONNECTIONS.get_ptr_mut(key) {
        Some(entry) => entry,
        None => maps::OPENINGS.get_ptr_mut(key)?,
    };
    // SAFETY: a map value, valid and aligned under RCU until the program ends.
    unsafe { entry.as_mut() }
}

#[inline(never)]
fn tell_twin(tuple: &Tuple, told: &Connection, news: u16, gone: u16) {
    let key = twin(tuple, told);
    if let Some(other) = entry(&key)
        && is_twin(tuple, other)
    {
        let was_settled = other.is_settled();
        other.state = other.state & !gone | news;
        let other = *other;
        if other.is_settled() != was_settled {
            place(&key, &other);
        }
    }
}

/// Into the map that it belongs to. `entry` is a copy.
#[inline(never)]
fn place(key: &Tuple, entry: &Connection) {
    // An error of a removal means that it is there already.
    if entry.is_settled() {
        if maps::CONNECTIONS.insert(key, entry, BPF_ANY.into()).is_ok() {
            let _ = maps::OPENINGS.remove(key);
        }
    } else if maps::OPENINGS.insert(key, entry, BPF_ANY.into()).is_ok() {
        let _ = maps::CONNECTIONS.remove(key);
    }
    // Another CPU that moved it the other way meanwhile (a forged reset against its next packet) has taken away what
    // was put here, and the other way round.
    if self::entry(key).is_none() {
        let _ = maps::OPENINGS.insert(key, entry, BPF_NOEXIST.into());
    }
}

/// Whether what is stored already is the same connection's, or that of one that has ended.
#[inline(never)]
fn is_ours_or_free(key: &Tuple, wanted: &Connection) -> bool {
    let Some(found) = entry(key) else { return true };
    if found.is_same_way(wanted) {
        return true;
    }
    if !found.is_free(key.protocol, wanted.seen) {
        return false;
    }
    let Some(other) = entry(&twin(key, found)) else { return true };
    !is_twin(key, other) || other.is_free(key.protocol, wanted.seen)
}
