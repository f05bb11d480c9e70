//! What Services' clients send and get, where that is counted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
};

use aya::maps::{HashMap, Map, MapData};
use fairlead_ebpf::abi::{
    BACKEND_LOCAL, CONNECTION_COUNTED, Connection, Reason, ServiceBytes, TCP, UDP, name,
};
use fairlead_proxy::{Kernel, KernelOptions, MapSizes, maps::Maps as _};
use support::{
    frames::Packet,
    services::{frontend, node_port, put},
    uplink::{DROP, IN, OUT, Uplink, at},
    world::{World, world},
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

const ASKED: usize = 100_000;
const ANSWERED: usize = 200_000;
const ETHERNET: usize = 14;

fn counting(world: &World) -> KernelOptions {
    KernelOptions { sizes: MapSizes { bytes: 8, ..MapSizes::default() }, ..world.options() }
}

fn bytes(kernel: &Kernel, service: u32) -> ServiceBytes {
    kernel.services(u32::MAX).unwrap().remove(&service).unwrap_or_default().bytes
}

/// Hears what it is asked until there is no more, and answers then.
fn server(at: &str) -> SocketAddr {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut asked = Vec::new();
                stream.read_to_end(&mut asked).unwrap();
                stream.write_all(&vec![b'a'; 2 * asked.len()]).unwrap();
            });
        }
    });
    address
}

/// Until the server has closed the connection, too: then this end is done with it.
fn finish(mut stream: TcpStream) {
    stream.write_all(&vec![b'q'; ASKED]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), ANSWERED);
}

/// TCP counts the beginning and the end of a connection as a byte each.
fn is_about(counted: u64, expected: usize) -> bool {
    (expected..=expected + 2).contains(&usize::try_from(counted).unwrap())
}

#[test]
fn sockets_are_counted_for_their_service_when_they_close() {
    world("sockets_are_counted_for_their_service_when_they_close", |world| {
        let kernel = Kernel::open(&counting(world)).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        let (v4, v6) = (server("127.0.0.1:0"), server("[::1]:0"));
        put(&mut maps, frontend("10.96.0.1:80", TCP), 1, &[(v4, 0)]);
        put(&mut maps, frontend("[fd00:96::1]:80", TCP), 2, &[(v6, 0)]);
        put(&mut maps, node_port(true, 30080, TCP), 3, &[(v4, 0)]);
        for (service, dialled) in
            [(1, "10.96.0.1:80"), (2, "[fd00:96::1]:80"), (3, "127.0.0.1:30080")]
        {
            let stream = TcpStream::connect(at(dialled)).unwrap();
            assert_eq!(bytes(&kernel, service), ServiceBytes::default(), "{dialled} is open");
            finish(stream);
            let counted = bytes(&kernel, service);
            assert!(is_about(counted.sockets_to, ASKED), "{dialled}: {counted:?}");
            assert!(is_about(counted.sockets_from, ANSWERED), "{dialled}: {counted:?}");
            assert_eq!((counted.packets_to, counted.packets_from), (0, 0), "not twice");
        }
        let before = kernel.services(u32::MAX).unwrap();
        finish(TcpStream::connect(v4).unwrap());
        assert_eq!(kernel.services(u32::MAX).unwrap(), before, "no Service was dialled");
    });
}

#[test]
fn a_socket_that_outlives_its_agent_is_counted_by_the_next_that_counts() {
    world("a_socket_that_outlives_its_agent_is_counted_by_the_next_that_counts", |world| {
        let first = Kernel::open(&counting(world)).unwrap();
        let report = first.attach().unwrap();
        assert_eq!((report.adopted, report.created), (0, 10));
        let mut maps = first.maps().unwrap();
        put(&mut maps, frontend("10.96.0.1:80", TCP), 1, &[(server("127.0.0.1:0"), 0)]);
        let open = || TcpStream::connect(at("10.96.0.1:80")).unwrap();
        let [earlier, later] = [open(), open()];
        drop(first);
        let second = Kernel::open(&counting(world)).unwrap();
        let report = second.attach().unwrap();
        assert_eq!((report.adopted, report.created), (10, 0));
        finish(earlier);
        let counted = bytes(&second, 1);
        assert!(is_about(counted.sockets_from, ANSWERED), "{counted:?}");
        drop(second);

        let is_attached = || {
            let links = Kernel::attachments(&world.bpffs).unwrap();
            links.iter().any(|link| link.name == "socket_bytes")
        };
        assert!(is_attached());
        let third = Kernel::open(&world.options()).unwrap();
        third.attach().unwrap();
        assert!(!is_attached() && third.is_in_place(), "nobody asks for it any more");
        finish(later);
        finish(open());
        assert_eq!(bytes(&third, 1), ServiceBytes::default());
        assert_eq!(third.services(1).unwrap()[&1].selected, 3, "other counters go on");
    });
}

#[test]
fn packets_are_counted_for_their_service_each_way_and_once() {
    world("packets_are_counted_for_their_service_each_way_and_once", |world| {
        let mut uplink = Uplink::new(&counting(world));
        let cases = [
            (1, BACKEND_LOCAL, TCP, "203.0.113.9:40000", "192.168.0.2:30080", "10.244.1.5:80"),
            (2, 0, UDP, "203.0.113.9:40001", "192.168.0.2:30081", "10.244.2.5:80"),
            (3, 0, TCP, "[2001:db8:9::9]:40002", "[2001:db8::2]:30082", "[fd00:10::5]:80"),
        ];
        for (set, flags, protocol, client, dialled, backend) in cases {
            let key = node_port(!dialled.starts_with('['), at(dialled).port(), protocol);
            uplink.put(key, set, &[backend], flags);
            let first = Packet::first(protocol, client, dialled);
            let (mut to, mut from) = (0, 0);
            for packet in [first.clone(), first.later(), first.later()] {
                let mut inside = uplink.pass(IN, &packet);
                to += packet.frame().len() - ETHERNET;
                if flags == 0 {
                    inside = uplink.pass(OUT, &inside);
                }
                let mut reply = inside.reply();
                from += reply.frame().len() - ETHERNET;
                if flags == 0 {
                    reply = uplink.pass(IN, &reply);
                }
                uplink.pass(OUT, &reply);
            }
            let counted = bytes(&uplink.kernel, set);
            let expected = [to, from].map(|len| u64::try_from(len).unwrap());
            assert_eq!([counted.packets_to, counted.packets_from], expected, "{dialled}");
            assert_eq!((counted.sockets_to, counted.sockets_from), (0, 0), "{dialled}");
        }
        // Beyond those that have room; and what is refused goes nowhere.
        uplink.put(node_port(true, 30083, TCP), 9, &["10.244.1.5:80"], BACKEND_LOCAL);
        let first = Packet::first(TCP, "203.0.113.9:40003", "192.168.0.2:30083");
        uplink.pass(IN, &first);
        uplink.put(node_port(true, 30084, TCP), 4, &[], 0);
        let refused = Packet::first(TCP, "203.0.113.9:40004", "192.168.0.2:30084");
        assert_ne!(uplink.verdict_of(IN, &refused.frame()), DROP);
        let none = ServiceBytes::default();
        assert_eq!([9, 4].map(|set| bytes(&uplink.kernel, set)), [none, none]);
        assert_eq!(uplink.count(Reason::NotCounted), 0, "its connections are");
    });
}

/// Makes what is remembered of connections as earlier versions wrote it: the backend's slot where this one
/// has the counter. How many entries there are.
fn with_slots(bpffs: &Path, slot: u32) -> usize {
    let mut count = 0;
    for name in [name::CONNECTIONS, name::OPENINGS] {
        let data = MapData::from_pin(bpffs.join("fairlead/maps").join(name)).unwrap();
        let mut table = HashMap::<_, [u8; 40], [u8; 36]>::try_from(Map::LruHashMap(data)).unwrap();
        let entries: Vec<_> = table.iter().map_while(Result::ok).collect();
        for (key, value) in entries {
            let entry: Connection = bytemuck::pod_read_unaligned(&value);
            let state = entry.state & !CONNECTION_COUNTED;
            let earlier = Connection { counter_id: slot, state, ..entry };
            let earlier: [u8; 36] = bytemuck::bytes_of(&earlier).try_into().unwrap();
            table.insert(key, earlier, 0).unwrap();
            count += 1;
        }
    }
    count
}

/// With maps of another name for a word that nobody had read, an upgrade ended every connection that came from
/// outside.
#[test]
fn connections_of_an_earlier_version_go_on_and_are_counted_for_nobody() {
    let name = "connections_of_an_earlier_version_go_on_and_are_counted_for_nobody";
    world(name, |world| {
        let mut uplink = Uplink::new(&counting(world));
        // Of as many Services as bytes are counted of, so that each slot would be one of them.
        for set in 1..8u16 {
            uplink.put(
                node_port(true, 30080 + set, TCP),
                set.into(),
                &["10.244.1.5:80"],
                BACKEND_LOCAL,
            );
        }
        let first = Packet::first(TCP, "203.0.113.9:40000", "192.168.0.2:30081");
        let there_and_back = |packet: &Packet| {
            let inside = uplink.pass(IN, packet);
            assert_eq!(inside.to, at("10.244.1.5:80"));
            let back = uplink.pass(OUT, &inside.reply());
            assert_eq!((back.from, back.to), (packet.to, packet.from));
        };
        there_and_back(&first);
        let counted = || [1, 2, 3, 4, 5, 6, 7].map(|set| bytes(&uplink.kernel, set));
        let before = counted();
        assert_ne!(before[0], ServiceBytes::default(), "this version's are counted");
        let is_named = || uplink.maps.named_by_connections().unwrap().contains(&1);
        assert!(is_named(), "and their id is given to no other Service meanwhile");
        for slot in 0..8 {
            assert_eq!(with_slots(&world.bpffs, slot), 2);
            there_and_back(&first.later());
            assert_eq!(counted(), before, "slot {slot}");
            assert!(!is_named(), "slot {slot}");
        }
    });
}
