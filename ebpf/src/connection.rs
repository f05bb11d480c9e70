//! The entries that make up one translated connection, and how long they hold.

mod news;

use crate::{
    abi::{
        Address, CONNECTION_ANSWERED, CONNECTION_ASSURED, CONNECTION_COUNTED, CONNECTION_DOUBTED,
        CONNECTION_FIN, CONNECTION_NUMBERED, CONNECTION_OTHER_FIN, CONNECTION_REPLY,
        CONNECTION_RESET, CONNECTION_UNANSWERED, Connection, EGRESS, INGRESS, TCP, Tuple, UDP,
    },
    select,
};

pub use news::{News, Trust};

/// A tick is `2^TICK_SHIFT` ns of `CLOCK_MONOTONIC`: 1.07 s, for the price of a shift.
pub const TICK_SHIFT: u32 = 30;
/// How long entries hold without a packet, in ticks. The values are what kube-proxy sets
/// (`tcpEstablishedTimeout`, `tcpCloseWaitTimeout`) or netfilter has by itself.
const ESTABLISHED_TICKS: u32 = 86_400;
const HALF_CLOSED_TICKS: u32 = 3600;
const CLOSED_TICKS: u32 = 120;
const TCP_OPENING_TICKS: u32 = 120;
const STREAM_TICKS: u32 = 180;
const DATAGRAM_TICKS: u32 = 30;
const SCTP_TICKS: u32 = 210;
/// A closed connection's ports may serve another after so long: its last packets are through.
const LINGER_TICKS: u32 = 2;

/// A connection from outside, chosen but not yet stored.
///
/// `client -> frontend` becomes `client -> backend` before routing; towards another node's
/// backend it becomes `node -> backend` after routing. Replies go the same way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<'a> {
    /// The packet that opened it, as it arrived.
    pub dialled: &'a Tuple,
    /// The backend's address.
    pub backend: Address,
    /// The backend's port.
    pub backend_port: [u8; 2],
    /// The client's port as the node's side sees it; another than the client's own only where one
    /// client port reaches one backend by two services.
    pub client_port: [u8; 2],
    /// When, in ticks.
    pub now: u32,
    /// Of the service that was dialled; 0: of none.
    pub counter_id: u32,
}

/// Key and value of one entry.
pub type Entry = (Tuple, Connection);

impl Flow<'_> {
    /// Client's packets on their way in: to the backend.
    #[inline(always)]
    pub fn request_in(&self) -> Entry {
        let value = self.rewrite(self.backend, self.client_port, self.backend_port, 0);
        (*self.dialled, self.counted(value))
    }

    /// Client's packets on their way out to another node: from the node.
    #[inline(always)]
    pub fn request_out(&self, node: Address, node_port: [u8; 2]) -> Entry {
        (self.request_on_its_way(), self.rewrite(node, node_port, self.backend_port, 0))
    }

    /// The same packets, before that is done to them.
    #[inline(always)]
    pub fn request_on_its_way(&self) -> Tuple {
        Tuple {
            destination: self.backend,
            source_port: self.client_port,
            destination_port: self.backend_port,
            hook: EGRESS,
            ..*self.dialled
        }
    }

    /// Another node's replies on their way in: to the client.
    #[inline(always)]
    pub fn reply_in(&self, node: Address, node_port: [u8; 2]) -> Entry {
        let key = Tuple {
            source: self.backend,
            destination: node,
            source_port: self.backend_port,
            destination_port: node_port,
            hook: INGRESS,
            ..*self.dialled
        };
        let client = self.dialled.source;
        (key, self.rewrite(client, self.backend_port, self.client_port, CONNECTION_REPLY))
    }

    /// Replies on their way out: from what the client dialled.
    #[inline(always)]
    pub fn reply_out(&self) -> Entry {
        let key = Tuple {
            source: self.backend,
            destination: self.dialled.source,
            source_port: self.backend_port,
            destination_port: self.client_port,
            hook: EGRESS,
            ..*self.dialled
        };
        let Tuple { destination, source_port, destination_port, .. } = *self.dialled;
        let value = self.rewrite(destination, destination_port, source_port, CONNECTION_REPLY);
        (key, self.counted(value))
    }

    /// A packet passes two entries on its way, one of which counts it.
    #[inline(always)]
    fn counted(&self, value: Connection) -> Connection {
        let state = value.state | CONNECTION_COUNTED;
        Connection { counter_id: self.counter_id, state, ..value }
    }

    #[inline(always)]
    fn rewrite(
        &self,
        address: Address,
        source_port: [u8; 2],
        destination_port: [u8; 2],
        state: u16,
    ) -> Connection {
        let seen = self.now;
        Connection {
            address,
            source_port,
            destination_port,
            set_id: 0,
            counter_id: 0,
            flags: 0,
            state,
            seen,
        }
    }
}

impl Connection {
    /// That nothing is done to such packets.
    #[inline(always)]
    pub fn unchanged(tuple: &Tuple, state: u16, now: u32) -> Self {
        Self {
            address: if tuple.hook == INGRESS { tuple.destination } else { tuple.source },
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            set_id: 0,
            counter_id: 0,
            flags: 0,
            state,
            seen: now,
        }
    }

    /// Whether nothing is done to such packets, which have met this entry.
    #[inline(always)]
    pub fn is_unchanged(&self, tuple: &Tuple) -> bool {
        self.is_same_way(&Self::unchanged(tuple, 0, 0))
    }

    /// The service whose bytes its packets are; 0: of none.
    #[inline(always)]
    pub fn counted_for(&self) -> u32 {
        match self.state & CONNECTION_COUNTED {
            0 => 0,
            _ => self.counter_id,
        }
    }

    /// Both sides have ended it, or one has broken it off.
    #[inline(always)]
    pub fn is_closed(&self) -> bool {
        const BOTH: u16 = CONNECTION_FIN | CONNECTION_OTHER_FIN;
        self.state & CONNECTION_RESET != 0 || self.state & BOTH == BOTH
    }

    /// Whether both ends are real and neither has ended it: then nothing that begins or ends may push it out.
    #[inline(always)]
    pub fn is_settled(&self) -> bool {
        self.is_assured() && !self.is_closed()
    }

    /// Whether a first packet that meets this connection is none of a new one: both ends are real, neither has ended it, and
    /// nobody has shown that the backend is gone. It may be late, or forged (netfilter ignores it, too).
    #[inline(always)]
    pub fn is_pinned(&self) -> bool {
        const OVER: u16 = CONNECTION_FIN | CONNECTION_OTHER_FIN | CONNECTION_UNANSWERED;
        self.is_settled() && self.state & OVER == 0
    }

    /// Whether a reset has ended it that cannot have been forged by who sees no answers.
    #[inline(always)]
    pub fn is_broken_off(&self) -> bool {
        self.state & (CONNECTION_RESET | CONNECTION_DOUBTED) == CONNECTION_RESET
    }

    /// Whether no packet is to be expected any more, as far as this entry's direction goes.
    #[inline(always)]
    pub fn is_over(&self, protocol: u8, now: u32) -> bool {
        self.is_idle(self.limit(protocol), now)
    }

    /// Whether another connection may have its ports, as far as this entry's direction goes.
    #[inline(always)]
    pub fn is_free(&self, protocol: u8, now: u32) -> bool {
        let limit = if self.is_closed() { LINGER_TICKS } else { self.limit(protocol) };
        self.is_idle(limit, now)
    }

    /// Whether no packet has met this entry since the tick before the last.
    #[inline(always)]
    pub fn is_silent(&self, now: u32) -> bool {
        self.is_idle(LINGER_TICKS, now)
    }

    /// Whether both rewrite alike.
    #[inline(always)]
    pub fn is_same_way(&self, other: &Connection) -> bool {
        self.address == other.address
            && self.source_port == other.source_port
            && self.destination_port == other.destination_port
    }

    /// The backend set this connection's backend was last seen in; 0: it is of none.
    #[inline(always)]
    pub fn set(&self) -> u32 {
        if self.state & CONNECTION_NUMBERED != 0 { 0 } else { self.set_id }
    }

    /// Whether a service led it to its backend. The set may be forgotten: see [`Connection::set`].
    #[inline(always)]
    pub fn is_of_service(&self) -> bool {
        self.set() != 0 || self.counted_for() != 0
    }

    /// Whether it is for packets on the way back to the client.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.state & CONNECTION_REPLY != 0
    }

    /// Whether both ends are known to be real.
    #[inline(always)]
    pub fn is_assured(&self) -> bool {
        self.state & CONNECTION_ASSURED != 0
    }

    /// Whether a packet has come back from the backend.
    #[inline(always)]
    pub fn is_answered(&self) -> bool {
        self.state & CONNECTION_ANSWERED != 0
    }

    /// How long it holds without a packet, in ticks.
    #[inline(always)]
    pub fn limit(&self, protocol: u8) -> u32 {
        let is_assured = self.is_assured();
        match protocol {
            TCP if self.is_closed() => CLOSED_TICKS,
            TCP if !is_assured => TCP_OPENING_TICKS,
            TCP if self.state & (CONNECTION_FIN | CONNECTION_OTHER_FIN) != 0 => HALF_CLOSED_TICKS,
            TCP => ESTABLISHED_TICKS,
            UDP if is_assured => STREAM_TICKS,
            UDP => DATAGRAM_TICKS,
            _ => SCTP_TICKS,
        }
    }

    #[inline(always)]
    fn is_idle(&self, limit: u32, now: u32) -> bool {
        // What looks ancient was written by another core, in a tick that is new to this one.
        let age = now.wrapping_sub(self.seen);
        age >= limit && age <= u32::MAX / 2
    }
}

/// Where the entry for the other direction is, at the other hook.
#[inline(always)]
pub fn twin(tuple: &Tuple, connection: &Connection) -> Tuple {
    let is_ingress = tuple.hook == INGRESS;
    Tuple {
        source: if is_ingress { connection.address } else { tuple.destination },
        destination: if is_ingress { tuple.source } else { connection.address },
        source_port: connection.destination_port,
        destination_port: connection.source_port,
        hook: if is_ingress { EGRESS } else { INGRESS },
        ..*tuple
    }
}

/// Whether the entry found at the [`twin`] of `tuple` has its own twin there. It has not where the
/// client's port found another way since.
#[inline(always)]
pub fn is_twin(tuple: &Tuple, found: &Connection) -> bool {
    let rewritten = if tuple.hook == INGRESS { &tuple.destination } else { &tuple.source };
    found.address == *rewritten
        && found.source_port == tuple.destination_port
        && found.destination_port == tuple.source_port
}

/// The packet after its entry was applied: destination changed on the way in, source on the way
/// out. Its `hook` is that of `tuple`.
#[inline(always)]
pub fn rewritten(tuple: &Tuple, connection: &Connection) -> Tuple {
    let mut new = *tuple;
    if tuple.hook == INGRESS {
        new.destination = connection.address;
    } else {
        new.source = connection.address;
    }
    new.source_port = connection.source_port;
    new.destination_port = connection.destination_port;
    new
}

/// By what a packet is known again on this node, whatever hook it passes: never 0, and that of another packet's once in 65,536
/// times.
#[inline(always)]
pub fn mark(tuple: &Tuple) -> u16 {
    let [a, b]: [u64; 2] = bytemuck::cast(tuple.source);
    let [c, d]: [u64; 2] = bytemuck::cast(tuple.destination);
    let ([e, f], [g, h]) = (tuple.source_port, tuple.destination_port);
    let rest = u64::from_be_bytes([0, 0, 0, tuple.protocol, e, f, g, h]);
    let all = a ^ b.rotate_left(13) ^ c.rotate_left(29) ^ d.rotate_left(43) ^ rest;
    let [high, low, ..] = select::avalanche(all).to_be_bytes();
    u16::from_be_bytes([high, low]).max(1)
}

#[cfg(test)]
mod tests;
