//! Programs follow devices, addresses and Service ranges as they come and go, and versions of themselves.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};
use fairlead_proxy::{CIDRS_MAX, Devices, Kernel, KernelOptions, node};
use fairlead_state::{
    Change, Key, Kind, Object, Store,
    model::{Endpoint, EndpointSlice, ObjectRef, Rare},
};

use crate::support::{
    followed::{DEADLINE, Follower, ask_udp, echo_udp, service_cidr},
    frames::Packet,
    services::{node_port, put, unspecified},
    world::{Pod, run, world},
};

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// A rollback: two programs would translate, one of them by maps that nobody writes.
#[test]
fn programs_of_another_version_leave_a_device_when_this_ones_run_there() {
    world(
        "following::programs_of_another_version_leave_a_device_when_this_ones_run_there",
        |world| {
            let client = world.pod(1);
            let later = Follower::start(world, &[client.device()]);
            later.wait_for(world, 1);
            drop(later);
            let names = || -> Vec<String> {
                let links = Kernel::attachments(&world.bpffs).unwrap();
                links.into_iter().map(|link| link.name).collect()
            };
            let own = names();
            let links = world.bpffs.join("fairlead/links");
            for name in &own {
                let other = name.replace("uplink", "later");
                fs::rename(links.join(name), links.join(other)).unwrap();
            }
            let _follower = Follower::start(world, &[client.device()]);
            let begun = Instant::now();
            while names() != own {
                assert!(begun.elapsed() < DEADLINE, "attached: {:?}", names());
                thread::yield_now();
            }
        },
    );
}

/// What another version left may be all that serves a device: it stays until all of this one's run.
#[test]
fn programs_of_another_version_stay_as_long_as_one_of_this_ones_is_missing() {
    world(
        "following::programs_of_another_version_stay_as_long_as_one_of_this_ones_is_missing",
        |world| {
            let client = world.pod(1);
            let (_store, snapshots) = Store::new([]);
            let devices = Devices::List(vec![client.device()]);
            let options = KernelOptions { devices, ..world.options() };
            // Loaded anew: no device takes the same program twice.
            let prepare = || {
                let kernel = Kernel::open(&options).unwrap();
                node::prepare(&kernel, &snapshots, "node").unwrap();
            };
            let names = || -> BTreeSet<String> {
                let links = Kernel::attachments(&world.bpffs).unwrap();
                links.into_iter().map(|link| link.name).collect()
            };
            prepare();
            let own = names();
            let links = world.bpffs.join("fairlead/links");
            let others: BTreeSet<String> =
                own.iter().map(|name| name.replace("uplink", "later")).collect();
            assert!(!own.is_empty() && own.is_disjoint(&others), "{own:?}");
            for (name, other) in own.iter().zip(&others) {
                fs::rename(links.join(name), links.join(other)).unwrap();
            }
            for missing in &own {
                // Where a new link is pinned first, and a directory is not replaced.
                let in_the_way = links.join(format!("{missing}_new"));
                fs::create_dir(&in_the_way).unwrap();
                prepare();
                let there = names();
                assert!(!there.contains(missing), "{there:?} without {missing}");
                assert!(there.is_superset(&others), "{there:?} without {missing}");
                fs::remove_dir(in_the_way).unwrap();
                there
                    .intersection(&own)
                    .for_each(|name| fs::remove_file(links.join(name)).unwrap());
            }
            prepare();
            assert_eq!(names(), own);
        },
    );
}

#[test]
fn devices_and_addresses_that_come_and_go_are_followed() {
    world("following::devices_and_addresses_that_come_and_go_are_followed", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let follower = Follower::start(world, &[client.device()]);
        // The backend's device is a pod's: two more programs.
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        let families = [(true, "10.98.0.1"), (false, "fd98::1")];
        let dialled = families.map(|(is_ipv4, _)| {
            let server = backend.inside(|| echo_udp(backend.own_address(is_ipv4)));
            let key = node_port(is_ipv4, 30080, UDP);
            put(&mut maps, key, u32::from(is_ipv4) + 1, &[(server, BACKEND_LOCAL)]);
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            assert_eq!(client.inside(|| ask_udp(to)), client.own_address(is_ipv4));
            to
        });
        client.disconnect();
        follower.wait_for(world, 1);
        client.connect();
        dialled.into_iter().for_each(|to| wait_for_answer(&client, to));
        for (is_ipv4, more) in families {
            let bits = if is_ipv4 { "32 dev" } else { "128 nodad dev" };
            run(&format!("ip addr add {more}/{bits} {}", client.device()));
            let to = SocketAddr::new(more.parse().unwrap(), 30080);
            wait_for_answer(&client, to);
            run(&format!(
                "ip addr del {more}/{} dev {}",
                if is_ipv4 { 32 } else { 128 },
                client.device()
            ));
            let begun = Instant::now();
            while client.inside(|| is_answered(to)) {
                assert!(begun.elapsed() < DEADLINE, "{to} answers, and is nobody's");
            }
        }
    });
}

#[test]
fn service_cidrs_that_come_and_go_are_followed() {
    world("following::service_cidrs_that_come_and_go_are_followed", |world| {
        let client = world.pod(1);
        let follower = Follower::start(world, &[client.device()]);
        let packets =
            [("203.0.113.9:40000", "10.97.0.1:80"), ("[2001:db8:9::9]:40000", "[fd00:97::1]:80")];
        let is_dropped = |(from, to)| {
            let frame = Packet::first(TCP, from, to).frame();
            let run = follower.kernel.run_on_packet("pod_ingress", &frame, 1).unwrap();
            run.verdict == DROP
        };
        let wait_until = |are_dropped: bool| {
            let begun = Instant::now();
            while !packets.into_iter().all(|packet| is_dropped(packet) == are_dropped) {
                assert!(begun.elapsed() < DEADLINE, "not followed: dropped={are_dropped}");
            }
        };
        wait_until(false);
        // As KEP-1880 has it: a cluster that runs out of addresses is given another range.
        follower.change(service_cidr("more", &["10.97.0.0/24", "fd00:97::/112"]));
        wait_until(true);
        follower.change(Change::Delete(ObjectRef {
            kind: Kind::ServiceCidr,
            key: Key::new("", "more"),
        }));
        wait_until(false);
        for within in [
            ("203.0.113.9:40000", "10.96.200.1:80"),
            ("[2001:db8:9::9]:40000", "[fd00:96::200]:80"),
        ] {
            assert!(is_dropped(within), "the other range is as it was");
        }
    });
}

/// kubeadm's 10.96.0.0/12 over hosts in 10.99.0.0/16: every packet for one of them was dropped as the programs were attached.
#[test]
fn bug_a_service_range_that_holds_the_node_is_left_out_and_the_others_hold() {
    world(
        "following::bug_a_service_range_that_holds_the_node_is_left_out_and_the_others_hold",
        |world| {
            let client = world.pod(1);
            let follower = Follower::start(world, &[client.device()]);
            let verdict = |program, (from, to): (&str, &str)| {
                let frame = Packet::first(TCP, from, to).frame();
                follower.kernel.run_on_packet(program, &frame, 1).unwrap().verdict
            };
            follower.change(service_cidr("wide", &["10.96.0.0/12", "fd00:97::/112"]));
            let begun = Instant::now();
            while verdict("pod_ingress", ("[2001:db8:9::9]:40000", "[fd00:97::1]:80")) != DROP {
                assert!(begun.elapsed() < DEADLINE, "not followed");
            }
            for to in ["10.99.1.1:22", "10.99.200.1:80"] {
                for program in ["uplink_ingress", "pod_ingress", "uplink_egress"] {
                    assert_ne!(verdict(program, ("203.0.113.9:40000", to)), DROP, "{program} {to}");
                }
            }
            assert_eq!(verdict("pod_ingress", ("203.0.113.9:40000", "10.96.200.1:80")), DROP);
        },
    );
}

/// The API server's node alone left its range out: to all others their control plane was an address that no Service has.
#[test]
fn bug_a_service_range_that_holds_the_api_server_elsewhere_is_left_out_and_the_others_hold() {
    let name = "following::bug_a_service_range_that_holds_the_api_server_elsewhere_is_left_out_and_\
                the_others_hold";
    world(name, |world| {
        let client = world.pod(1);
        let follower = Follower::start(world, &[client.device()]);
        let is_dropped = |to: &str| {
            let frame = Packet::first(TCP, "203.0.113.9:40000", to).frame();
            follower.kernel.run_on_packet("pod_ingress", &frame, 1).unwrap().verdict == DROP
        };
        let wait_until = |expected: bool, what: &str| {
            let begun = Instant::now();
            while is_dropped("10.97.0.2:6443") != expected {
                assert!(begun.elapsed() < DEADLINE, "not followed: {what}");
            }
            assert!(is_dropped("10.96.200.1:80"), "{what}");
        };
        follower.change(service_cidr("wide", &["10.97.0.0/16"]));
        wait_until(true, "a range that nobody is in");
        for is_ready in [true, false] {
            follower.change(api_server("10.97.0.2", is_ready));
            wait_until(false, "the API server comes");
            follower.change(api_server("192.0.2.1", is_ready));
            wait_until(true, "the API server goes");
        }
    });
}

/// The EndpointSlice of the Service that the API server has itself.
fn api_server(address: &str, is_ready: bool) -> Change {
    let address: IpAddr = address.parse().unwrap();
    let endpoint = Endpoint {
        addresses: [address].into(),
        hostname: None,
        node_name: None,
        zone: None,
        hints: Rare::default(),
        pod: None,
        ready: is_ready,
        serving: is_ready,
        terminating: false,
    };
    Change::Upsert(Object::EndpointSlice(Arc::new(EndpointSlice {
        key: Key::new("default", "kubernetes"),
        service: Key::new("default", "kubernetes"),
        ipv6: false,
        ports: Arc::default(),
        endpoints: [endpoint].into(),
        headless_label: false,
        trigger_time_ms: None,
        import: None,
        left_out: None,
    })))
}

/// More than the programs have room for: those beyond, in the order of their addresses, are routed like any other.
#[test]
fn service_cidrs_beyond_the_most_are_left_out_and_the_others_hold() {
    world("following::service_cidrs_beyond_the_most_are_left_out_and_the_others_hold", |world| {
        let client = world.pod(1);
        let follower = Follower::start(world, &[client.device()]);
        let verdict = |(from, to): (&str, &str)| {
            let frame = Packet::first(TCP, from, to).frame();
            follower.kernel.run_on_packet("pod_ingress", &frame, 1).unwrap().verdict
        };
        let ranges: Vec<String> = (1..CIDRS_MAX).map(|n| format!("10.200.{n}.0/24")).collect();
        let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
        // One of IPv4 is there already, and one of IPv6, which is behind them all.
        follower.change(service_cidr("many", &ranges));
        let last = format!("10.200.{}.1:80", CIDRS_MAX - 1);
        let begun = Instant::now();
        while verdict(("203.0.113.9:40000", &last)) != DROP {
            assert!(begun.elapsed() < DEADLINE, "not followed: {last}");
        }
        assert_eq!(verdict(("203.0.113.9:40000", "10.96.200.1:80")), DROP);
        assert_ne!(verdict(("[2001:db8:9::9]:40000", "[fd00:96::200]:80")), DROP);
    });
}

/// Following takes a moment; nothing tells a client when it is done.
fn wait_for_answer(client: &Pod, to: SocketAddr) {
    let begun = Instant::now();
    while !client.inside(|| is_answered(to)) {
        assert!(begun.elapsed() < DEADLINE, "{to} does not answer");
    }
}

fn is_answered(to: SocketAddr) -> bool {
    let socket = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // Without a device there is no way, either.
    socket.connect(to).is_ok() && socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok()
}
