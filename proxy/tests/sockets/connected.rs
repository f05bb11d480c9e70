//! UDP sockets that are connected: how the agent finds them when their backend is gone.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use fairlead_ebpf::abi::{Reason, UDP, name};
use fairlead_proxy::{Kernel, KernelOptions, MapSizes, maps::kernel::KernelMaps};
use socket2::{Domain, Socket, Type};

use super::{
    V4, V6, at, datagrams, ip, start,
    support::{
        services::{frontend, put, replace, serve, unspecified},
        world::{World, world},
    },
};

const FAMILIES: [(&str, &str); 2] = [(V4, "10.96.0.1:53"), (V6, "[fd00:96::1]:53")];
/// Each map of sockets has so much room.
const ROOM: u32 = 512;
/// Sockets that come and go: more than there is room for.
const LOOK_UPS: u32 = 8 * ROOM;

fn small(world: &World) -> KernelOptions {
    let sizes = MapSizes { connected_peers: ROOM, datagram_peers: ROOM, ..MapSizes::default() };
    KernelOptions { sizes, ..world.options() }
}

fn connected(to: SocketAddr) -> UdpSocket {
    let socket = datagrams(unspecified(to.ip()));
    socket.connect(to).unwrap();
    socket
}

/// Sockets there is a note of.
fn noted(bpffs: &Path) -> BTreeSet<[u8; 8]> {
    let pin = bpffs.join("fairlead/maps").join(name::CONNECTED_PEERS);
    let map = Map::HashMap(MapData::from_pin(pin).unwrap());
    let map = HashMap::<_, [u8; 32], [u8; 36]>::try_from(map).unwrap();
    map.keys().map(|key| key.unwrap()[..8].try_into().unwrap()).collect()
}

fn leads_nowhere(maps: &mut KernelMaps) {
    for (set, (_, service)) in (11..).zip(FAMILIES) {
        replace(maps, frontend(service, UDP), (set, set), &[]);
    }
}

/// Each look-up of a name is a socket of its own: after some minutes of them none that was older was ever ended.
#[test]
fn a_connected_socket_ends_with_its_backend_however_many_came_and_went() {
    let name = "connected::a_connected_socket_ends_with_its_backend_however_many_came_and_went";
    world(name, |world| {
        let kernel = Kernel::open(&small(world)).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        for (set, (local, service)) in (1..).zip(FAMILIES) {
            put(&mut maps, frontend(service, UDP), set, &[(serve(UDP, ip(local), "old"), 0)]);
        }
        let old = FAMILIES.map(|(_, service)| connected(at(service)));
        for _ in 0..LOOK_UPS {
            FAMILIES.iter().for_each(|(_, service)| drop(connected(at(service))));
        }
        assert_eq!(kernel.drops().unwrap()[&Reason::PeerNotStored], 0);
        assert_eq!(noted(&world.bpffs).len(), old.len(), "nobody looks for those that are gone");
        leads_nowhere(&mut maps);
        assert_eq!(kernel.end_stale_sockets().unwrap().sockets, old.len());
        for socket in old {
            let error = socket.recv(&mut [0; 16]).unwrap_err().kind();
            assert_eq!(error, ErrorKind::ConnectionAborted);
        }
    });
}

#[test]
fn a_socket_that_is_connected_elsewhere_or_closed_leaves_no_note() {
    world("connected::a_socket_that_is_connected_elsewhere_or_closed_leaves_no_note", |world| {
        let (_kernel, mut maps) = start(world);
        for (set, (local, service)) in (1..).zip(FAMILIES) {
            let [backend, direct] = ["backend", "direct"].map(|name| serve(UDP, ip(local), name));
            put(&mut maps, frontend(service, UDP), set, &[(backend, 0)]);
            let other = SocketAddr::new(at(service).ip(), 54);
            put(&mut maps, frontend(&other.to_string(), UDP), set + 10, &[(direct, 0)]);
            let refused = SocketAddr::new(at(service).ip(), 55);
            put(&mut maps, frontend(&refused.to_string(), UDP), set + 20, &[]);
            let notes = || noted(&world.bpffs).len();
            let socket = connected(at(service));
            let second = socket.try_clone().unwrap();
            for (name, to, expected) in [
                ("again", at(service), 1),
                ("another Service", other, 1),
                ("a backend by its own address", direct, 0),
                ("back", at(service), 1),
                ("a Service without endpoints", refused, 0),
                ("back again", at(service), 1),
            ] {
                assert_eq!(socket.connect(to).is_err(), to == refused, "{service}: {name}");
                assert_eq!(notes(), expected, "{service}: {name}");
            }
            drop(socket);
            assert_eq!(notes(), 1, "{service}: another descriptor of it is open");
            drop(second);
            assert_eq!(notes(), 0, "{service}");
        }
    });
}

/// What is beyond is served all the same, and counted.
#[test]
fn connected_sockets_beyond_the_maps_room_push_out_no_other() {
    world("connected::connected_sockets_beyond_the_maps_room_push_out_no_other", |world| {
        let kernel = Kernel::open(&small(world)).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        for (set, (local, service)) in (1..).zip(FAMILIES) {
            put(&mut maps, frontend(service, UDP), set, &[(serve(UDP, ip(local), "old"), 0)]);
        }
        let connect = |_| FAMILIES.map(|(_, service)| connected(at(service)));
        let sockets: Vec<_> = (0..ROOM / 2 + 10).flat_map(connect).collect();
        assert_eq!(kernel.drops().unwrap()[&Reason::PeerNotStored], 20);
        let (first, beyond) = sockets.split_at(usize::try_from(ROOM).unwrap());
        for socket in beyond {
            socket.send(b"?").unwrap();
            assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 3);
        }
        leads_nowhere(&mut maps);
        assert_eq!(kernel.end_stale_sockets().unwrap().sockets, first.len());
    });
}

/// Of the memory that a socket may have beside its buffers (`net.core.optmem_max`) a group that it is a member of takes some.
fn without_memory() -> UdpSocket {
    const LOOPBACK: u32 = 1;
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.bind(&at("[::]:0").into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let groups = (0..=u32::MAX).map(|number| Ipv6Addr::from((0xff05 << 112) + u128::from(number)));
    let refused =
        groups.map(|group| socket.join_multicast_v6(&group, LOOPBACK)).find_map(Result::err);
    assert_eq!(refused.unwrap().raw_os_error(), Some(libc::ENOMEM));
    socket
}

/// By its own memory the note is found as a socket closes: those of sockets without any stayed for ever, and a pod needs no right
/// to make as many as there is room for, after which no socket of the node ended with its endpoint.
#[test]
fn attack_sockets_that_have_no_memory_left_leave_no_notes() {
    world("connected::attack_sockets_that_have_no_memory_left_leave_no_notes", |world| {
        let (kernel, mut maps) = start(world);
        let mut refused = 0;
        for (set, (local, service)) in (1..).zip(FAMILIES) {
            put(&mut maps, frontend(service, UDP), set, &[(serve(UDP, ip(local), "old"), 0)]);
            let socket = without_memory();
            let service = at(service);
            let to = match service.ip() {
                IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), service.port()),
                IpAddr::V6(_) => service,
            };
            socket.connect(to).unwrap();
            socket.send(b"?").unwrap();
            assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 3, "{service}: it is served");
            refused += 1;
            assert_eq!(kernel.drops().unwrap()[&Reason::PeerNotStored], refused, "{service}");
            drop(socket);
            assert_eq!(noted(&world.bpffs).len(), 0, "{service}");
        }
    });
}
