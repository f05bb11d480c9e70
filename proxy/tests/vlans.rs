//! Tagged frames on an uplink are another network's: they are left as they are, tag and all, and come again without it on the
//! device of their VLAN, where the programs meet them as any other's.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{ffi::CStr, mem, thread, time::Instant};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};
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

/// A pod's end of its veth pair, for frames as they are.
struct Wire {
    socket: Socket,
}

impl Wire {
    /// The other end, the node's.
    const NODE: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

    fn of(pod: &Pod) -> Self {
        run(&format!("ip link set {} address 02:00:00:00:00:aa", pod.device()));
        let socket = pod.inside(|| {
            // No protocol: it receives nothing.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
            socket.bind(&link_address(c"eth0")).unwrap();
            socket
        });
        Self { socket }
    }

    fn send(&self, frame: &[u8]) {
        assert_eq!(self.socket.send(frame).unwrap(), frame.len());
    }
}

/// Of a device in this namespace (`struct sockaddr_ll`).
fn link_address(device: &CStr) -> SockAddr {
    // SAFETY: a string that ends.
    let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
    assert_ne!(index, 0, "{device:?}");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: an address of this family, for which there is room and of which every pattern of bits is one.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
    address.sll_ifindex = index.try_into().unwrap();
    let len = mem::size_of::<libc::sockaddr_ll>().try_into().unwrap();
    // SAFETY: it is as long as that.
    unsafe { SockAddr::new(storage, len) }
}
