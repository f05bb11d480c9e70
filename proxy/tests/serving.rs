//! UDP sockets stay with their endpoint as long as it serves, and no longer.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use fairlead_ebpf::abi::UDP;
use fairlead_proxy::{Kernel, Synchroniser};
use fairlead_state::{
    Change,
    model::{Endpoint, EndpointSlice, Hints, Protocol, Service, TrafficPolicy},
};
use objects::{Cluster, NODE, endpoint_port, put_service, put_slice};
use support::{
    services::serve,
    world::{Pod, world},
};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;
mod support {
    pub(crate) mod services;
    pub(crate) mod world;
}

const DEADLINE: Duration = Duration::from_secs(10);
const SERVICE: &str = "10.96.0.10:53";

fn service() -> Service {
    let ports = Arc::new([objects::port("dns", Protocol::Udp, 53, None)]);
    Service { ports, ..objects::service("dns", "10.96.0.10") }
}

/// `near` is on this node, `far` is taken to be on another; each has a port of its own.
fn slice(name: &str, at: SocketAddr, state: impl FnOnce(Endpoint) -> Endpoint) -> Change {
    let node = if name == "near" { NODE } else { "node-b" };
    let endpoint = Endpoint { node_name: Some(node.into()), ..objects::endpoint(at.ip()) };
    put_slice(EndpointSlice {
        ports: Arc::new([endpoint_port("dns", Protocol::Udp, at.port())]),
        endpoints: [state(endpoint)].into(),
        ..objects::slice(name, "dns", &[&at.ip().to_string()])
    })
}

/// Sockets of the node and of a pod that are connected to `far`.
fn connected(pod: &Pod) -> [UdpSocket; 2] {
    let connect = || loop {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.connect(SERVICE).unwrap();
        if ask(&socket).unwrap() == "far" {
            return socket;
        }
    };
    [connect(), pod.inside(connect)]
}

/// Sockets of the node and of a pod that send to the Service, and are led to `far`.
fn unconnected(pod: &Pod) -> [UdpSocket; 2] {
    let bind = || loop {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        if ask_unconnected(&socket).unwrap() == "far" {
            return socket;
        }
    };
    [bind(), pod.inside(bind)]
}

fn ask_unconnected(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send_to(b"?", SERVICE)?;
    answer(socket)
}

fn ask(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"?")?;
    answer(socket)
}

fn answer(socket: &UdpSocket) -> std::io::Result<String> {
    let mut answer = vec![0; 16];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A change of hints ended every connected socket of a cluster's DNS whose endpoint was in another zone, and any
/// change led those that are not connected elsewhere.
#[test]
fn sockets_stay_with_endpoints_that_serve_and_leave_those_that_do_not() {
    let name = "sockets_stay_with_endpoints_that_serve_and_leave_those_that_do_not";
    world(name, |world| {
        let pod = world.pod(1);
        let kernel = Kernel::open(&world.options()).unwrap();
        kernel.attach().unwrap();
        let mut sync = Synchroniser::new(kernel.maps().unwrap(), NODE);
        let mut cluster = Cluster::new();
        let [near, far] = ["near", "far"].map(|name| serve(UDP, pod.node_address(true), name));
        let plain = |name: &str| slice(name, if name == "near" { near } else { far }, |e| e);
        let as_it_was = || [put_service(service()), plain("near"), plain("far")];
        let hinted = |endpoint: Endpoint| {
            let nodes = endpoint.node_name.iter().cloned().collect();
            Endpoint { hints: Hints { nodes, ..Hints::default() }.into(), ..endpoint }
        };
        let internal_traffic_policy = TrafficPolicy::Local;
        let local = put_service(Service { internal_traffic_policy, ..service() });
        let is = |ready: bool, serving: bool| {
            move |e: Endpoint| Endpoint { ready, serving, terminating: !ready, ..e }
        };
        for (what, changes, ended) in [
            ("nothing", vec![], 0),
            ("internalTrafficPolicy Local", vec![local], 0),
            ("hints", vec![slice("near", near, hinted), slice("far", far, hinted)], 0),
            ("it drains, and serves", vec![slice("far", far, is(false, true))], 0),
            ("it serves no more", vec![slice("far", far, is(false, false))], 2),
        ] {
            assert_eq!(sync.reconcile(&cluster.apply(as_it_was())).error, None);
            let (sockets, senders) = (connected(&pod), unconnected(&pod));
            assert_eq!(sync.reconcile(&cluster.apply(changes)).error, None);
            assert_eq!(kernel.end_stale_sockets().unwrap().sockets, ended, "{what}");
            for socket in sockets {
                if ended == 0 {
                    assert_eq!(ask(&socket).unwrap(), "far", "{what}");
                } else {
                    let error = socket.recv(&mut [0; 16]).unwrap_err().kind();
                    assert_eq!(error, ErrorKind::ConnectionAborted, "{what}");
                }
            }
            for socket in senders {
                let expected = if ended == 0 { "far" } else { "near" };
                assert_eq!(ask_unconnected(&socket).unwrap(), expected, "{what}, not connected");
            }
        }
    });
}
