//! What was an uplink keeps its programs while it is down or without an address; addresses are followed at once.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Instant,
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP};
use fairlead_proxy::{Devices, Kernel, KernelOptions};

use crate::support::{
    followed::{DEADLINE, Follower, echo_tcp},
    frames::Packet,
    services::{node_port, put},
    world::{Pod, World, run, world},
};

/// A macvlan, and the node's address on it.
const UPPER: &str = "mv0";
const UPPER_ADDRESS: &str = "10.98.9.1";
/// Where pods' addresses come from: those of the second pod's device.
const PODS: [&str; 2] = ["10.99.2.0/24", "fd99:0:0:2::/64"];

/// `ip link set down; up`, as of a network manager that starts anew: for as long as the programs were gone, what came by the
/// connections was the node's own stack's, which reset them.
#[test]
fn bug_an_uplink_that_is_down_for_a_moment_keeps_its_programs_and_connections() {
    let name =
        "lasting::bug_an_uplink_that_is_down_for_a_moment_keeps_its_programs_and_connections";
    world(name, |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let mut follower = start(world, client.node_addresses());
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        let server = backend.inside(|| echo_tcp(backend.own_address(true)));
        put(&mut maps, node_port(true, 30080, TCP), 1, &[(server, BACKEND_LOCAL)]);
        let mut stream = greeted(&client, SocketAddr::new(client.node_address(true), 30080));
        let before = links(world);
        run(&format!("ip link set {} down", client.device()));
        has_seen(&follower, 1);
        assert_eq!(links(world), before, "down");
        // One that starts meanwhile finds them, and nothing else to know it by.
        drop(follower);
        follower = start(world, client.node_addresses());
        has_seen(&follower, 2);
        assert_eq!(links(world), before, "after a start");
        run(&format!("ip link set {} up", client.device()));
        stream.write_all(b"still there?").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still there?");
        has_seen(&follower, 3);
        assert_eq!(links(world), before, "up again");
    });
}

/// As at the end of a DHCP lease. It ends with the device, here or in another namespace.
#[test]
fn bug_an_uplink_without_its_address_keeps_its_programs_as_long_as_it_is_there() {
    let name =
        "lasting::bug_an_uplink_without_its_address_keeps_its_programs_as_long_as_it_is_there";
    world(name, |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        let card = client.device();
        let own = vec![UPPER_ADDRESS.parse().unwrap()];
        let follower = start(world, own);
        follower.wait_for(world, 2);
        let below = links(world);
        for (what, end) in [
            ("deleted", format!("ip link delete {UPPER}")),
            ("moved away", format!("ip link set {UPPER} netns {}p2", world.name)),
        ] {
            run(&format!("ip link add {UPPER} link {card} type macvlan mode bridge"));
            run(&format!("ip link set {UPPER} up"));
            run(&format!("ip addr add {UPPER_ADDRESS}/24 dev {UPPER}"));
            follower.wait_for(world, 3);
            let before = links(world);
            assert!(is_served(&follower, UPPER_ADDRESS));
            run(&format!("ip addr del {UPPER_ADDRESS}/24 dev {UPPER}"));
            has_seen(&follower, 1);
            assert_eq!(links(world), before, "{what}: no address");
            assert!(!is_served(&follower, UPPER_ADDRESS), "{what}: it is no address of the node's");
            run(&end);
            has_seen(&follower, 2);
            assert_eq!(links(world), below, "{what}");
            forget();
        }
        drop(backend);
    });
}

fn start(world: &World, own: Vec<IpAddr>) -> Follower {
    let options = KernelOptions { devices: Devices::Auto, ..world.options() };
    Follower::start_with(&options, own, &PODS)
}

/// Ids of links, by name: the same as long as nothing is taken away.
fn links(world: &World) -> BTreeMap<String, u32> {
    let links = Kernel::attachments(&world.bpffs).unwrap();
    links.into_iter().map(|link| (link.name, link.link_id)).collect()
}

/// A connection that was answered.
fn greeted(client: &Pod, to: SocketAddr) -> TcpStream {
    let stream = client.inside(|| TcpStream::connect_timeout(&to, DEADLINE)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut greeting = String::new();
    BufReader::new(&stream).read_line(&mut greeting).unwrap();
    assert_eq!(greeting.trim(), client.own_address(true).to_string());
    stream
}

/// Waits until the follower has seen all there was before, and done all it wants: addresses that the node gets are known to the
/// programs before devices are, so that a second one shows what became of the first.
fn has_seen(follower: &Follower, turn: u8) {
    for host in [2 * turn, 2 * turn + 1] {
        let address = format!("10.97.0.{host}");
        run(&format!("ip addr add {address}/32 dev lo"));
        let begun = Instant::now();
        while !is_served(follower, &address) {
            assert!(begun.elapsed() < DEADLINE, "{address} is not known");
            std::thread::yield_now();
        }
    }
}

/// Takes those addresses away.
fn forget() {
    run("ip addr flush dev lo to 10.97.0.0/24");
}

/// Whether a NodePort answers there.
fn is_served(follower: &Follower, address: &str) -> bool {
    let mut maps = follower.kernel.maps().unwrap();
    put(&mut maps, node_port(true, 30081, TCP), 2, &[]);
    let frame = Packet::first(TCP, "203.0.113.9:40000", &format!("{address}:30081")).frame();
    let run = follower.kernel.run_on_packet("uplink_ingress", &frame, 1).unwrap();
    // Refused: it becomes its own answer.
    run.packet != frame
}
