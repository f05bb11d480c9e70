use super::*;
use crate::names::{FIRST_LOOKUPS_MAX, PLACES};

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Step {
    Want(&'static [&'static str]),
    Take(&'static [&'static str]),
    /// Until that millisecond.
    PutBack(&'static str, u64),
    Next(Option<u64>),
}
use Step::*;

fn wanted(namespace: &str, names: impl IntoIterator<Item = Name>) -> BTreeMap<Name, Wanted> {
    let namespaces = Arc::from([Name::from(namespace)]);
    let wanted = Wanted { namespaces, is_unknown: false };
    names.into_iter().map(|name| (name, wanted.clone())).collect()
}

fn names(texts: &[&str]) -> BTreeMap<Name, Wanted> {
    wanted("default", texts.iter().map(|text| Name::from(*text)))
}

/// Each at its millisecond. One namespace has half of the places.
fn follow(places: Places, steps: &[(u64, Step)]) {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut turns = Turns::new(places);
    for (i, (now, step)) in steps.iter().enumerate() {
        let now = at(*now);
        match step {
            Want(wanted) => turns.want(&names(wanted), now),
            PutBack(name, due) => turns.put_back(&(*name).into(), now, at(*due)),
            Take(taken) => assert_eq!(turns.take(now), *taken, "step {i}"),
            Next(next) => assert_eq!(turns.next_after(now), next.map(at), "step {i}"),
        }
    }
}

#[test]
fn who_waits_longest_is_asked_for_first_whatever_its_name() {
    let steps = [
        (0, Take(&[])),
        (0, Next(None)),
        (0, Want(&["c", "d"])),
        (1, Want(&["a", "b", "c", "d"])),
        (1, Take(&["c", "d"])),
        (1, Take(&[])),
        // `a` would be taken again and again, before the others ever are.
        (2, PutBack("c", 2)),
        (2, Take(&["a"])),
        (3, PutBack("a", 3)),
        (3, Take(&["b"])),
        (4, PutBack("d", 9000)),
        (4, Take(&["c"])),
        (5, PutBack("c", 14)),
        (5, Take(&["a"])),
        (6, PutBack("b", 15)),
        (6, Next(Some(14))),
        (6, Take(&[])),
        (14, Take(&["c"])),
        (14, PutBack("a", 14)),
        (15, Take(&["b"])),
        (15, Next(Some(514))),
    ];
    follow(Places { prompt: 4, late: 0 }, &steps);
}

#[test]
fn a_name_nobody_wants_is_forgotten_and_never_asked_for_twice_at_the_same_time() {
    let steps = [
        (0, Want(&["a", "b"])),
        (0, Take(&["a", "b"])),
        (1, Want(&["b"])),
        (1, Want(&["a", "b"])),
        (1, Take(&[])),
        (2, Want(&["b"])),
        (2, PutBack("a", 3)),
        (2, Want(&["b"])),
        (3, Take(&[])),
        (3, PutBack("a", 4)),
        (3, Next(Some(500))),
        (4, PutBack("b", 14)),
        (4, Next(Some(14))),
        (14, Take(&["b"])),
    ];
    follow(Places { prompt: 9, late: 9 }, &steps);
}

#[test]
fn names_that_take_long_have_places_of_their_own() {
    let steps = [
        (0, Want(&["d1", "d2", "d3", "d4", "d5", "ok"])),
        (0, Take(&["d1", "d2"])),
        (0, Next(Some(500))),
        (499, Take(&[])),
        (500, Take(&["d3", "d4"])),
        (500, Next(Some(1000))),
        // No more than all places, however long.
        (1000, Take(&[])),
        (1000, Next(None)),
        (1100, PutBack("d1", 2100)),
        (1100, Take(&["d5"])),
        (1600, Take(&[])),
        (1700, PutBack("d2", 2700)),
        (1700, Take(&["ok"])),
        (1710, PutBack("ok", 11_710)),
        // The one that is left is not for those who took long.
        (2100, Take(&[])),
        (2200, Want(&["d1", "d2", "d3", "d4", "d5", "new", "ok"])),
        (2200, Take(&["new"])),
        (2210, PutBack("new", 12_210)),
        (2300, PutBack("d3", 9000)),
        (2300, Take(&[])),
        (2400, PutBack("d4", 9000)),
        (2400, Take(&["d1"])),
        (2700, Take(&[])),
        // Who is answered soon again is as good as the others.
        (2800, PutBack("d1", 3800)),
        (2800, Take(&["d2"])),
        (3800, Take(&["d1"])),
    ];
    follow(Places { prompt: 4, late: 4 }, &steps);
}

#[test]
fn attack_names_that_nobody_answers_let_the_last_one_through_in_time() {
    let start = Instant::now();
    let mut turns = Turns::new(PLACES);
    let last = Name::from("last.example");
    turns.want(&wanted("default", dead(63).chain([last.clone()])), start);
    let mut now = start;
    while !turns.take(now).contains(&last) {
        now = turns.next_after(now).unwrap();
    }
    assert!(now - start < FIRST_LOOKUPS_MAX, "{:?}", now - start);
}

fn dead(count: usize) -> impl Iterator<Item = Name> {
    (0..count).map(|i| format!("dead-{i}.example").into())
}

/// However long they have been asked for.
#[test]
fn attack_ten_thousand_dead_names_of_one_namespace_leave_another_s_a_place_at_once() {
    let start = Instant::now();
    for asked_for_ms in [0, 499, 500, 60_000] {
        let mut turns = Turns::new(PLACES);
        let mut all = wanted("tenant", dead(10_000));
        turns.want(&all, start);
        let (mut now, mut asked) = (start, turns.take(start).len());
        while let Some(next) =
            turns.next_after(now).filter(|next| *next < start + asked_for_ms * MS)
        {
            now = next;
            asked += turns.take(now).len();
        }
        now = start + asked_for_ms * MS;
        asked += turns.take(now).len();
        assert!(asked <= PLACES.all() / 2, "{asked}");
        // Of the others' names one is wanted by the tenant, too.
        let others = [Name::from("a.example"), Name::from("z.example")];
        all.extend(wanted("other", others.clone()));
        let both = Wanted {
            namespaces: ["other", "tenant"].map(Name::from).into(),
            ..all[&others[1]].clone()
        };
        all.insert(others[1].clone(), both);
        turns.want(&all, now);
        let taken = turns.take(now);
        assert!(others.iter().all(|name| taken.contains(name)), "{asked_for_ms} ms: {taken:?}");
        // What ends is for whoever holds fewest: the next one of the others' names comes at once, too.
        for name in &others {
            turns.put_back(name, now + MS, now + 2 * MS);
        }
        let again = turns.take(now + 2 * MS);
        assert!(others.iter().all(|name| again.contains(name)), "{asked_for_ms} ms: {again:?}");
    }
}

#[test]
fn a_name_that_a_service_made_anew_leads_to_is_asked_for_at_once() {
    let start = Instant::now();
    let known = names(&["a", "b"]);
    let mut unknown = known.clone();
    unknown.get_mut("a").unwrap().is_unknown = true;
    let mut turns = Turns::new(PLACES);
    turns.want(&unknown, start);
    assert_eq!(turns.take(start), ["a", "b"]);
    // Under way: it is what is waited for.
    turns.want(&unknown, start + MS);
    assert!(turns.take(start + MS).is_empty());
    for name in ["a", "b"] {
        turns.put_back(&name.into(), start + 2 * MS, start + 10_000 * MS);
    }
    turns.want(&known, start + 3 * MS);
    assert!(turns.take(start + 3 * MS).is_empty());
    turns.want(&unknown, start + 4 * MS);
    assert_eq!(turns.take(start + 4 * MS), ["a"]);
    turns.put_back(&"a".into(), start + 5 * MS, start + 10_000 * MS);
    assert_eq!(turns.take(start + 10_000 * MS), ["b", "a"]);
}

#[test]
fn a_name_goes_by_those_who_want_it_now() {
    let start = Instant::now();
    let mut turns = Turns::new(Places { prompt: 2, late: 0 });
    let mut all = wanted("tenant", ["a", "b"].map(Name::from));
    turns.want(&all, start);
    assert_eq!(turns.take(start), ["a"], "one of two places");
    all.extend(wanted("other", ["b".into()]));
    turns.want(&all, start);
    assert_eq!(turns.take(start), ["b"]);
    for name in ["a", "b"] {
        turns.put_back(&name.into(), start, start);
    }
    turns.want(&wanted("other", ["b".into()]), start);
    assert_eq!(turns.take(start), ["b"]);
    turns.put_back(&"b".into(), start, start);
    turns.want(&BTreeMap::new(), start);
    assert!(turns.names.is_empty() && turns.waiting.is_empty(), "{turns:?}");
}
