//! What the programs tell of their decisions, while somebody asks and not otherwise.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::net::{SocketAddr, UdpSocket};

use bytemuck::Zeroable as _;
use fairlead_ebpf::abi::{
    BACKEND_LOCAL, FRONTEND_DROPS, FRONTEND_SOURCE_RANGES, FrontendKey, FrontendValue, Reason, TCP,
    UDP,
};
use fairlead_proxy::{
    Kernel, KernelOptions,
    delta::Step,
    live::{Client, Hook, Outcome, Target, Told, Wanted},
    maps::{Maps as _, kernel::KernelMaps},
    namespaces,
};
use fairlead_state::model::Protocol;
use support::{
    frames::Packet,
    services::{ask_tcp, frontend, node_port, put, serve},
    uplink::{DROP, IN, OUT, POD, REDIRECT, Uplink, at},
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

const ALL: Wanted = Wanted { one_in: 1, client: None, target: None };

/// A frontend without backends.
fn put_empty(maps: &mut KernelMaps, key: FrontendKey, counter_id: u32, flags: u16) {
    let service_port = key.port;
    let value = FrontendValue { counter_id, flags, service_port, ..FrontendValue::zeroed() };
    maps.apply(&Step::PutFrontends(vec![(key, value.into())])).unwrap();
}

fn options(of: &KernelOptions) -> KernelOptions {
    let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap());
    KernelOptions { service_cidrs: cidrs.into(), ..of.clone() }
}

/// Where, by whom, what, and what became of it.
fn seen(told: &Told) -> (Hook, String, String, u32, Outcome, Option<Reason>) {
    let client = told.client.map(|client| client.to_string()).unwrap_or_default();
    let Told { hook, dialled, counter_id, outcome, reason, .. } = told;
    (*hook, client, dialled.to_string(), *counter_id, *outcome, *reason)
}

#[test]
fn each_kind_of_decision_about_a_packet_is_told_once_and_established_packets_never() {
    world(
        "each_kind_of_decision_about_a_packet_is_told_once_and_established_packets_never",
        |world| {
            let mut uplink = Uplink::new(&options(&world.options()));
            uplink.kernel.live().tell(&ALL).unwrap();
            let (client, pod) = ("203.0.113.9:40000", "10.244.0.9:40000");
            uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], BACKEND_LOCAL);
            uplink.put(frontend("[fd00:96::1]:53", UDP), 2, &["[fd00:10::5]:53"], 0);
            put_empty(&mut uplink.maps, frontend("10.96.0.3:80", TCP), 3, 0);
            put_empty(&mut uplink.maps, frontend("10.96.0.4:80", TCP), 4, FRONTEND_DROPS);
            put_empty(&mut uplink.maps, frontend("10.96.0.5:80", TCP), 5, FRONTEND_SOURCE_RANGES);
            let others = FrontendKey::other_ports(frontend("10.96.0.3:80", TCP).address);
            put_empty(&mut uplink.maps, others, 3, 0);

            let first = Packet::first(TCP, client, "192.168.0.2:30080");
            let datagram = Packet::first(UDP, "[2001:db8:9::9]:40000", "[fd00:96::1]:53");
            for packet in [&first, &datagram] {
                for packet in [packet.clone(), packet.clone(), packet.later(), packet.later()] {
                    let inside = uplink.pass(IN, &packet);
                    uplink.pass(OUT, &inside.reply());
                }
            }
            let no_service = Packet::first(TCP, client, "192.0.2.7:80");
            uplink.pass(IN, &no_service);
            for (hook, from, to, verdict) in [
                (POD, pod, "10.96.0.3:80", REDIRECT),
                (IN, client, "10.96.0.3:81", REDIRECT),
                (IN, client, "10.96.0.4:80", DROP),
                (IN, client, "10.96.0.5:80", DROP),
                (POD, pod, "10.96.200.1:80", DROP),
                (OUT, pod, "10.96.0.9:80", DROP),
            ] {
                let frame = Packet::first(TCP, from, to).frame();
                assert_eq!(uplink.verdict_of(hook, &frame), verdict, "{hook} {to}");
            }
            let told = uplink.kernel.live().take();
            let served = |to: &str| Outcome::Served(at(to));
            use Outcome::{Dropped, Rejected};
            let (v6, text) = ("[2001:db8:9::9]:40000", str::to_owned);
            let expected = [
                (Hook::Uplink, client, "192.168.0.2:30080", 1, served("10.244.1.5:8080"), None),
                (Hook::Uplink, v6, "[fd00:96::1]:53", 2, served("[fd00:10::5]:53"), None),
                (Hook::Pod, pod, "10.96.0.3:80", 3, Rejected, Some(Reason::NoBackends)),
                (Hook::Uplink, client, "10.96.0.3:81", 3, Rejected, Some(Reason::UnusedPort)),
                (Hook::Uplink, client, "10.96.0.4:80", 4, Dropped, Some(Reason::NoLocalBackends)),
                (Hook::Uplink, client, "10.96.0.5:80", 5, Dropped, Some(Reason::SourceDenied)),
                (Hook::Pod, pod, "10.96.200.1:80", 0, Dropped, Some(Reason::UnallocatedAddress)),
                // Of any protocol: of the packet that leaks, its addresses are told.
                (
                    Hook::Egress,
                    "10.244.0.9:0",
                    "10.96.0.9:0",
                    0,
                    Dropped,
                    Some(Reason::ServiceAddressLeak),
                ),
            ];
            let expected = expected.map(|(hook, from, to, service, outcome, reason)| {
                (hook, text(from), text(to), service, outcome, reason)
            });
            assert_eq!(told.iter().map(seen).collect::<Vec<_>>(), expected);
            assert!(told.is_sorted_by_key(|told| told.at_ns) && told[0].at_ns > 0);
            let refused = [3, 4, 5].map(|set| uplink.refused(set));
            let reasons = [
                [(Reason::NoBackends, 1), (Reason::UnusedPort, 1)].into(),
                [(Reason::NoLocalBackends, 1)].into(),
                [(Reason::SourceDenied, 1)].into(),
            ];
            assert_eq!(refused, reasons, "counted, too");
            assert_eq!(told[1].protocol, Some(Protocol::Udp));
            assert_eq!((told[2].service_port, told[3].service_port), (80, 0));
            assert!(told.iter().all(|told| told.caller.is_none()));
        },
    );
}

#[test]
fn calls_are_told_with_who_called_and_unconnected_datagrams_once_for_each_backend() {
    world(
        "calls_are_told_with_who_called_and_unconnected_datagrams_once_for_each_backend",
        |world| {
            let kernel = Kernel::open(&options(&world.options())).unwrap();
            kernel.attach().unwrap();
            let mut maps = kernel.maps().unwrap();
            let v4 = "127.0.0.1".parse().unwrap();
            let (tcp, udp) = (serve(TCP, v4, "tcp"), serve(UDP, v4, "udp"));
            put(&mut maps, frontend("10.96.0.1:80", TCP), 1, &[(tcp, 0)]);
            put(&mut maps, frontend("10.96.0.1:53", UDP), 2, &[(udp, 0)]);
            put_empty(&mut maps, frontend("10.96.0.3:80", TCP), 3, 0);
            put_empty(&mut maps, frontend("10.96.0.4:80", TCP), 4, FRONTEND_DROPS);
            kernel.live().tell(&ALL).unwrap();
            ask_tcp(at("10.96.0.1:80")).unwrap();
            let socket = UdpSocket::bind((v4, 0)).unwrap();
            for _ in 0..3 {
                socket.send_to(b"?", at("10.96.0.1:53")).unwrap();
            }
            for refused in ["10.96.0.3:80", "10.96.0.4:80", "10.96.200.1:80"] {
                ask_tcp(at(refused)).unwrap_err();
            }
            let told = kernel.live().take();
            use Outcome::{Dropped, Rejected, Served};
            let expected = [
                ("10.96.0.1:80", 1, Served(tcp), None),
                ("10.96.0.1:53", 2, Served(udp), None),
                ("10.96.0.3:80", 3, Rejected, Some(Reason::NoBackends)),
                ("10.96.0.4:80", 4, Dropped, Some(Reason::NoLocalBackends)),
                ("10.96.200.1:80", 0, Rejected, Some(Reason::UnallocatedAddress)),
            ];
            let expected = expected.map(|(to, service, outcome, reason)| {
                (Hook::Socket, String::new(), to.to_owned(), service, outcome, reason)
            });
            assert_eq!(told.iter().map(seen).collect::<Vec<_>>(), expected);
            for told in &told {
                let caller = told.caller.as_ref().unwrap();
                assert_eq!(caller.pid, std::process::id());
                assert!(!caller.name.is_empty());
                assert!(namespaces::read().iter().any(|of| of.cookie == caller.netns_cookie));
            }
        },
    );
}

#[test]
fn only_what_is_asked_for_is_told_and_after_the_end_nothing() {
    world("only_what_is_asked_for_is_told_and_after_the_end_nothing", |world| {
        let mut uplink = Uplink::new(&options(&world.options()));
        uplink.put(node_port(true, 30080, UDP), 1, &["10.244.1.5:8080"], BACKEND_LOCAL);
        uplink.put(frontend("10.96.0.1:80", UDP), 1, &["10.244.1.5:8080"], BACKEND_LOCAL);
        uplink.put(frontend("10.96.0.2:80", UDP), 2, &["10.244.1.6:8080"], BACKEND_LOCAL);
        let mut port = 40000u16;
        let mut dial = |uplink: &Uplink| {
            for client in ["203.0.113.8", "203.0.113.9"] {
                for to in ["192.168.0.2:30080", "10.96.0.1:80", "10.96.0.2:80"] {
                    port += 1;
                    uplink.pass(IN, &Packet::first(UDP, &format!("{client}:{port}"), to));
                }
            }
            let told = uplink.kernel.live().take();
            told.iter().map(|told| told.dialled.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(dial(&uplink), [""; 0], "nobody has asked");
        let address = "203.0.113.9".parse().unwrap();
        let client = Some(Client { address, netns_cookie: None });
        let target = |to: &str, service| {
            let to: SocketAddr = to.parse().unwrap();
            Some(Target { to, protocol: Protocol::Udp, service })
        };
        let web = target("10.96.0.1:80", Some((1, 80)));
        let [node, cluster, other] = ["192.168.0.2:30080", "10.96.0.1:80", "10.96.0.2:80"];
        for (wanted, expected) in [
            (ALL, vec![node, cluster, other, node, cluster, other]),
            (Wanted { client, ..ALL }, vec![node, cluster, other]),
            (Wanted { target: web, ..ALL }, vec![node, cluster, node, cluster]),
            (Wanted { client, target: web, ..ALL }, vec![node, cluster]),
            (Wanted { target: target(other, None), ..ALL }, vec![other, other]),
        ] {
            uplink.kernel.live().tell(&wanted).unwrap();
            assert_eq!(dial(&uplink), expected, "{wanted:?}");
        }
        uplink.kernel.live().tell(&Wanted { one_in: 4, ..ALL }).unwrap();
        let told: usize = (0..200).map(|_| dial(&uplink).len()).sum();
        assert!((200..400).contains(&told), "{told} of 1200, one in four");
        uplink.kernel.live().stop().unwrap();
        assert_eq!(dial(&uplink), [""; 0], "nobody asks any more");
    });
}

#[test]
fn a_ring_that_nobody_reads_fills_up_is_counted_and_holds_nobody_up() {
    world("a_ring_that_nobody_reads_fills_up_is_counted_and_holds_nobody_up", |world| {
        let mut uplink = Uplink::new(&options(&world.options()));
        put_empty(&mut uplink.maps, frontend("10.96.0.4:80", TCP), 4, FRONTEND_DROPS);
        uplink.kernel.live().tell(&ALL).unwrap();
        let frame = Packet::first(TCP, "203.0.113.9:40000", "10.96.0.4:80").frame();
        let run = uplink.kernel.run_on_packet(IN, &frame, 5000).unwrap();
        assert_eq!(run.verdict, DROP);
        let told = u64::try_from(uplink.kernel.live().take().len()).unwrap();
        let lost = uplink.kernel.live().lost().unwrap();
        assert!(told > 2000 && lost > 0, "{told} {lost}");
        assert_eq!(told + lost, 5000);
        assert_eq!(uplink.count(Reason::NoLocalBackends), 5000);
        uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
        assert_eq!(uplink.kernel.live().take().len(), 1, "there is room again");
    });
}

/// The ring is each load's own: an agent that was killed while somebody followed leaves nothing to
/// turn off.
#[test]
fn programs_of_an_agent_that_starts_tell_nobody() {
    world("programs_of_an_agent_that_starts_tell_nobody", |world| {
        let first = Kernel::open(&options(&world.options())).unwrap();
        first.attach().unwrap();
        put_empty(&mut first.maps().unwrap(), frontend("10.96.0.3:80", TCP), 3, 0);
        first.live().tell(&ALL).unwrap();
        ask_tcp(at("10.96.0.3:80")).unwrap_err();
        assert_eq!(first.live().take().len(), 1);
        let second = Kernel::open(&options(&world.options())).unwrap();
        assert_eq!(second.attach().unwrap().adopted, 9);
        ask_tcp(at("10.96.0.3:80")).unwrap_err();
        assert_eq!((first.live().take().len(), second.live().take().len()), (0, 0));
    });
}
