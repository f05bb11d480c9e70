//! What the agent takes out of the table: when nobody will miss it.
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, but not what they share")]

use fairlead_ebpf::abi::{TCP, Tuple, UDP};
use fairlead_proxy::connections::{Sweep, Swept};

use crate::{
    FAMILIES, Family, FromOutside,
    support::{
        services::address,
        uplink::{Uplink, at},
        world::{World, world},
    },
    table::age,
};

/// A sweep's clock and the packets' may be a tick or two apart.
const TICKS: u32 = 5;
/// A connection to a backend on another node has one for each direction, before and after routing.
const ENTRIES: usize = 4;

/// What is done with a connection before it is left alone.
type Life = fn(&FromOutside<'_>);

fn with_node_ports(world: &World) -> Uplink {
    let mut uplink = Uplink::new(&world.options());
    for (set, family) in (1..).zip(FAMILIES) {
        for protocol in [TCP, UDP] {
            uplink.put(family.key(protocol), set, &[&family.backend(5)], 0);
        }
    }
    uplink
}

fn over(uplink: &Uplink) -> Swept {
    uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap()
}

fn is_left(swept: Swept) -> usize {
    swept.entries - swept.removed
}

/// Whether it is an entry for the client's packets, before or after routing.
fn is_request(key: &Tuple, family: Family) -> bool {
    key.source == address(at(&family.client(9, 1)).ip())
}

/// The limits are netfilter's, or kube-proxy's.
#[test]
fn each_connection_leaves_the_table_after_its_time_and_not_before() {
    world("ends::each_connection_leaves_the_table_after_its_time_and_not_before", |world| {
        let uplink = with_node_ports(world);
        let begin = |one: &FromOutside<'_>| drop(one.there(&one.first));
        let answer = |one: &FromOutside<'_>| {
            one.and_back(&one.there(&one.first).reply());
        };
        let open = |one: &FromOutside<'_>| one.open();
        let half = |one: &FromOutside<'_>| {
            one.open();
            one.there(&one.first.fin());
        };
        let whole = |one: &FromOutside<'_>| {
            one.open();
            one.and_back(&one.there(&one.first.fin()).reply().fin());
        };
        let broken_off = |one: &FromOutside<'_>| {
            one.open();
            one.there(&one.first.reset());
        };
        let refused = |one: &FromOutside<'_>| {
            one.and_back(&one.there(&one.first).reply().reset());
        };
        let lives: [(&str, u8, Life, u32); 9] = [
            ("begun", TCP, begin, 120),
            ("answered", TCP, answer, 120),
            ("open", TCP, open, 86_400),
            ("half closed", TCP, half, 3600),
            ("closed", TCP, whole, 120),
            ("broken off", TCP, broken_off, 120),
            ("refused", TCP, refused, 120),
            ("one way", UDP, begin, 30),
            ("both ways", UDP, open, 180),
        ];
        for (family, (what, protocol, live, limit)) in
            FAMILIES.into_iter().flat_map(|family| lives.map(|life| (family, life)))
        {
            live(&FromOutside { uplink: &uplink, first: family.first(protocol, 9, 40000) });
            age(&world.bpffs, limit - TICKS, |_| true);
            let early = over(&uplink);
            assert_eq!((early.entries, early.removed), (ENTRIES, 0), "{family:?} {what}");
            age(&world.bpffs, TICKS, |_| true);
            let late = over(&uplink);
            assert_eq!((late.entries, late.removed), (ENTRIES, ENTRIES), "{family:?} {what}");
            assert_eq!(over(&uplink), Swept::default(), "{family:?} {what}");
        }
    });
}

/// Who only receives says nothing for as long as it likes.
#[test]
fn an_open_connection_stays_as_long_as_one_of_both_directions_speaks() {
    world("ends::an_open_connection_stays_as_long_as_one_of_both_directions_speaks", |world| {
        let uplink = with_node_ports(world);
        for family in FAMILIES {
            for (protocol, limit) in [(TCP, 86_400), (UDP, 180)] {
                let one = FromOutside { uplink: &uplink, first: family.first(protocol, 9, 40000) };
                for is_request_silent in [true, false] {
                    one.open();
                    let is_silent = |key: &Tuple| is_request(key, family) == is_request_silent;
                    age(&world.bpffs, limit + TICKS, is_silent);
                    assert_eq!(is_left(over(&uplink)), ENTRIES, "{family:?} {protocol}");
                }
                age(&world.bpffs, limit + TICKS, |_| true);
                assert_eq!(is_left(over(&uplink)), 0, "{family:?} {protocol}");
            }
        }
    });
}

/// The backend, or a router before it, has not heard of the reset yet: what it sends on is no sign of life.
#[test]
fn a_connection_that_was_broken_off_leaves_with_the_direction_that_was_still_on_its_way() {
    let name = "ends::a_connection_that_was_broken_off_leaves_with_the_direction_that_was_still_\
                on_its_way";
    world(name, |world| {
        let uplink = with_node_ports(world);
        for family in FAMILIES {
            let download = FromOutside { uplink: &uplink, first: family.first(TCP, 9, 40000) };
            download.open();
            let segment = download.there(&download.first.later()).reply().later();
            download.there(&download.first.reset());
            let requests = |key: &Tuple| is_request(key, family);
            age(&world.bpffs, 60, |_| true);
            download.and_back(&segment);
            age(&world.bpffs, 55, |_| true);
            assert_eq!(is_left(over(&uplink)), ENTRIES, "{family:?}: a resent reset may come yet");
            age(&world.bpffs, 10, requests);
            over(&uplink);
            assert_eq!(over(&uplink).entries, 0, "{family:?}: both, or neither");
        }
    });
}
