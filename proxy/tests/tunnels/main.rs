//! Devices that carry other devices' packets. Those without an Ethernet header, as of IPIP and WireGuard, are TUN devices of
//! two nodes here, and a process that hands over what each sends.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};
use support::{
    followed::{Follower, ask_tcp, ask_udp, echo, echo_tcp, echo_udp, refused_tcp, refused_udp},
    overlay::{OTHER, OWN, POD, route_pods},
    services::{node_port, put},
    world::{Pod, world},
};

mod ipsec;
mod many;
mod served;
#[path = "../support"]
mod support {
    pub(crate) mod followed;
    pub(crate) mod frames;
    pub(crate) mod overlay;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

const TUNNEL: &str = "tunl1";
/// Larger than any packet on the device.
const PACKET_MAX: usize = 2048;

#[test]
fn pods_behind_a_tunnel_without_ethernet_are_reached_and_clients_behind_it_are_served() {
    let name = "pods_behind_a_tunnel_without_ethernet_are_reached_and_clients_behind_it_are_served";
    world(name, |world| {
        let [client, other, here] = [1, 2, 3].map(|number| world.pod(number));
        world.forward();
        lay_tunnel(&other);
        let devices = [client.device(), other.device(), TUNNEL.to_owned()];
        let follower = Follower::start(world, &devices);
        follower.wait_for(world, 4);
        let mut maps = follower.kernel.maps().unwrap();
        let mut set = 0;
        let mut serve = |port: u16, is_ipv4: bool, protocol: u8, backends: &[(SocketAddr, u16)]| {
            set += 1;
            put(&mut maps, node_port(is_ipv4, port, protocol), set, backends);
        };
        for (family, is_ipv4) in [true, false].into_iter().enumerate() {
            let [own, far, pod] = [OWN, OTHER, POD].map(|of| of[family].parse::<IpAddr>().unwrap());
            let remote = other.inside(|| [(TCP, echo_tcp(pod)), (UDP, echo_udp(pod))]);
            for (protocol, server) in remote {
                serve(30080, is_ipv4, protocol, &[(server, 0)]);
            }
            for (protocol, server) in echo(&here, is_ipv4) {
                serve(30081, is_ipv4, protocol, &[(server, BACKEND_LOCAL)]);
                serve(30082, is_ipv4, protocol, &[]);
            }
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            let seen = client.inside(|| [ask_tcp(to), ask_udp(to)]);
            assert_eq!(seen, [own; 2], "{to}: a pod behind the tunnel");

            let to = SocketAddr::new(own, 30081);
            let seen = other.inside(|| [ask_tcp(to), ask_udp(to)]);
            assert_eq!(seen, [far; 2], "{to}: a client behind the tunnel");

            let to = SocketAddr::new(own, 30082);
            let refused = other.inside(|| [refused_tcp(to), refused_udp(to)]);
            assert_eq!(refused, [ErrorKind::ConnectionRefused; 2], "{to}: nobody serves");
        }
        follower.assert_nothing_dropped();
    });
}

fn lay_tunnel(other: &Pod) {
    let (near, far) = (end(TUNNEL), other.inside(|| end(TUNNEL)));
    let copies = [near.try_clone().unwrap(), far.try_clone().unwrap()];
    let [near_copy, far_copy] = copies;
    thread::spawn(move || hand_over(near, far));
    thread::spawn(move || hand_over(far_copy, near_copy));
    route_pods(other, TUNNEL, false);
}

fn hand_over(mut from: File, mut to: File) {
    let mut packet = [0; PACKET_MAX];
    // A device that is not up yet, or not any more, takes nothing.
    while let Ok(len) = from.read(&mut packet) {
        let _ = to.write(&packet[..len]);
    }
}

/// A TUN device in this thread's network namespace, there as long as the file is open.
fn end(name: &str) -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap(),
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap();
    }
    // SAFETY: the request is a whole `struct ifreq`, which the kernel reads and writes the name of.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    file
}
