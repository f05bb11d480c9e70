//! The entries that make up one translated connection, and how long they hold.

use crate::abi::{
    Address, CONNECTION_ANSWERED, CONNECTION_ASSURED, CONNECTION_COUNTED, CONNECTION_FIN,
    CONNECTION_OTHER_FIN, CONNECTION_REPLY, CONNECTION_RESET, Connection, EGRESS, INGRESS, TCP,
    Tuple, UDP,
};
use crate::packet::{FIN, RST, opens_connection};

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
        let key = Tuple {
            destination: self.backend,
            source_port: self.client_port,
            destination_port: self.backend_port,
            hook: EGRESS,
            ..*self.dialled
        };
        (key, self.rewrite(node, node_port, self.backend_port, 0))
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
        self.state & CONNECTION_ASSURED != 0 && !self.is_closed()
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

    /// What a packet with these TCP flags (0 for others) adds to this entry's state, and to that of
    /// its twin; nothing for nearly every packet.
    #[inline(always)]
    pub fn news(&self, tcp_flags: u8) -> (u16, u16) {
        let (mut own, mut twins) = (0, 0);
        if self.state & CONNECTION_REPLY != 0 {
            own |= CONNECTION_ANSWERED;
            twins |= CONNECTION_ANSWERED;
        } else if self.state & CONNECTION_ANSWERED != 0 && !opens_connection(tcp_flags) {
            own |= CONNECTION_ASSURED;
            twins |= CONNECTION_ASSURED;
        }
        if tcp_flags & FIN != 0 {
            own |= CONNECTION_FIN;
            twins |= CONNECTION_OTHER_FIN;
        }
        if tcp_flags & RST != 0 {
            own |= CONNECTION_RESET;
            twins |= CONNECTION_RESET;
        }
        // A reset is told each time: the twin may have met a packet that was on its way, and taken the first one for forged.
        let is_told = own & !self.state == 0 && tcp_flags & RST == 0;
        if is_told { (0, 0) } else { (own, twins) }
    }

    /// How long it holds without a packet, in ticks.
    #[inline(always)]
    pub fn limit(&self, protocol: u8) -> u32 {
        let is_assured = self.state & CONNECTION_ASSURED != 0;
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

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;
    use crate::{
        abi::SCTP,
        packet::{ACK, SYN, mapped},
    };

    const CLIENT: Address = mapped([203, 0, 113, 9]);
    const NODE: Address = mapped([192, 168, 0, 2]);
    const BACKEND: Address = mapped([10, 244, 1, 5]);

    fn tuple(hook: u8, from: (Address, u16), to: (Address, u16)) -> Tuple {
        Tuple {
            source: from.0,
            destination: to.0,
            source_port: from.1.to_be_bytes(),
            destination_port: to.1.to_be_bytes(),
            protocol: TCP,
            hook,
            zero: [0; 2],
        }
    }

    fn flow(dialled: &Tuple, client_port: u16) -> Flow<'_> {
        Flow {
            dialled,
            backend: BACKEND,
            backend_port: 8080u16.to_be_bytes(),
            client_port: client_port.to_be_bytes(),
            now: 7,
            counter_id: 9,
        }
    }

    /// Applies `entry` to the packet the previous hook left behind.
    fn pass(packet: Tuple, hook: u8, entry: Entry) -> Tuple {
        let packet = Tuple { hook, ..packet };
        assert_eq!(packet, entry.0, "the entry is for the packet that arrives at its hook");
        rewritten(&packet, &entry.1)
    }

    #[test]
    fn local_backend_sees_the_client_and_the_client_sees_the_node() {
        for client_port in [40000, 50001] {
            let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
            let flow = flow(&dialled, client_port);
            let at_backend = pass(dialled, INGRESS, flow.request_in());
            assert_eq!(at_backend, tuple(INGRESS, (CLIENT, client_port), (BACKEND, 8080)));
            let reply = tuple(EGRESS, (BACKEND, 8080), (CLIENT, client_port));
            let at_client = pass(reply, EGRESS, flow.reply_out());
            assert_eq!(at_client, tuple(EGRESS, (NODE, 30080), (CLIENT, 40000)));
        }
    }

    #[test]
    fn remote_backend_sees_the_node_and_the_client_sees_the_node() {
        for client_port in [40000, 50001] {
            let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
            let flow = flow(&dialled, client_port);
            let port = 61000u16.to_be_bytes();
            let routed = pass(dialled, INGRESS, flow.request_in());
            let at_backend = pass(routed, EGRESS, flow.request_out(NODE, port));
            assert_eq!(at_backend, tuple(EGRESS, (NODE, 61000), (BACKEND, 8080)));
            let reply = tuple(INGRESS, (BACKEND, 8080), (NODE, 61000));
            let routed = pass(reply, INGRESS, flow.reply_in(NODE, port));
            let at_client = pass(routed, EGRESS, flow.reply_out());
            assert_eq!(at_client, tuple(EGRESS, (NODE, 30080), (CLIENT, 40000)));
        }
    }

    #[test]
    fn packets_that_pass_two_hooks_are_counted_at_one() {
        let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
        let flow = flow(&dialled, 40000);
        let port = 61000u16.to_be_bytes();
        let ways = [flow.request_in(), flow.request_out(NODE, port)];
        let back = [flow.reply_in(NODE, port), flow.reply_out()];
        assert_eq!(ways.map(|(_, entry)| entry.counted_for()), [9, 0]);
        assert_eq!(back.map(|(_, entry)| entry.counted_for()), [0, 9]);
    }

    #[test]
    fn what_an_earlier_agent_left_is_counted_for_no_service() {
        let slot_of_a_backend = Connection { counter_id: 3, ..Connection::zeroed() };
        assert_eq!(slot_of_a_backend.counted_for(), 0);
    }

    #[test]
    fn one_client_port_reaching_one_backend_by_two_services_needs_another_port() {
        let dialled = [30080, 30081].map(|port| tuple(INGRESS, (CLIENT, 40000), (NODE, port)));
        let [first, second] = [flow(&dialled[0], 40000), flow(&dialled[1], 40000)];
        assert_eq!(first.reply_out().0, second.reply_out().0);
        let moved = Flow { client_port: 50001u16.to_be_bytes(), ..second };
        assert_ne!(first.reply_out().0, moved.reply_out().0);
    }

    #[test]
    fn each_entry_finds_the_one_for_the_other_direction_and_back() {
        let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
        let flow = flow(&dialled, 50001);
        let port = 61000u16.to_be_bytes();
        let outer = [flow.request_in(), flow.reply_out()];
        let inner = [flow.request_out(NODE, port), flow.reply_in(NODE, port)];
        for [(one, way), (other, back)] in [outer, inner] {
            assert_eq!(twin(&one, &way), other);
            assert_eq!(twin(&other, &back), one);
            assert!(is_twin(&one, &back) && is_twin(&other, &way));
            let elsewhere = Connection { source_port: [9, 9], ..back };
            assert_ne!(twin(&other, &elsewhere), one);
            assert!(!is_twin(&one, &elsewhere));
        }
    }

    #[test]
    fn a_connection_is_over_when_netfilter_would_say_so() {
        let state = |state| Connection { state, seen: u32::MAX - 5, ..Connection::zeroed() };
        let (assured, fin, other) =
            (CONNECTION_ASSURED, CONNECTION_ASSURED | CONNECTION_FIN, CONNECTION_OTHER_FIN);
        for (protocol, flags, over, free) in [
            (TCP, 0, 120, 120),
            (TCP, CONNECTION_ANSWERED, 120, 120),
            (TCP, assured, 86_400, 86_400),
            (TCP, fin, 3600, 3600),
            (TCP, assured | other, 3600, 3600),
            (TCP, fin | other, 120, 2),
            (TCP, assured | CONNECTION_RESET, 120, 2),
            (TCP, CONNECTION_RESET, 120, 2),
            (UDP, CONNECTION_ANSWERED, 30, 30),
            (UDP, assured, 180, 180),
            (SCTP, assured, 210, 210),
        ] {
            let entry = state(flags);
            // Ticks run over: a node that is up for 146 years.
            let after = |ticks: u32| entry.seen.wrapping_add(ticks);
            assert!(!entry.is_over(protocol, after(over - 1)), "{protocol} {flags:#b}");
            assert!(entry.is_over(protocol, after(over)), "{protocol} {flags:#b}");
            assert!(!entry.is_free(protocol, after(free - 1)), "{protocol} {flags:#b}");
            assert!(entry.is_free(protocol, after(free)), "{protocol} {flags:#b}");
            assert!(!entry.is_free(protocol, entry.seen.wrapping_sub(1)), "met on another core");
        }
    }

    #[test]
    fn only_what_is_new_is_written_and_to_both_directions() {
        let (request, reply) = (0, CONNECTION_REPLY);
        let (answered, assured, reset) =
            (CONNECTION_ANSWERED, CONNECTION_ASSURED, CONNECTION_RESET);
        let (fin, other) = (CONNECTION_FIN, CONNECTION_OTHER_FIN);
        let open = request | answered | assured;
        for (state, flags, expected) in [
            (request, ACK, (0, 0)),
            (reply, SYN | ACK, (answered, answered)),
            (reply | answered, ACK, (0, 0)),
            (request | answered, SYN, (0, 0)),
            (request | answered, ACK, (assured, assured)),
            // Of a datagram there are no flags.
            (request | answered, 0, (assured, assured)),
            (open, ACK, (0, 0)),
            (open, FIN | ACK, (assured | fin, assured | other)),
            (open | fin, FIN | ACK, (0, 0)),
            (request | other, RST, (reset, reset)),
            (open | reset, RST, (assured | reset, assured | reset)),
            (reply, RST | ACK, (answered | reset, answered | reset)),
        ] {
            let entry = Connection { state, ..Connection::zeroed() };
            assert_eq!(entry.news(flags), expected, "{state:#b} {flags:#b}");
        }
    }
}
