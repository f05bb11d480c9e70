//! Deltas as tables of steps.

mod ports;
mod room;

use super::*;
use crate::{
    image::{Capacities, Image},
    snat_ports::LOCAL_DEFAULT,
};

const ROOMY: Capacities =
    Capacities { frontends: 100, backends: 100, maglev: 100, source_ranges: 1000, counters: 100 };

fn frontend(number: u8) -> FrontendKey {
    FrontendKey { address: [number; 16], port: [0, 80], protocol: 6, zero: 0 }
}

fn set(numbers: &[u8]) -> BackendSet {
    numbers.iter().map(|n| Backend { address: [*n; 16], port: [31, 144], flags: 0 }).collect()
}

fn blank() -> FrontendValue {
    bytemuck::Zeroable::zeroed()
}

fn read(image: &Image) -> Actual {
    let mut reading = Reading::default();
    image.entries().for_each(|entry| reading.take(entry));
    reading.finish()
}

/// `sets` and frontends `(number, set id)`, all counted by 1.
fn image(sets: &[(u32, &[u8])], frontends: &[(u8, u32)]) -> Image {
    let mut image = Image { source_ports: PortRange::new(1024, 29999), ..Image::default() };
    for (set_id, numbers) in sets {
        for (backend, slot) in set(numbers).iter().zip(0..) {
            image.backends.insert(BackendKey { set_id: *set_id, slot }, *backend);
        }
    }
    for (number, id) in frontends {
        let content = sets.iter().find(|(set, _)| set == id).map(|(_, n)| set(n));
        let backends = content.map_or(0, |content| u16::try_from(content.len()).unwrap());
        let set_id = if backends > 0 { *id } else { 0 };
        let value = FrontendValue { set_id, counter_id: 1, backends, ..blank() };
        let content = sets.iter().find(|(set, _)| set == id).map_or(&[][..], |(_, n)| n);
        image.frontends.insert(frontend(*number), beside(*number, value, content));
    }
    image
}

/// A frontend with the first backends of its set.
fn beside(number: u8, value: FrontendValue, content: &[u8]) -> FrontendEntry {
    let first = FirstBackends::of(&frontend(number), set(content).iter().copied());
    FrontendEntry { value, first }
}

/// Maps that hold them.
fn held(sets: &[(u32, &[u8])], frontends: &[(u8, u32)]) -> Actual {
    read(&image(sets, frontends))
}

/// A hundred more for what is beside a frontend, two hundred for other ports.
fn number(key: &FrontendKey) -> u8 {
    let more = [(is_beside(key), 100), (key.is_other_ports(), 200)];
    key.address[0] + more.iter().filter(|(is_it, _)| *is_it).map(|(_, more)| more).sum::<u8>()
}

/// The steps in short, and the maps afterwards.
fn steps(actual: &Actual, delta: &Delta) -> (Vec<String>, Actual) {
    let steps = delta.steps(actual);
    let in_short = steps.iter().map(|step| match step {
        Step::DeleteFrontends(keys) => {
            format!("-frontends {:?}", keys.iter().map(number).collect::<Vec<_>>())
        }
        Step::PutFrontends(entries) => {
            let short = |(k, v): &(FrontendKey, FrontendEntry)| (number(k), v.set_id, v.backends);
            format!("+frontends {:?}", entries.iter().map(short).collect::<Vec<_>>())
        }
        Step::PutBackends(entries) => {
            let short = |(k, b): &(BackendKey, Backend)| (k.set_id, k.slot, b.address[0]);
            format!("+backends {:?}", entries.iter().map(short).collect::<Vec<_>>())
        }
        Step::DeleteBackends(keys) => {
            let short = |k: &BackendKey| (k.set_id, k.slot);
            format!("-backends {:?}", keys.iter().map(short).collect::<Vec<_>>())
        }
        Step::PutMaglev(parts) => format!("+maglev {}", parts.len()),
        Step::DeleteMaglev(keys) => format!("-maglev {}", keys.len()),
        Step::PutSourceRanges(ranges) => format!("+ranges {}", ranges.len()),
        Step::DeleteSourceRanges(ranges) => format!("-ranges {}", ranges.len()),
        Step::ClearCounters(ids) => format!("0 counters {ids:?}"),
        Step::NodePorts(range) => format!("node ports {:?}", range.bounds()),
        Step::SourcePorts(range) => format!("source ports {:?}", range.bounds()),
    });
    let in_short = in_short.collect();
    let mut after = actual.clone();
    after.commit(delta);
    (in_short, after)
}

struct Service<'a> {
    counter_id: u32,
    frontends: &'a [(u8, Option<&'a BackendSet>)],
}

fn draft<'a>(
    actual: &Actual,
    released: &[u8],
    services: &[Service<'a>],
    capacities: Capacities,
) -> (Delta, Vec<Result<(), FullMap>>) {
    let mut ids = Ids::default();
    let mut draft = Draft::new(actual, capacities);
    for number in released {
        draft.release(frontend(*number));
    }
    let results = services.iter().map(|service| {
        let wanted = |(number, set): &(u8, Option<&'a BackendSet>)| WantedFrontend {
            key: frontend(*number),
            set: *set,
            local: None,
            value: blank(),
        };
        let frontends = service.frontends.iter().map(wanted).collect();
        let counter_id = service.counter_id;
        let served =
            draft.serve(&Wanted { counter_id, frontends, source_ranges: vec![] }, &mut ids);
        served.map_err(|lack| lack.map)
    });
    let results = results.collect();
    (draft.finish(|| LOCAL_DEFAULT), results)
}

#[test]
fn order_of_steps_keeps_every_set_whole_while_a_frontend_leads_to_it() {
    let actual = held(&[(5, &[1, 2]), (6, &[3])], &[(10, 5), (11, 6)]);
    let new = set(&[2, 4]);
    let services = [Service { counter_id: 2, frontends: &[(10, Some(&new)), (12, None)] }];
    let (delta, results) = draft(&actual, &[11], &services, ROOMY);
    assert_eq!(results, [Ok(())]);
    let (steps, after) = steps(&actual, &delta);
    assert_eq!(
        steps,
        [
            "-frontends [11]",
            "+backends [(1, 0, 2), (1, 1, 4)]",
            "+frontends [(10, 1, 2), (12, 0, 0)]",
            "-backends [(5, 0), (5, 1), (6, 0)]",
        ]
    );
    let (again, _) = draft(&after, &[11], &services, ROOMY);
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn programs_look_for_node_ports_before_there_are_any_and_until_they_have_gone() {
    let key = |port: u16| FrontendKey {
        address: fairlead_ebpf::abi::ANY_V4,
        port: port.to_be_bytes(),
        protocol: 6,
        zero: 0,
    };
    let change = |actual: &Actual, released: &[u16], ports: &[u16]| {
        let mut draft = Draft::new(actual, ROOMY);
        released.iter().for_each(|port| draft.release(key(*port)));
        let frontends = ports.iter().map(|port| WantedFrontend {
            key: key(*port),
            set: None,
            local: None,
            value: blank(),
        });
        let wanted =
            Wanted { counter_id: 1, frontends: frontends.collect(), source_ranges: vec![] };
        draft.serve(&wanted, &mut Ids::default()).unwrap();
        let (steps, after) = steps(actual, &draft.finish(|| LOCAL_DEFAULT));
        let of_ports = |step: &String| step.contains("node ports") || step.contains("frontends");
        let steps: Vec<String> = steps.into_iter().filter(of_ports).collect();
        let order = steps.iter().map(|step| step.split(' ').next().unwrap_or_default());
        let bounds = steps.iter().filter_map(|step| step.strip_prefix("node ports "));
        (order.collect::<Vec<_>>().join(" "), bounds.map(str::to_owned).collect::<Vec<_>>(), after)
    };
    let mut actual = Actual::default();
    for (released, ports, order, bounds) in [
        (&[][..], &[30080, 80][..], "node +frontends", &["(80, 30080)"][..]),
        (&[], &[30080, 80, 8080], "+frontends", &[]),
        (&[80], &[25000], "-frontends +frontends node", &["(8080, 30080)"]),
        (&[30080], &[65535], "-frontends node +frontends", &["(8080, 65535)"]),
        (&[8080], &[20000], "-frontends +frontends node", &["(20000, 65535)"]),
        (&[65535, 25000], &[], "-frontends node", &["(20000, 20000)"]),
        (&[20000], &[1], "-frontends node +frontends node", &["(1, 20000)", "(1, 1)"]),
        (&[1], &[], "-frontends node", &["(1, 0)"]),
    ] {
        let (steps, ranges, after) = change(&actual, released, ports);
        assert_eq!(
            (steps.as_str(), ranges.as_slice()),
            (order, &bounds.iter().map(|b| (*b).to_owned()).collect::<Vec<_>>()[..]),
            "-{released:?} +{ports:?}"
        );
        actual = after;
    }
}

#[test]
fn deltas_of_one_service() {
    let (one, other) = (set(&[1, 2]), set(&[3]));
    let both = held(&[(5, &[1, 2])], &[(10, 5), (11, 5)]);
    let apart = held(&[(5, &[1, 2]), (6, &[1, 2])], &[(10, 5), (11, 6)]);
    let stray = held(&[(5, &[1, 2]), (9, &[7])], &[(10, 5), (11, 5)]);
    type Frontends<'a> = &'a [(u8, Option<&'a BackendSet>)];
    type Case<'a> = (&'a str, &'a Actual, &'a [u8], Frontends<'a>, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        ("as it is", &both, &[], &[(10, Some(&one)), (11, Some(&one))], &[]),
        (
            "a third frontend joins the set",
            &both,
            &[],
            &[(10, Some(&one)), (11, Some(&one)), (12, Some(&one))],
            &["+frontends [(12, 5, 2)]"],
        ),
        (
            "one of two frontends ends, its set stays",
            &both,
            &[11],
            &[(10, Some(&one))],
            &["-frontends [11]"],
        ),
        (
            "one of two gets another set",
            &both,
            &[],
            &[(10, Some(&one)), (11, Some(&other))],
            &["+backends [(1, 0, 3)]", "+frontends [(11, 1, 1)]"],
        ),
        (
            "both get another set, the same",
            &both,
            &[],
            &[(10, Some(&other)), (11, Some(&other))],
            &[
                "+backends [(1, 0, 3)]",
                "+frontends [(10, 1, 1), (11, 1, 1)]",
                "-backends [(5, 0), (5, 1)]",
            ],
        ),
        (
            "no endpoints any more",
            &both,
            &[],
            &[(10, None), (11, None)],
            &["+frontends [(10, 0, 0), (11, 0, 0)]", "-backends [(5, 0), (5, 1)]"],
        ),
        (
            "everything ends",
            &both,
            &[10, 11],
            &[],
            &["-frontends [10, 11]", "-backends [(5, 0), (5, 1)]"],
        ),
        (
            "equal sets become one",
            &apart,
            &[],
            &[(10, Some(&one)), (11, Some(&one))],
            &["+frontends [(11, 5, 2)]", "-backends [(6, 0), (6, 1)]"],
        ),
        (
            "a set nothing leads to is swept",
            &stray,
            &[],
            &[(10, Some(&one)), (11, Some(&one))],
            &["-backends [(9, 0)]"],
        ),
    ];
    for (name, actual, released, frontends, expected) in cases {
        let service = Service { counter_id: 1, frontends };
        let (delta, results) = draft(actual, released, &[service], ROOMY);
        assert_eq!(results, [Ok(())], "{name}");
        let (steps, after) = steps(actual, &delta);
        assert_eq!(steps, *expected, "{name}");
        let service = Service { counter_id: 1, frontends };
        assert!(draft(&after, released, &[service], ROOMY).0.is_empty(), "{name}: not at rest");
    }
}

#[test]
fn a_set_with_a_hole_is_replaced_and_never_taken_up() {
    let mut image = image(&[], &[]);
    let content = set(&[1, 2]);
    let value = FrontendValue { set_id: 5, counter_id: 1, backends: 2, ..blank() };
    image.frontends.insert(frontend(10), value.into());
    image.backends.insert(BackendKey { set_id: 5, slot: 1 }, content[1]);
    let actual = read(&image);
    let service = Service { counter_id: 1, frontends: &[(10, Some(&content))] };
    let (delta, _) = draft(&actual, &[], &[service], ROOMY);
    let (steps, after) = steps(&actual, &delta);
    assert_eq!(
        steps,
        ["+backends [(1, 0, 1), (1, 1, 2)]", "+frontends [(10, 1, 2)]", "-backends [(5, 1)]"]
    );
    assert_eq!(after.slots(), 2);
}

/// The first backends are copies: a reader that finds them never looks at the set itself.
#[test]
fn first_backends_are_those_of_the_set_and_written_again_where_they_are_not() {
    let content = set(&[1, 2]);
    let serve = |actual: &Actual| {
        let frontends = [(10, Some(&content)), (11, None)];
        let service = Service { counter_id: 1, frontends: &frontends };
        let (delta, _) = draft(actual, &[], &[service], ROOMY);
        let put = delta.steps(actual).into_iter().find_map(|step| match step {
            Step::PutFrontends(entries) => Some(entries),
            _ => None,
        });
        let (_, after) = steps(actual, &delta);
        (put.unwrap_or_default(), after)
    };
    let firsts = |entries: &[(FrontendKey, FrontendEntry)]| -> Vec<(u8, Option<Backend>)> {
        entries.iter().map(|(key, entry)| (key.address[0], entry.first.get(key, 0))).collect()
    };
    let (written, after) = serve(&Actual::default());
    assert_eq!(firsts(&written), [(10, Some(content[0])), (11, None)]);
    assert!(serve(&after).0.is_empty(), "at rest");

    let mut spoilt = image(&[(5, &[1, 2])], &[(10, 5), (11, 0)]);
    let value = spoilt.frontends[&frontend(10)].value;
    spoilt.frontends.insert(frontend(10), beside(10, value, &[9]));
    let (written, after) = serve(&read(&spoilt));
    assert_eq!(firsts(&written), [(10, Some(content[0]))]);
    assert!(serve(&after).0.is_empty(), "repaired");
}

#[test]
fn a_frontend_that_moves_to_another_service_takes_no_set_with_it() {
    let actual = held(&[(5, &[1, 2])], &[(10, 5), (11, 5)]);
    let (old, new) = (set(&[1, 2]), set(&[9]));
    let services = [
        Service { counter_id: 1, frontends: &[(10, Some(&old))] },
        Service { counter_id: 2, frontends: &[(11, Some(&new))] },
    ];
    let (delta, _) = draft(&actual, &[], &services, ROOMY);
    let (steps, _) = steps(&actual, &delta);
    assert_eq!(steps, ["+backends [(1, 0, 9)]", "+frontends [(11, 1, 1)]"]);
}

#[test]
fn full_frontends_leave_out_what_is_new_and_nothing_else() {
    let actual = held(&[(5, &[1])], &[(10, 5), (11, 5)]);
    let new = set(&[2]);
    let tight = Capacities { frontends: 2, ..ROOMY };
    let frontends = [(10, Some(&new)), (12, Some(&new))];
    let service = || [Service { counter_id: 1, frontends: &frontends }];
    let (delta, results) = draft(&actual, &[], &service(), tight);
    assert_eq!(results, [Err(FullMap::Frontends)]);
    let put = "+frontends [(10, 1, 1)]";
    assert_eq!(steps(&actual, &delta).0, ["+backends [(1, 0, 2)]", put]);

    let (delta, results) = draft(&actual, &[11], &service(), tight);
    assert_eq!(results, [Ok(())], "what is deleted makes room");
    assert_eq!(steps(&actual, &delta).0[2], "+frontends [(10, 1, 1), (12, 1, 1)]");
}

#[test]
fn full_backends_leave_the_service_as_it_is() {
    let actual = held(&[(5, &[1, 2])], &[(10, 5)]);
    let new = set(&[3, 4]);
    for (backends, expected) in [(3, Err(FullMap::Backends)), (4, Ok(()))] {
        let service = Service { counter_id: 1, frontends: &[(10, Some(&new))] };
        let capacities = Capacities { backends, ..ROOMY };
        let (delta, results) = draft(&actual, &[], &[service], capacities);
        assert_eq!(results, [expected], "room for {backends}");
        assert_eq!(delta.is_empty(), expected.is_err(), "room for {backends}");
    }
}

#[test]
fn a_set_of_local_backends_lives_as_long_as_it_is_led_to() {
    let (all, local) = (set(&[1, 2, 3]), set(&[9]));
    let actual = held(&[(5, &[1, 2, 3])], &[(10, 5)]);
    let wanted = |local, local_backends| Wanted {
        counter_id: 1,
        frontends: vec![WantedFrontend {
            key: frontend(10),
            set: Some(&all),
            local,
            value: FrontendValue { local_backends, ..blank() },
        }],
        source_ranges: vec![],
    };
    let serve = |actual: &Actual, wanted: &Wanted<'_>| {
        let mut ids = Ids::after([5]);
        let mut draft = Draft::new(actual, ROOMY);
        draft.serve(wanted, &mut ids).unwrap();
        draft.finish(|| LOCAL_DEFAULT)
    };
    let delta = serve(&actual, &wanted(Some(&local), 1));
    let (first, after) = steps(&actual, &delta);
    assert_eq!(first.len(), 2, "{first:?}");
    let value = after.frontends()[&frontend(10)];
    assert_ne!((value.set_id, value.local_set_id), (5, 5));
    assert!(serve(&after, &wanted(Some(&local), 1)).is_empty(), "at rest");
    let (second, _) = steps(&after, &serve(&after, &wanted(Some(&all), 2)));
    assert_eq!(
        second,
        ["+frontends [(10, 5, 3)]".to_owned(), format!("-backends [({}, 0)]", value.local_set_id)],
        "the head of the other set needs none of its own"
    );
}

#[test]
fn source_ranges_are_there_before_the_frontend_and_gone_after_it() {
    let all = set(&[1]);
    let range = |n: u8| SourceRangeKey { prefix_len: 160, counter_id: 1, address: [n; 16] };
    let wanted = |ranges: &[u8]| Wanted {
        counter_id: 1,
        frontends: vec![WantedFrontend {
            key: frontend(10),
            set: Some(&all),
            local: None,
            value: FrontendValue { flags: u16::from(!ranges.is_empty()) * 8, ..blank() },
        }],
        source_ranges: ranges.iter().map(|n| range(*n)).collect(),
    };
    let serve = |actual: &Actual, wanted: &Wanted<'_>| {
        let mut draft = Draft::new(actual, ROOMY);
        draft.serve(wanted, &mut Ids::after([5])).unwrap();
        let delta = draft.finish(|| LOCAL_DEFAULT);
        steps(actual, &delta)
    };
    let (first, after) = serve(&held(&[(5, &[1])], &[(10, 5)]), &wanted(&[1, 2]));
    assert_eq!(first, ["+ranges 2", "+frontends [(10, 5, 1)]"]);
    let (second, after) = serve(&after, &wanted(&[2, 3]));
    assert_eq!(second, ["+ranges 1", "-ranges 1"]);
    let (third, after) = serve(&after, &wanted(&[]));
    assert_eq!(third, ["+frontends [(10, 5, 1)]", "-ranges 2"]);
    assert_eq!(after.limited().count(), 0);
}

#[test]
fn what_is_not_as_it_was_written_is_counted_entry_by_entry() {
    let mut image = image(&[(5, &[1, 2]), (6, &[3])], &[(10, 5), (11, 6)]);
    let range = |n: u8| SourceRangeKey { prefix_len: 160, counter_id: 1, address: [n; 16] };
    image.source_ranges.extend([range(1), range(2)]);
    let expected = read(&image);
    let differences = |change: &dyn Fn(&mut Image)| {
        let mut found = image.clone();
        change(&mut found);
        let mut check = Check::new(&expected);
        found.entries().for_each(|entry| check.take(entry));
        check.differences()
    };
    let slot = |set_id, slot| BackendKey { set_id, slot };
    let backend = set(&[9])[0];
    type Change<'a> = &'a dyn Fn(&mut Image);
    let cases: [(&str, Change<'_>, usize); 12] = [
        ("nothing", &|_| {}, 0),
        ("a frontend is gone", &|image| _ = image.frontends.remove(&frontend(10)), 1),
        ("a frontend came", &|image| _ = image.frontends.insert(frontend(12), blank().into()), 1),
        (
            "a frontend leads elsewhere",
            &|i| _ = i.frontends.insert(frontend(10), blank().into()),
            1,
        ),
        (
            "a first backend is another",
            &|i| {
                let value = i.frontends[&frontend(10)].value;
                i.frontends.insert(frontend(10), beside(10, value, &[9]));
            },
            1,
        ),
        ("a slot is gone", &|image| _ = image.backends.remove(&slot(5, 0)), 1),
        ("a slot is another", &|image| _ = image.backends.insert(slot(5, 1), backend), 1),
        ("a slot too many", &|image| _ = image.backends.insert(slot(5, 2), backend), 1),
        ("a set came", &|image| _ = image.backends.insert(slot(7, 0), backend), 1),
        (
            "a range for another",
            &|image| {
                image.source_ranges.remove(&range(1));
                image.source_ranges.insert(range(3));
            },
            2,
        ),
        ("ports are others", &|image| image.source_ports = PortRange::new(1, 2), 1),
        ("all of it", &|image| *image = Image::default(), 8),
    ];
    for (name, change, expected) in cases {
        assert_eq!(differences(change), expected, "{name}");
    }
}
