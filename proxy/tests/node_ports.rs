//! NodePorts wherever kube-apiserver's `--service-node-port-range` lets them be.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{io::ErrorKind, net::SocketAddr, ops::RangeInclusive};

use fairlead_ebpf::abi::TCP;
use fairlead_proxy::{
    Devices, Kernel, KernelOptions, Synchroniser, maps::Maps as _, node, port_range::PortRange,
};
use fairlead_state::{
    Change, Kind, Store,
    decode::{Decoded, Decoder},
};
use support::{
    services::{ask_tcp, serve},
    world::{Pod, world},
};

mod support {
    pub(crate) mod services;
    pub(crate) mod world;
}

fn object(kind: Kind, document: &str) -> Change {
    match Decoder::default().json(kind, document, &"a test".into()).unwrap().decoded {
        Decoded::Object(object) => Change::Upsert(object),
        other => panic!("{other:?}"),
    }
}

/// A Service of both families with these NodePorts.
fn service(node_ports: &[u16]) -> Change {
    let port = |(i, node_port)| format!(r#"{{"name":"p{i}","port":{i},"nodePort":{node_port}}}"#);
    let ports: Vec<String> = (1..).zip(node_ports).map(port).collect();
    let document = format!(
        r#"{{"metadata":{{"name":"web"}},"spec":{{"type":"{}",
        "clusterIPs":["10.96.0.1","fd00:96::1"],"ports":[{}]}}}}"#,
        if node_ports.is_empty() { "ClusterIP" } else { "NodePort" },
        if node_ports.is_empty() { r#"{"port":1}"#.to_owned() } else { ports.join(",") },
    );
    object(Kind::Service, &document)
}

/// Its one endpoint in a family, behind all of its ports.
fn endpoint(at: SocketAddr, ports: usize) -> Change {
    let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
    let (ip, port, name) = (at.ip(), at.port(), family.to_lowercase());
    let ports = (1..=ports).map(|i| format!(r#"{{"name":"p{i}","port":{port}}}"#));
    let document = format!(
        r#"{{"metadata":{{"name":"web-{name}","labels":{{"kubernetes.io/service-name":"web"}}}},
        "addressType":"{family}","ports":[{}],
        "endpoints":[{{"addresses":["{ip}"],"nodeName":"node"}}]}}"#,
        ports.collect::<Vec<_>>().join(","),
    );
    object(Kind::EndpointSlice, &document)
}

/// Who answers at the node's port, asked by a pod and by the node itself.
fn answers(client: &Pod, port: u16) -> Vec<Result<String, ErrorKind>> {
    let ask = |to: SocketAddr| ask_tcp(to).map(|(answer, _)| answer).map_err(|error| error.kind());
    let nodes = client.node_addresses().into_iter().map(|ip| SocketAddr::new(ip, port));
    nodes.flat_map(|to| [client.inside(|| ask(to)), ask(to)]).collect()
}

/// With 30000-32767 in the programs, NodePorts of a cluster with another range answered nobody.
#[test]
fn node_ports_of_any_range_answer_inside_and_outside_and_end_with_their_service() {
    const TEST: &str =
        "node_ports_of_any_range_answer_inside_and_outside_and_end_with_their_service";
    world(TEST, |world| {
        let [client, backend] = [1, 2].map(|number| world.pod(number));
        world.forward();
        let servers = [true, false].map(|is_ipv4| {
            let ip = backend.own_address(is_ipv4);
            backend.inside(|| serve(TCP, ip, "web"))
        });
        let devices = Devices::List(vec![client.device(), backend.device()]);
        let options = KernelOptions { devices, ..world.options() };
        let (mut store, snapshots) = Store::new([]);
        let kernel = Kernel::open(&options).unwrap();
        let mut sync = Synchroniser::new(kernel.maps().unwrap(), "node");
        let mut own_ports = Vec::new();
        let mut serve_at = |node_ports: &[u16]| {
            let endpoints = servers.map(|at| endpoint(at, node_ports.len()));
            store.apply(endpoints.into_iter().chain([service(node_ports)]));
            let newest = snapshots.borrow().clone().unwrap();
            assert_eq!(sync.reconcile(&newest).error, None);
            let image = sync.maps().load().unwrap();
            let own: RangeInclusive<u16> = image.source_ports.into();
            let shared = node_ports.iter().find(|port| own.contains(port));
            assert_eq!(shared, None, "{own:?}");
            own_ports.push(own.len());
            image.node_ports
        };
        let served = vec![Ok("web".to_owned()); 4];
        let refused = vec![Err(ErrorKind::ConnectionRefused); 4];

        assert_eq!(serve_at(&[30080]), PortRange::new(30080, 30080));
        node::prepare(&kernel, &Store::new([]).1, "node").unwrap();
        kernel.attach().unwrap();
        assert_eq!(answers(&client, 30080), served);

        assert_eq!(serve_at(&[30080, 80, 25000, 65535]), PortRange::new(80, 65535));
        for port in [80, 25000, 30080, 65535] {
            assert_eq!(answers(&client, port), served, "{port}");
        }
        assert_eq!(answers(&client, 25001), refused, "nobody's, and no listener's");

        assert_eq!(serve_at(&[25000]), PortRange::new(25000, 25000));
        assert_eq!(answers(&client, 25000), served);
        assert_eq!(answers(&client, 80), refused);

        // An agent that starts knows where they are before it has read a single object.
        let next = Kernel::open(&options).unwrap();
        next.attach().unwrap();
        node::prepare(&next, &Store::new([]).1, "node").unwrap();
        assert_eq!(answers(&client, 25000), served);

        assert_eq!(serve_at(&[]), PortRange::NONE);
        assert_eq!(answers(&client, 25000), refused);
        let [first, among_many, one, none] = own_ports[..] else { panic!("{own_ports:?}") };
        assert!(among_many < first && one < first, "own ports make way: {own_ports:?}");
        assert_eq!(none, first, "and come back");
    });
}
