//! Segments merged beyond 64 KiB (BIG TCP).

use std::net::SocketAddr;

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::support::{
    followed::{Follower, ask_tcp, echo_tcp},
    services::{node_port, put},
    world::world,
};

/// Segments merged beyond what an IPv4 header can say of its length, as fast devices are set to do.
#[test]
fn packets_too_large_for_their_own_length_field_are_translated() {
    world("large::packets_too_large_for_their_own_length_field_are_translated", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        for pod in [&client, &backend] {
            allow_large(&pod.device());
            pod.inside(|| allow_large("eth0"));
        }
        let follower = Follower::start(world, &[client.device(), backend.device()]);
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        for (set, is_ipv4) in [(1, true), (2, false)] {
            let ip = backend.own_address(is_ipv4);
            let server = backend.inside(|| echo_tcp(ip));
            put(&mut maps, node_port(is_ipv4, 30080, TCP), set, &[(server, BACKEND_LOCAL)]);
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            assert_eq!(client.inside(|| ask_tcp(to)), client.own_address(is_ipv4));
        }
        follower.assert_nothing_dropped();
    });
}

/// Lets a device's packets be larger than 64 KiB (BIG TCP), in both families. `ip` cannot say it for
/// IPv4 before its version 6.3.
fn allow_large(device: &str) {
    const BYTES_MAX: u32 = 196_608;
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(device.to_owned()),
        LinkAttribute::GsoMaxSize(BYTES_MAX),
        LinkAttribute::GroMaxSize(BYTES_MAX),
        LinkAttribute::GsoIpv4MaxSize(BYTES_MAX),
        LinkAttribute::GroIpv4MaxSize(BYTES_MAX),
    ];
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    socket.send(&bytes, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).unwrap();
    let NetlinkPayload::Error(error) = answer.payload else { panic!("{answer:?}") };
    assert_eq!(error.code, None, "{device}: {error}");
}
