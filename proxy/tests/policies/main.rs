//! The contract's rows by real packets and real sockets between namespaces: whom a client from outside, a pod and a
//! process of the node meet by each address of a Service, and whose address endpoints see. What comes back is of whom
//! was dialled, or it would not be taken.
//!
//! The rows are those of kube-proxy's packet-flow tests, which `contract` has for single packets and SCTP, too. A
//! client's address is kept where the endpoint is on the node that was dialled.
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, but not what they share")]

mod ask;
mod flows;
mod ip_mode;
mod masquerade;
mod node_ports;
mod place;
mod rows;
mod terminating;

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "../services/objects.rs"]
mod objects;
#[path = "../support"]
mod support {
    pub(crate) mod followed;
    pub(crate) mod services;
    pub(crate) mod world;
}
