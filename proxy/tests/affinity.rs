//! ClientIP affinity by packets, where clients are known by their address.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy knows test functions, but not what they share"
)]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use fairlead_ebpf::abi::{
    Affinity, BACKEND_LOCAL, FrontendEntry, FrontendKey, FrontendValue, SCTP, TCP, UDP, name,
};
use fairlead_proxy::{delta::Step, maps::Maps as _};
use rustix::time::{ClockId, clock_gettime};
use support::{
    frames::{Packet, read_sctp, sctp},
    services::{frontend, node_port},
    uplink::{IN, Uplink},
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

/// Seconds that are over when a test says so.
const SHORT: u32 = 1;
const LONG: u32 = 10_800;

/// A Service port of one family and protocol, by ClusterIP and NodePort.
struct Sticky {
    protocol: u8,
    is_ipv4: bool,
    /// What its counters and affinities are kept by.
    id: u32,
    backends: Vec<String>,
}

impl Sticky {
    fn keys(&self) -> [FrontendKey; 2] {
        let [cluster_ip, _] = self.dialled();
        [frontend(cluster_ip, self.protocol), node_port(self.is_ipv4, 30080, self.protocol)]
    }

    fn dialled(&self) -> [&'static str; 2] {
        match self.is_ipv4 {
            true => ["10.96.0.1:80", "192.168.0.2:30080"],
            false => ["[fd00:96::1]:80", "[2001:db8::2]:30080"],
        }
    }

    /// Another set of its backends, without the one that left.
    fn put(&self, uplink: &mut Uplink, set: u32, without: Option<SocketAddr>, seconds: u32) {
        let left = without.map(|backend| backend.to_string());
        let backends = self.backends.iter().filter(|backend| left.as_ref() != Some(*backend));
        let backends: Vec<&str> = backends.map(String::as_str).collect();
        for key in self.keys() {
            uplink.put(key, set + self.id, &backends, BACKEND_LOCAL);
            let held = uplink.maps.load().unwrap().frontends[&key];
            let value =
                FrontendValue { affinity_seconds: seconds, counter_id: self.id, ..held.value };
            let entry = FrontendEntry { value, ..held };
            uplink.maps.apply(&Step::PutFrontends(vec![(key, entry)])).unwrap();
        }
    }

    /// The backend that client number `client` meets from this port of its own.
    fn met(&self, uplink: &Uplink, client: u8, port: u16, to: &str) -> SocketAddr {
        let from = match self.is_ipv4 {
            true => format!("203.0.113.{client}:{port}"),
            false => format!("[2001:db8:9::{client:x}]:{port}"),
        };
        if self.protocol == SCTP {
            let run = uplink.kernel.run_on_packet(IN, &sctp(&from, to, 1), 1).unwrap();
            return read_sctp(&run.packet).1;
        }
        uplink.pass(IN, &Packet::first(self.protocol, &from, to)).to
    }
}

fn all() -> Vec<Sticky> {
    let kinds = [true, false].map(|is_ipv4| [TCP, UDP, SCTP].map(|protocol| (is_ipv4, protocol)));
    let numbered = (1..).zip(kinds.into_iter().flatten());
    let sticky = numbered.map(|(id, (is_ipv4, protocol))| {
        let backend = |n: u8| match is_ipv4 {
            true => format!("10.244.1.{n}:8080"),
            false => format!("[fd00:10::{n}]:8080"),
        };
        Sticky { protocol, is_ipv4, id, backends: (1..=8).map(backend).collect() }
    });
    sticky.collect()
}

#[test]
fn a_client_meets_one_backend_by_all_addresses_until_that_leaves_the_set() {
    world("a_client_meets_one_backend_by_all_addresses_until_that_leaves_the_set", |world| {
        let mut uplink = Uplink::new(&world.options());
        for service in all() {
            let what = format!("protocol {}, IPv4: {}", service.protocol, service.is_ipv4);
            let all_met = |uplink: &Uplink, client: u8, ports: std::ops::Range<u16>| {
                let met = ports.map(|port| {
                    let to = service.dialled()[usize::from(port % 2)];
                    service.met(uplink, client, port, to)
                });
                met.collect::<BTreeSet<_>>()
            };
            service.put(&mut uplink, 100, None, LONG);
            let first = all_met(&uplink, 9, 40_000..40_020);
            assert_eq!(first.len(), 1, "{what}: {first:?}");
            let clients = 10..42u8;
            let met: BTreeSet<_> =
                clients.flat_map(|client| all_met(&uplink, client, 40_000..40_001)).collect();
            assert!(met.len() > 3, "{what}: 32 clients met only {met:?}");

            // It terminates, beside others that are ready.
            service.put(&mut uplink, 200, first.first().copied(), LONG);
            let second = all_met(&uplink, 9, 41_000..41_020);
            assert_eq!(second.len(), 1, "{what}: {second:?}");
            assert!(first.is_disjoint(&second), "{what}");
            // It is back: whom the client has met meanwhile is whom it meets.
            service.put(&mut uplink, 300, None, LONG);
            assert_eq!(all_met(&uplink, 9, 42_000..42_020), second, "{what}");
        }
    });
}

/// The programs' clock, in whole seconds.
fn second() -> u32 {
    u32::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap()
}

/// Makes all that is remembered so many seconds older.
fn age(bpffs: &Path, seconds: u32) {
    let data = MapData::from_pin(bpffs.join("fairlead/maps").join(name::AFFINITIES)).unwrap();
    let mut table: HashMap<_, [u8; 24], [u8; 24]> = Map::LruHashMap(data).try_into().unwrap();
    let all: Vec<([u8; 24], [u8; 24])> = table.iter().map(Result::unwrap).collect();
    for (key, value) in all {
        let mut met: Affinity = bytemuck::pod_read_unaligned(&value);
        met.seen_seconds = met.seen_seconds.wrapping_sub(seconds);
        table.insert(key, bytemuck::cast::<_, [u8; 24]>(met), 0).unwrap();
    }
}

/// Whom each of many clients of each Service meets.
fn met_by_all(uplink: &Uplink, services: &[Sticky], port: u16) -> Vec<Vec<SocketAddr>> {
    let of_all = services.iter().map(|service| {
        let to = service.dialled()[0];
        (1..33).map(|client| service.met(uplink, client, port, to)).collect()
    });
    of_all.collect()
}

/// A second that has begun counted as one that is over: with a time-out of one second, who had come at 10.9 was forgotten at
/// 11.0.
#[test]
fn affinity_holds_to_the_last_of_the_seconds_the_service_says() {
    world("affinity_holds_to_the_last_of_the_seconds_the_service_says", |world| {
        let mut uplink = Uplink::new(&world.options());
        let services = all();
        let mut ports = 40_000..;
        for (set, seconds) in [(100, SHORT), (200, LONG)] {
            services.iter().for_each(|service| service.put(&mut uplink, set, None, seconds));
            let begun = Instant::now();
            loop {
                let [one, two] = [ports.next().unwrap(), ports.next().unwrap()];
                let at = second();
                let before = met_by_all(&uplink, &services, one);
                age(&world.bpffs, seconds);
                let after = met_by_all(&uplink, &services, two);
                // Otherwise some were met in the second before, which makes it one more.
                if second() == at {
                    assert_eq!(after, before, "{seconds}");
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "never within one second");
            }
        }
    });
}

/// As kube-proxy's: it is a time of silence.
#[test]
fn each_use_of_an_affinity_begins_its_time_anew() {
    world("each_use_of_an_affinity_begins_its_time_anew", |world| {
        let mut uplink = Uplink::new(&world.options());
        let services = all();
        services.iter().for_each(|service| service.put(&mut uplink, 100, None, LONG));
        let first = met_by_all(&uplink, &services, 40_000);
        for port in 40_001..40_005 {
            age(&world.bpffs, LONG - 100);
            assert_eq!(met_by_all(&uplink, &services, port), first, "{port}");
        }
        age(&world.bpffs, LONG + 1);
        assert_ne!(met_by_all(&uplink, &services, 40_005), first, "a silence as long as that");
    });
}

#[test]
fn affinity_is_over_when_a_client_was_silent_for_as_long_as_the_service_says() {
    world("affinity_is_over_when_a_client_was_silent_for_as_long_as_the_service_says", |world| {
        let mut uplink = Uplink::new(&world.options());
        let services = all();
        services.iter().for_each(|service| service.put(&mut uplink, 100, None, SHORT));
        let before = met_by_all(&uplink, &services, 40_000);
        // Nothing tells that a time is over but its end.
        let end = Instant::now() + Duration::from_secs(u64::from(SHORT) + 1);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        let after = met_by_all(&uplink, &services, 40_001);
        for ((service, before), after) in services.iter().zip(before).zip(after) {
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            // Of eight backends, each client finds another in seven of eight cases.
            let what = format!("protocol {}, IPv4: {}", service.protocol, service.is_ipv4);
            assert!(moved > 8, "{what}: only {moved} of 32 clients moved");
        }
    });
}
