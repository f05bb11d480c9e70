//! Who has room where there is not enough for all.

use fairlead_ebpf::abi::UDP;

use super::*;

/// What a service wants: its frontends by number (see [`key`]), and where each leads.
struct Asks<'a> {
    counter_id: u32,
    frontends: Vec<(u8, &'a BackendSet)>,
}

fn asks<'a>(counter_id: u32, frontends: &[(u8, &'a BackendSet)]) -> Asks<'a> {
    Asks { counter_id, frontends: frontends.to_vec() }
}

/// From 20 on of UDP, from 30 on of TCP with several ports at one address; a hundred more is what is beside
/// it, and two hundred more what stands for its address's other ports.
fn key(of: u8) -> FrontendKey {
    match of {
        200.. => FrontendKey::other_ports([of - 200; 16]),
        100.. => FrontendKey { protocol: UDP, ..frontend(of - 100) }.serving(),
        20..=29 => FrontendKey { protocol: UDP, ..frontend(of) },
        31..=39 => FrontendKey { port: [0, 80 + of - 30], ..frontend(30) },
        _ => frontend(of),
    }
}

/// As it is in steps.
fn shown(of: u8) -> u8 {
    if (31..=39).contains(&of) { 30 } else { of }
}

/// What is to be done for them, and what each lacks.
fn ask(
    actual: &Actual,
    services: &[Asks<'_>],
    capacities: Capacities,
) -> (Delta, Vec<Option<Lack>>) {
    let frontend = |(number, set): &(u8, _)| WantedFrontend {
        key: key(*number),
        set: Some(*set).filter(|set: &&BackendSet| !set.is_empty()),
        local: None,
        value: blank(),
    };
    let wanted: Vec<Wanted<'_>> = services
        .iter()
        .map(|Asks { counter_id, frontends }| Wanted {
            counter_id: *counter_id,
            frontends: frontends.iter().map(frontend).collect(),
            source_ranges: vec![],
        })
        .collect();
    let mut ids = Ids::after(actual.set_ids());
    let mut draft = Draft::new(actual, capacities);
    let mut lacks: Vec<Option<Lack>> =
        wanted.iter().map(|wanted| draft.serve(wanted, &mut ids).err()).collect();
    for (wanted, lack) in wanted.iter().zip(&mut lacks) {
        if lack.is_none() && wanted.has_beside() {
            *lack = draft.serve_beside(wanted, &mut ids).err();
        }
    }
    (draft.finish(|| LOCAL_DEFAULT), lacks)
}

fn after(actual: &Actual, services: &[Asks<'_>], capacities: Capacities) -> Actual {
    steps(actual, &ask(actual, services, capacities).0).1
}

fn room_for(frontends: usize) -> Capacities {
    Capacities { frontends, ..ROOMY }
}

fn numbers(actual: &Actual) -> Vec<u8> {
    let mut numbers: Vec<u8> = actual.frontends().keys().map(number).collect();
    numbers.sort_unstable();
    numbers
}

const NO_PLACE: Lack = Lack { is_beside: false, map: FullMap::Frontends, needs: 1 };

/// A group's UDP services took the places of whoever came behind them.
#[test]
fn what_is_dialled_has_room_before_what_is_beside_the_frontends_of_others() {
    let (some, all, none) = (set(&[1]), set(&[1, 2]), set(&[]));
    let services = [asks(1, &[(20, &some), (120, &all)]), asks(2, &[(10, &none), (11, &none)])];
    for (room, held, lacks, sets) in [
        (4, &[10, 11, 20, 120][..], [None, None], 2),
        (3, &[10, 11, 20], [Some(Lack::beside()), None], 1),
        (2, &[10, 20], [Some(Lack::beside()), Some(NO_PLACE)], 1),
    ] {
        let (delta, found) = ask(&Actual::default(), &services, room_for(room));
        let after = steps(&Actual::default(), &delta).1;
        assert_eq!((numbers(&after), found), (held.to_vec(), lacks.to_vec()), "room for {room}");
        assert_eq!(after.set_ids().count(), sets, "and none for nobody; room for {room}");
    }
}

#[test]
fn what_is_beside_frontends_is_given_up_for_what_is_dialled_whoever_has_it() {
    let (some, all, none) = (set(&[1]), set(&[1, 2]), set(&[]));
    let udp = asks(1, &[(20, &some), (120, &all), (21, &some), (121, &all)]);
    let full = after(&Actual::default(), &[udp], room_for(4));
    assert_eq!(numbers(&full), [20, 21, 120, 121]);
    let (delta, lacks) = ask(&full, &[asks(2, &[(10, &none)])], room_for(4));
    assert_eq!(lacks, [None]);
    assert_eq!(delta.given_up(), [key(121)]);
    let (in_short, one_less) = steps(&full, &delta);
    assert_eq!(
        in_short,
        ["-frontends [121]", "+frontends [(10, 0, 0)]"],
        "its place is needed first"
    );

    let (delta, lacks) = ask(&one_less, &[asks(3, &[(11, &none), (12, &none)])], room_for(4));
    assert_eq!(lacks, [Some(NO_PLACE)], "one of two has none");
    let (in_short, none_left) = steps(&one_less, &delta);
    let ended = full.set_ids().max().unwrap_or_default();
    assert_eq!(
        in_short,
        [
            "-frontends [120]".to_owned(),
            "+frontends [(11, 0, 0)]".to_owned(),
            format!("-backends [({ended}, 0), ({ended}, 1)]"),
        ],
        "nothing leads to their set any more"
    );
    assert_eq!((numbers(&none_left), none_left.beside()), (vec![10, 11, 20, 21], 0));
}

#[test]
fn what_was_given_up_comes_back_when_there_is_room_and_not_before() {
    let (some, all) = (set(&[1]), set(&[1, 2]));
    let udp = || asks(1, &[(20, &some), (120, &all)]);
    let lacking = after(&Actual::default(), &[udp()], room_for(1));
    assert_eq!(numbers(&lacking), [20]);
    for (room, is_enough) in [(1, false), (2, true)] {
        let capacities = room_for(room);
        assert_eq!(Room::of(&lacking, capacities).is_enough(&Lack::beside()), is_enough);
        let (delta, lacks) = ask(&lacking, &[udp()], capacities);
        assert_eq!((delta.is_empty(), lacks == [None]), (!is_enough, is_enough), "room for {room}");
    }
}

/// What it led to would keep flows with endpoints that may serve no more.
#[test]
fn what_finds_no_room_for_its_new_set_is_beside_no_frontend_any_more() {
    let (some, before, now) = (set(&[1]), set(&[1, 2]), set(&[1, 3, 4]));
    let full = after(&Actual::default(), &[asks(1, &[(20, &some), (120, &before)])], ROOMY);
    let capacities = Capacities { backends: 5, ..ROOMY };
    let (delta, lacks) = ask(&full, &[asks(1, &[(20, &some), (120, &now)])], capacities);
    let needs = 3;
    assert_eq!(lacks, [Some(Lack { is_beside: true, map: FullMap::Backends, needs })]);
    let after = steps(&full, &delta).1;
    assert_eq!((numbers(&after), after.slots()), (vec![20], 1));
    let (_, lacks) = ask(&after, &[asks(1, &[(20, &some), (120, &now)])], capacities);
    assert_eq!(lacks, [None], "it is worth another try: the old set is gone");
}

/// Of three ports two found room, and so did the refusal of all others: who dialled the third was refused.
#[test]
fn other_ports_are_refused_only_where_all_ports_of_the_service_are_there() {
    let none = set(&[]);
    let of = |numbers: &[u8]| numbers.iter().map(|number| (*number, &none)).collect::<Vec<_>>();
    type Case<'a> = (&'a str, &'a [u8], usize, &'a [u8], &'a [u8]);
    let cases: &[Case<'_>] = &[
        ("all of it", &[], 3, &[230, 30, 31], &[30, 31, 230]),
        ("ports first", &[], 2, &[230, 30, 31], &[30, 31]),
        ("not all ports", &[], 1, &[230, 30, 31], &[30]),
        ("as it is", &[230, 30], 2, &[230, 30], &[30, 230]),
        ("a new port takes the refusal's place", &[230, 30], 2, &[230, 30, 31], &[30, 31]),
        ("of two new ports one does", &[230, 30], 2, &[230, 30, 31, 32], &[30, 31]),
        ("a new port at another address does not", &[230, 30], 2, &[230, 30, 40], &[30, 230]),
        ("others' refusals stay", &[230, 40], 2, &[40, 30], &[40, 230]),
        ("another proxy's address has no ports here", &[], 1, &[240], &[240]),
    ];
    for (case, held, room, wanted, expected) in cases {
        let held = after(&Actual::default(), &[asks(1, &of(held))], ROOMY);
        let (delta, lacks) = ask(&held, &[asks(1, &of(wanted))], room_for(*room));
        let after = steps(&held, &delta).1;
        let mut expected: Vec<u8> = expected.iter().map(|number| shown(*number)).collect();
        expected.sort_unstable();
        assert_eq!(numbers(&after), expected, "{case}");
        let is_whole = wanted.iter().all(|number| after.frontends().contains_key(&key(*number)));
        assert_eq!(lacks == [None], is_whole, "{case}: {lacks:?}");
        let again = ask(&after, &[asks(1, &of(wanted))], room_for(*room)).0;
        assert!(again.is_empty(), "{case}: not at rest: {again:?}");
    }
}

/// The Service is as it was but for that.
#[test]
fn a_new_port_is_not_refused_either_where_its_endpoints_find_no_room() {
    let (one, two) = (set(&[1]), set(&[2, 3]));
    let none = set(&[]);
    let held = after(&Actual::default(), &[asks(1, &[(230, &none), (30, &one)])], ROOMY);
    let tight = Capacities { backends: 2, ..ROOMY };
    for (wanted, expected) in [
        (&[(230, &none), (30, &two)][..], &[30, 230][..]),
        (&[(230, &none), (30, &one), (31, &two)], &[30]),
        (&[(230, &none), (30, &one), (40, &two)], &[30, 230]),
    ] {
        let (delta, lacks) = ask(&held, &[asks(1, wanted)], tight);
        let lack = Lack { is_beside: false, map: FullMap::Backends, needs: 2 };
        assert_eq!(lacks, [Some(lack)]);
        let after = steps(&held, &delta).1;
        assert_eq!((numbers(&after), after.slots()), (expected.to_vec(), 1));
        assert!(ask(&after, &[asks(1, wanted)], tight).0.is_empty(), "not at rest");
    }
}

#[test]
fn a_lack_says_how_much_room_is_worth_another_try() {
    let (two, three, none) = (set(&[1, 2]), set(&[3, 4, 5]), set(&[]));
    let actual = after(&Actual::default(), &[asks(1, &[(10, &two)])], ROOMY);
    let tight = Capacities { backends: 4, frontends: 1, ..ROOMY };
    for (frontends, map, needs) in [
        (&[(10, &three)][..], FullMap::Backends, 3),
        (&[(10, &two), (11, &none)], FullMap::Frontends, 1),
    ] {
        let lacks = ask(&actual, &[asks(1, frontends)], tight).1;
        let lack = Lack { is_beside: false, map, needs };
        assert_eq!(lacks, [Some(lack)], "{map}");
        assert!(!Room::of(&actual, tight).is_enough(&lack), "{map}");
        let more = Capacities { backends: 5, frontends: 2, ..ROOMY };
        assert!(Room::of(&actual, more).is_enough(&lack), "{map}");
    }
}
