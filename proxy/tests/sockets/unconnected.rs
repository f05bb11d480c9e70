//! UDP sockets that are not connected: with whom their datagrams stay, and whose name answers bear.

use std::{
    cell::Cell,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
};

use fairlead_ebpf::abi::{FrontendKey, Reason, UDP};
use fairlead_proxy::{
    delta::Step,
    maps::{Maps as _, kernel::KernelMaps},
};

use super::{
    V4, V6, ask_datagram, at, datagrams, ip, start,
    support::{
        services::{frontend, replace, serve, unspecified},
        world::world,
    },
};

const FAMILIES: [(&str, [&str; 2]); 2] =
    [(V4, ["10.96.0.1:53", "10.96.0.2:53"]), (V6, ["[fd00:96::1]:53", "[fd00:96::2]:53"])];
/// More than any set has backends beside its frontend.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One server each, in the order of a set's slots.
fn servers(local: &str) -> Vec<(SocketAddr, &'static str)> {
    let mut servers = NAMES.map(|name| (serve(UDP, ip(local), name), name)).to_vec();
    servers.sort();
    servers
}

/// Makes `key` lead to these servers, as a set that has not been before.
fn lead(maps: &mut KernelMaps, set: &mut u32, key: FrontendKey, servers: &[(SocketAddr, &str)]) {
    *set += 1;
    let backends: Vec<_> = servers.iter().map(|(at, _)| (*at, 0)).collect();
    replace(maps, key, (*set, 1), &backends);
}

/// Each change of a Service's endpoints moved most of its clients, as a pod that is added to a name server's does.
#[test]
fn a_socket_stays_with_its_backend_whatever_becomes_of_the_others() {
    let name = "unconnected::a_socket_stays_with_its_backend_whatever_becomes_of_the_others";
    world(name, |world| {
        let (kernel, mut maps) = start(world);
        let (mut set, asked) = (0, Cell::new(0));
        for (local, [service, _]) in FAMILIES {
            let key = frontend(service, UDP);
            let all = servers(local);
            let (four, rest) = all.split_at(4);
            lead(&mut maps, &mut set, key, four);
            let ask = |socket: &UdpSocket| {
                asked.set(asked.get() + 1);
                ask_datagram(socket, at(service)).unwrap().0
            };
            let clients: Vec<(UdpSocket, String)> = (0..64)
                .map(|_| {
                    let socket = datagrams(unspecified(ip(local)));
                    let met = ask(&socket);
                    (socket, met)
                })
                .collect();
            let met = |name: &str| clients.iter().filter(|(_, met)| met == name).count();
            assert!(four.iter().all(|(_, name)| met(name) > 0), "{service}: each serves some");
            let assert_at = |sockets: &[&(UdpSocket, String)], what: &str| {
                for (socket, met) in sockets {
                    assert_eq!([ask(socket), ask(socket)], [met.clone(), met.clone()], "{what}");
                }
            };
            let everybody: Vec<_> = clients.iter().collect();
            lead(&mut maps, &mut set, key, &all);
            assert_at(&everybody, "two more, behind");
            lead(&mut maps, &mut set, key, four);
            assert_at(&everybody, "as it was");
            for (gone, (_, name)) in four.iter().enumerate() {
                let mut others = four.to_vec();
                others.remove(gone);
                lead(&mut maps, &mut set, key, &others);
                let stay: Vec<_> = clients.iter().filter(|(_, met)| met != name).collect();
                assert_at(&stay, "another has gone");
                lead(&mut maps, &mut set, key, four);
                assert_at(&stay, "it is back");
            }
            // New ones are led elsewhere: hints, policies, a drain.
            lead(&mut maps, &mut set, key.serving(), four);
            lead(&mut maps, &mut set, key, rest);
            assert_at(&everybody, "it serves, and new ones are led elsewhere");
            let newcomer = ask(&datagrams(unspecified(ip(local))));
            assert!(rest.iter().any(|(_, name)| *name == newcomer), "{newcomer}");
            lead(&mut maps, &mut set, key, &[]);
            assert_at(&everybody, "nobody for new ones");
            maps.apply(&Step::DeleteFrontends(vec![key.serving()])).unwrap();
            let refused = |(socket, _): &(UdpSocket, String)| {
                socket.send_to(b"?", at(service)).unwrap_err().kind()
            };
            assert!(clients.iter().map(refused).all(|kind| kind == ErrorKind::ConnectionRefused));
            lead(&mut maps, &mut set, key, rest);
            for (socket, met) in &clients {
                let now = ask(socket);
                assert!(rest.iter().any(|(_, name)| *name == now), "{now} for {met}");
                assert_eq!(ask(socket), now);
            }
        }
        let selected = maps.counters().unwrap()[&1].selected;
        assert_eq!(selected, asked.get(), "kept or chosen, each datagram counts");
        assert_eq!(kernel.drops().unwrap()[&Reason::PeerNotStored], 0);
    });
}

/// By its cookie alone each socket was given the same backend of both, and all its answers bore one name.
#[test]
fn sockets_choose_for_each_service_by_itself() {
    world("unconnected::sockets_choose_for_each_service_by_itself", |world| {
        let (_kernel, mut maps) = start(world);
        let mut set = 0;
        for (local, services) in FAMILIES {
            let servers = servers(local);
            for service in services {
                lead(&mut maps, &mut set, frontend(service, UDP), &servers);
            }
            let mut apart = 0;
            for _ in 0..64 {
                let socket = datagrams(unspecified(ip(local)));
                let [one, other] = services.map(|to| ask_datagram(&socket, at(to)).unwrap().0);
                if one != other {
                    apart += 1;
                    let mut answers = questions(&socket, services);
                    answers.sort();
                    assert_eq!(answers, services.map(at), "both asked before one answers");
                }
            }
            assert!(apart > 32, "{apart} of 64 have two backends, of six");
        }
    });
}

/// Answers bear the backend's address, and nothing tells by which Service it was asked.
#[test]
fn answers_of_one_backend_bear_the_name_of_the_service_that_was_asked_last() {
    let name =
        "unconnected::answers_of_one_backend_bear_the_name_of_the_service_that_was_asked_last";
    world(name, |world| {
        let (_kernel, mut maps) = start(world);
        let mut set = 0;
        for (local, services) in FAMILIES {
            let servers = servers(local);
            for service in services {
                lead(&mut maps, &mut set, frontend(service, UDP), &servers[..1]);
            }
            let socket = datagrams(unspecified(ip(local)));
            let last = at(services[1]);
            assert_eq!(questions(&socket, services), [last, last]);
        }
    });
}

/// Sends to both before it looks: where the answers seem to come from.
fn questions(socket: &UdpSocket, services: [&str; 2]) -> [SocketAddr; 2] {
    for service in services {
        socket.send_to(b"?", at(service)).unwrap();
    }
    services.map(|_| socket.recv_from(&mut [0; 16]).unwrap().1)
}
