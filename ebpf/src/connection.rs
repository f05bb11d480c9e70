//! The entries that make up one translated connection.

use crate::abi::{Address, Connection, EGRESS, INGRESS, Tuple};

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
}

/// Key and value of one entry.
pub type Entry = (Tuple, Connection);

impl Flow<'_> {
    /// Client's packets on their way in: to the backend.
    #[inline(always)]
    pub fn request_in(&self) -> Entry {
        (*self.dialled, rewrite(self.backend, self.client_port, self.backend_port))
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
        (key, rewrite(node, node_port, self.backend_port))
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
        (key, rewrite(self.dialled.source, self.backend_port, self.client_port))
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
        (key, rewrite(destination, destination_port, source_port))
    }
}

#[inline(always)]
fn rewrite(address: Address, source_port: [u8; 2], destination_port: [u8; 2]) -> Connection {
    Connection { address, source_port, destination_port, set_id: 0, slot: 0, flags: 0 }
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
    use super::*;
    use crate::{abi::TCP, packet::mapped};

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
    fn one_client_port_reaching_one_backend_by_two_services_needs_another_port() {
        let dialled = [30080, 30081].map(|port| tuple(INGRESS, (CLIENT, 40000), (NODE, port)));
        let [first, second] = [flow(&dialled[0], 40000), flow(&dialled[1], 40000)];
        assert_eq!(first.reply_out().0, second.reply_out().0);
        let moved = Flow { client_port: 50001u16.to_be_bytes(), ..second };
        assert_ne!(first.reply_out().0, moved.reply_out().0);
    }
}
