//! Tagged frames on an uplink are another network's: they are left as they are, tag and all, and come again without it on the
//! device of their VLAN, where the programs meet them as any other's. A tag of VLAN 0 says a priority and no network: its frame
//! is one of the device's own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{ffi::CStr, io::Read as _, mem, net::SocketAddr, thread, time::Instant};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use support::{
    followed::{DEADLINE, Follower},
    frames::Packet,
    services::{node_port, put},
    uplink::{IN, NEXT, OUT, POD, Uplink, at},
    world::{Pod, run, world},
};

mod support {
    pub(crate) mod followed;
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

/// IEEE 802.1Q, and 802.1ad around it.
const TAGS: [&[u8]; 2] = [&[0x81, 0x00, 0, 100], &[0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 100]];
/// The highest priority and the lowest, of either kind of tag (IEEE 802.1p).
const PRIORITIES: [&[u8]; 3] =
    [&[0x81, 0x00, 0xe0, 0], &[0x81, 0x00, 0, 0], &[0x88, 0xa8, 0xe0, 0]];

/// The frame with tags behind its addresses.
fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    [&frame[..12], tags, &frame[12..]].concat()
}

/// As a device hands them over that takes no tags off.
#[test]
fn tags_within_frames_keep_them_from_being_translated_answered_or_counted() {
    world("tags_within_frames_keep_them_from_being_translated_answered_or_counted", |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], BACKEND_LOCAL);
        uplink.put(node_port(true, 30081, TCP), 2, &[], 0);
        let first = Packet::first(TCP, "203.0.113.9:40000", "192.168.0.2:30080");
        let refused = Packet::first(TCP, "203.0.113.9:40000", "192.168.0.2:30081");
        // The same addresses without a tag: a connection whose replies look like those of the other network.
        let open = Packet::first(TCP, "203.0.113.9:40001", "192.168.0.2:30080");
        let reply = uplink.pass(IN, &open).reply();
        assert_eq!(uplink.pass(OUT, &reply).from, at("192.168.0.2:30080"));
        for tags in TAGS {
            for (hook, packet) in [(IN, &first), (POD, &first), (IN, &refused), (OUT, &reply)] {
                let frame = tagged(&packet.frame(), tags);
                assert_eq!(uplink.verdict(hook, &frame), NEXT, "{hook} {packet:?} {tags:x?}");
            }
        }
        assert_eq!((uplink.services(1), uplink.services(2)), ((1, 0), (0, 0)));
        assert!(uplink.kernel.drops().unwrap().values().all(|count| *count == 0));
    });
}

/// The kernel takes a tag out of the frame before the programs see it, and keeps it beside: the bytes are those of a frame
/// without.
#[test]
fn tags_beside_frames_keep_them_from_being_translated_or_answered() {
    world("tags_beside_frames_keep_them_from_being_translated_or_answered", |world| {
        let client = world.pod(1);
        let follower = Follower::start(world, &[client.device()]);
        follower.wait_for(world, 1);
        let mut maps = follower.kernel.maps().unwrap();
        put(&mut maps, node_port(true, 30080, UDP), 1, &[(at("10.99.1.1:9"), BACKEND_LOCAL)]);
        put(&mut maps, node_port(true, 30081, UDP), 2, &[]);
        let wire = Wire::of(&client);
        let to_node = |to: &str| {
            let frame = Packet::first(UDP, "10.99.1.2:40000", to).frame();
            [&Wire::NODE[..], &[2; 6], &frame[12..]].concat()
        };
        let [served, refused] = ["10.99.1.1:30080", "10.99.1.1:30081"].map(to_node);
        for tags in TAGS {
            wire.send(&tagged(&served, tags));
            wire.send(&tagged(&refused, tags));
        }
        // Behind those on the same wire.
        wire.send(&served);
        let begun = Instant::now();
        let selected =
            || follower.kernel.services(9).unwrap().get(&1).map_or(0, |one| one.selected);
        while selected() == 0 {
            assert!(begun.elapsed() < DEADLINE, "what has no tag is served");
            thread::yield_now();
        }
        assert_eq!(selected(), 1, "and nothing else was");
        assert!(!follower.kernel.services(9).unwrap().contains_key(&2), "nor refused");
    });
}

/// A switch or a machine that sorts its packets by priority (profinet, voice, storage) tags them so; the kernel takes them for
/// the device's own, and they were let through untranslated, both ways. A bridge keeps the tag on its way out.
#[test]
fn frames_that_are_tagged_with_a_priority_alone_are_translated_both_ways() {
    let name = "frames_that_are_tagged_with_a_priority_alone_are_translated_both_ways";
    world(name, |world| {
        let [client, backend] = [1, 2].map(|number| world.pod(number));
        let wires = [&client, &backend].map(Wire::listening);
        run("ip link add bridge type bridge mcast_snooping 0");
        run("ip link set bridge up");
        for pod in [&client, &backend] {
            run(&format!("ip link set {} master bridge", pod.device()));
        }
        let own = client.node_addresses();
        let follower = Follower::start_on(world, &[client.device()], own);
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        let tags = PRIORITIES.into_iter().chain([&[][..]]);
        let all = tags.flat_map(|tag| [true, false].map(|is_ipv4| (tag, is_ipv4)));
        for (port, (tag, is_ipv4)) in (40_000..).zip(all) {
            let [from, to, behind] = [
                (client.own_address(is_ipv4), port),
                (client.node_address(is_ipv4), 30080),
                (backend.own_address(is_ipv4), 9999),
            ]
            .map(SocketAddr::from);
            let set = 1 + u32::from(is_ipv4);
            put(&mut maps, node_port(is_ipv4, 30080, UDP), set, &[(behind, BACKEND_LOCAL)]);
            let first = Packet::first(UDP, &from.to_string(), &to.to_string());
            let there = wires[0].crosses(&tagged(&to_all(&first.frame()), tag), &wires[1], behind);
            assert_eq!((there.from, there.to), (from, behind), "{tag:x?}");
            let reply = to_all(&there.reply().frame());
            let back = wires[1].crosses(&tagged(&reply, tag), &wires[0], from);
            assert_eq!((back.from, back.to), (to, from), "{tag:x?}");
        }
        follower.assert_nothing_dropped();
    });
}

/// To a station that no bridge knows, and so to each of its ports.
fn to_all(frame: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 9, 9][..], &frame[6..]].concat()
}

/// A pod's end of its veth pair, for frames as they are.
struct Wire {
    socket: Socket,
}

impl Wire {
    /// The other end, the node's.
    const NODE: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

    fn of(pod: &Pod) -> Self {
        run(&format!("ip link set {} address 02:00:00:00:00:aa", pod.device()));
        // No protocol: it receives nothing.
        Self::with_protocol(pod, 0)
    }

    /// One that receives all there is.
    fn listening(pod: &Pod) -> Self {
        let wire = Self::with_protocol(pod, libc::ETH_P_ALL);
        wire.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        wire
    }

    fn with_protocol(pod: &Pod, protocol: i32) -> Self {
        let protocol = u16::try_from(protocol).unwrap().to_be();
        let socket = pod.inside(|| {
            let kind = Some(Protocol::from(i32::from(protocol)));
            let socket = Socket::new(Domain::PACKET, Type::RAW, kind).unwrap();
            socket.bind(&link_address(c"eth0", protocol)).unwrap();
            socket
        });
        Self { socket }
    }

    /// What arrives at the other wire, for this receiver, of a frame with a datagram. (What that one sends is seen there, too.)
    fn crosses(&self, frame: &[u8], other: &Self, to: SocketAddr) -> Packet {
        self.send(frame);
        let (mut socket, mut buffer) = (&other.socket, [0; 2048]);
        loop {
            let len = socket.read(&mut buffer).unwrap();
            let frame = &buffer[..len];
            // Neighbours ask for each other meanwhile.
            let is_datagram = match frame.get(12..14) {
                Some([0x08, 0x00]) => frame.get(23) == Some(&UDP),
                Some([0x86, 0xdd]) => frame.get(20) == Some(&UDP),
                _ => false,
            };
            if is_datagram {
                let packet = Packet::read(frame);
                if packet.to == to {
                    return packet;
                }
            }
        }
    }

    fn send(&self, frame: &[u8]) {
        assert_eq!(self.socket.send(frame).unwrap(), frame.len());
    }
}

/// Of a device in this namespace (`struct sockaddr_ll`), with a protocol in network byte order.
fn link_address(device: &CStr, protocol: u16) -> SockAddr {
    // SAFETY: a string that ends.
    let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
    assert_ne!(index, 0, "{device:?}");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: an address of this family, for which there is room and of which every pattern of bits is one.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    address.sll_protocol = protocol;
    address.sll_ifindex = index.try_into().unwrap();
    let len = mem::size_of::<libc::sockaddr_ll>().try_into().unwrap();
    // SAFETY: it is as long as that.
    unsafe { SockAddr::new(storage, len) }
}
