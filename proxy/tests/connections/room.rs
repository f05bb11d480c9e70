//! What is open stays in the table, whoever else comes; what is over leaves it.

use std::time::{Duration, Instant};

use fairlead_ebpf::abi::{TCP, UDP};
use fairlead_proxy::{
    KernelOptions,
    attach::MapSizes,
    connections::{Sweep, Swept},
};

use crate::{
    FAMILIES, Family, FromOutside,
    support::{
        frames::Packet,
        uplink::{IN, NEXT, OUT, Uplink, at},
        world::{World, world},
    },
};

fn small() -> MapSizes {
    MapSizes { connections: 2048, openings: 2048, ..MapSizes::default() }
}

/// A node whose tables of connections have so much room, and whose NodePorts lead elsewhere.
fn with_sizes(world: &World, sizes: MapSizes) -> Uplink {
    let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
    for (set, family) in (1..).zip(FAMILIES) {
        for protocol in [TCP, UDP] {
            uplink.put(family.key(protocol), set, &[&family.backend(5)], 0);
        }
    }
    uplink
}

/// It goes on there and back, to the backend it began with.
fn assert_open(one: &FromOutside<'_>, family: Family) {
    let later = one.there(&one.first.later());
    assert_eq!(later.to, at(&family.backend(5)), "{family:?}");
    let back = one.and_back(&later.reply());
    assert_eq!((back.from, back.to), (one.first.to, one.first.from), "{family:?}");
}

#[test]
fn syn_flood_pushes_out_no_connection_that_is_open() {
    world("room::syn_flood_pushes_out_no_connection_that_is_open", |world| {
        const FLOOD: u16 = 20_000;
        let sizes = MapSizes { connections: 8192, openings: 2048, ..MapSizes::default() };
        let uplink = with_sizes(world, sizes);
        let open = |family: Family, protocol, port| {
            let one = FromOutside { uplink: &uplink, first: family.first(protocol, 60_000, port) };
            one.open();
            one
        };
        let all = FAMILIES.map(|family| [open(family, TCP, 40001), open(family, UDP, 40002)]);
        for (n, family) in (0..FLOOD).flat_map(|n| FAMILIES.map(|family| (n, family))) {
            // The backend answers each, as it does with SYN cookies, too.
            let syn = family.first(TCP, n, 1024);
            let run = uplink.kernel.run_on_packet(IN, &syn.frame(), 1).unwrap();
            if run.verdict == NEXT {
                let at_backend = uplink.pass(OUT, &Packet::read(&run.packet));
                uplink.pass(OUT, &uplink.pass(IN, &at_backend.reply()));
            }
        }
        for (family, open) in FAMILIES.into_iter().zip(&all) {
            open.iter().for_each(|one| assert_open(one, family));
        }
        let entries = uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().entries;
        assert!(
            (16..=2048 + 16).contains(&entries),
            "{entries} entries: openings have their own room"
        );
    });
}

#[test]
fn many_short_connections_push_out_none_that_is_open_and_silent() {
    world("room::many_short_connections_push_out_none_that_is_open_and_silent", |world| {
        const SHORT: u16 = 4000;
        let uplink = with_sizes(world, small());
        for family in FAMILIES {
            let from = |port| FromOutside { uplink: &uplink, first: family.first(TCP, 9, port) };
            let silent = from(999);
            silent.open();
            for n in 0..SHORT {
                let short = from(1024 + n);
                short.open();
                let last = short.there(&short.first.fin());
                if n % 2 == 0 {
                    short.and_back(&last.reply().fin());
                } else {
                    short.there(&short.first.reset());
                }
            }
            assert_open(&silent, family);
        }
    });
}

/// A client that gives a download up answers each segment that was on its way with a reset.
#[test]
fn a_connection_that_was_broken_off_is_not_taken_for_open_by_what_was_on_its_way() {
    let name =
        "room::a_connection_that_was_broken_off_is_not_taken_for_open_by_what_was_on_its_way";
    world(name, |world| {
        let uplink = with_sizes(world, MapSizes::default());
        for family in FAMILIES {
            let download = FromOutside { uplink: &uplink, first: family.first(TCP, 9, 40000) };
            download.open();
            let settled =
                || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled;
            assert_eq!(settled(), 4);
            let segment = download.there(&download.first.later()).reply();
            download.there(&download.first.reset());
            assert_eq!(settled(), 0);
            for _ in 0..3 {
                download.and_back(&segment);
                download.there(&download.first.reset());
                assert_eq!(settled(), 0);
            }
        }
    });
}

/// Who forges a reset knows the ports, but not the numbers: both ends talk on, and their connection is as safe as before.
#[test]
fn a_connection_that_goes_on_after_a_forged_reset_is_pushed_out_by_no_flood() {
    let name = "room::a_connection_that_goes_on_after_a_forged_reset_is_pushed_out_by_no_flood";
    world(name, |world| {
        let uplink = with_sizes(world, small());
        for family in FAMILIES {
            let open = FromOutside { uplink: &uplink, first: family.first(TCP, 60_000, 999) };
            open.open();
            open.there(&open.first.reset());
            open.and_back(&open.there(&open.first.later()).reply());
            for n in 0..8000_u16 {
                let syn = family.first(TCP, n, 1024).frame();
                uplink.kernel.run_on_packet(IN, &syn, 1).unwrap();
            }
            assert_open(&open, family);
        }
    });
}

#[test]
fn what_is_over_leaves_the_table_and_what_is_open_stays() {
    world("room::what_is_over_leaves_the_table_and_what_is_open_stays", |world| {
        let uplink = with_sizes(world, MapSizes::default());
        let connections = uplink.kernel.connections().unwrap();
        let mut stay = 0;
        for family in FAMILIES {
            let [open, ended, datagrams] = [(TCP, 40001), (TCP, 40002), (UDP, 40003)]
                .map(|(protocol, port)| family.first(protocol, 9, port))
                .map(|first| FromOutside { uplink: &uplink, first });
            [&open, &ended, &datagrams].into_iter().for_each(FromOutside::open);
            ended.there(&ended.first.reset());
            let all = Swept { entries: stay + 12, removed: 0, settled: stay + 8 };
            assert_eq!(connections.sweep(Sweep::Over).unwrap(), all, "all of them may go on");

            let begun = Instant::now();
            let mut removed = 0;
            while removed < 8 {
                removed += connections.sweep(Sweep::Loose).unwrap().removed;
                assert!(begun.elapsed() < Duration::from_secs(10), "{removed} of 8 left");
            }
            stay += 4;
            let rest = Swept { entries: stay, removed: 0, settled: stay };
            assert_eq!(connections.sweep(Sweep::Loose).unwrap(), rest);
            assert_eq!(open.there(&open.first.later()).to, at(&family.backend(5)));
        }
    });
}
