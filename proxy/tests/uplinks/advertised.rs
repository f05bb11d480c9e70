//! A pod that sends Router Advertisements to a node that listens to them.

use std::{
    fs,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    process::Command,
    thread,
    time::Instant,
};

use fairlead_ebpf::abi::UDP;
use fairlead_proxy::{Devices, Kernel, KernelOptions};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{
    followed::{DEADLINE, Follower},
    frames::Packet,
    services::{node_port, put},
    world::{Pod, World, run, world},
};

/// The network it says the node is on, and how addresses begin there.
const NETWORK: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xb, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PREFIX: &str = "2001:db8:bad:";

/// Its device became an uplink: its packets were a stranger's, and those of strangers its own.
#[test]
fn a_pod_that_advertises_itself_as_a_router_stays_a_pod() {
    let name = "advertised::a_pod_that_advertises_itself_as_a_router_stays_a_pod";
    world(name, |world| {
        let (outside, pod) = (world.pod(1), world.pod(2));
        world.forward();
        let options = KernelOptions { devices: Devices::Auto, ..world.options() };
        let follower = Follower::start_with(&options, vec![], &["10.99.2.0/24", "fd99:0:0:2::/64"]);
        follower.wait_for(world, 2);
        let device = pod.device();
        assert!(has(world, "pod_ingress", &device) && !has(world, "uplink_ingress", &device));
        let mut maps = follower.kernel.maps().unwrap();
        put(&mut maps, node_port(false, 30080, UDP), 1, &[("[fd99::7]:53".parse().unwrap(), 0)]);
        // A router takes them only if it is told to.
        fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_ra"), "2").unwrap();
        let advertised = advertise(&pod, &device);
        // What is read for it is read after all of that.
        let later = world.pod(3);
        wait_until(|| has(world, "uplink_ingress", &later.device()));
        assert!(has(world, "pod_ingress", &device) && !has(world, "uplink_ingress", &device));
        let is_translated = |to: IpAddr| {
            let to = SocketAddr::new(to, 30080).to_string();
            let frame = Packet::first(UDP, "[2001:db8:9::9]:40000", &to).frame();
            let run = follower.kernel.run_on_packet("uplink_ingress", &frame, 1).unwrap();
            run.packet != frame
        };
        assert!(is_translated(outside.node_address(false)));
        assert!(!is_translated(advertised), "{advertised} is the pod's word");
        // The same route by somebody who may.
        let by = pod.own_address(false);
        run(&format!("ip route add default via {by} dev {device} metric 512"));
        wait_until(|| has(world, "uplink_ingress", &device));
        wait_until(|| is_translated(advertised));
    });
}

/// Sends until the node has believed it; the address that it has now.
fn advertise(pod: &Pod, device: &str) -> IpAddr {
    let begun = Instant::now();
    loop {
        pod.inside(send);
        let found = addresses(device).into_iter().find(|ip| ip.to_string().starts_with(PREFIX));
        let routes = shown(&["-6", "route", "show", "default", "dev", device]);
        if let Some(found) = found.filter(|_| routes.contains("proto ra")) {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "not believed: {routes}");
        thread::yield_now();
    }
}

/// RFC 4861 §4.2: a router for half an hour, of one network whose hosts make their addresses themselves.
fn send() {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    socket.set_multicast_hops_v6(255).unwrap();
    let head = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let network = [3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x07, 0x08, 0, 0, 0, 0];
    let message = [&head[..], &network, &NETWORK].concat();
    let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, 0);
    // Before the pod's own address is out of doubt there is none to send from.
    let _ = socket.send_to(&message, &all_nodes.into());
}

fn addresses(device: &str) -> Vec<IpAddr> {
    let shown = shown(&["-6", "-o", "addr", "show", "dev", device, "scope", "global"]);
    let words = shown.split_whitespace().filter_map(|word| word.strip_suffix("/64"));
    words.filter_map(|word| word.parse().ok()).collect()
}

fn shown(words: &[&str]) -> String {
    let output = Command::new("ip").args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a program is on a device.
fn has(world: &World, program: &str, device: &str) -> bool {
    let shown = shown(&["-o", "link", "show", "dev", device]);
    let index = shown.split(':').next().unwrap_or_default();
    let name = format!("{program}_{index}");
    Kernel::attachments(&world.bpffs).unwrap().iter().any(|link| link.name == name)
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "not followed");
        thread::yield_now();
    }
}
