use std::net::IpAddr;

use super::{answers::ANSWERS_MAX, *};
use crate::{
    fair::{Queue, Room},
    routes::Interfaces,
};

fn finder(namespace: &str) -> Finder {
    let resolve = |_: &str| Ok(vec![IpAddr::from([192, 0, 2, 1])]);
    Finder::asking(&Queue::new(1), namespace, &Interfaces::of_node(), resolve)
}

/// One of an Ingress of this namespace, whose answers are remembered.
fn authority(namespace: &str, room: &Room) -> Authority {
    let asking = Asking::remembering("http://auth.example/", "$http_x_token");
    let answers = Arc::new(Answers::within(room.clone(), namespace.into()));
    Authority { answers, ..Authority::new(asking, finder(namespace), None) }
}

fn answer(status: StatusCode, bytes: usize) -> Answer {
    let value = HeaderValue::from_str(&"x".repeat(bytes)).unwrap();
    let fields = HeaderMap::from_iter([(http::header::FROM, value)]);
    Answer { status, fields, cookies: Vec::new(), challenge: None }
}

fn key(number: usize) -> AnswerKey {
    answer_key(&number.to_string()).unwrap()
}

/// This was said about the request with that number.
fn say(authority: &Authority, number: usize, status: StatusCode, bytes: usize) {
    let keeping = Keeping { longest: None, varies_by: Box::new([]) };
    authority.remember(key(number), &HeaderMap::new(), &answer(status, bytes), keeping);
}

fn knows(authority: &Authority, number: usize) -> bool {
    authority.remembered(&key(number), &HeaderMap::new()).is_some()
}

/// A field of an answer may be as long as a head, and of each Ingress thousands are remembered.
#[test]
fn attack_long_answers_at_many_ingresses_of_one_namespace_leave_room_for_another_s() {
    const BYTES: usize = 10_000;
    let room = Room::new(100 * BYTES);
    let say = |authority: &Authority, number| say(authority, number, StatusCode::OK, BYTES);
    let tenant: Vec<_> = (0..10).map(|_| authority("tenant", &room)).collect();
    for authority in &tenant {
        (0..20).for_each(|number| say(authority, number));
    }
    let known = tenant.iter().flat_map(|authority| (0..20).map(|number| knows(authority, number)));
    let known = known.filter(|known| *known).count();
    assert!(known > 40 && known <= 50, "{known}");
    let other = authority("other", &room);
    (0..20).for_each(|number| say(&other, number));
    assert!((0..20).all(|number| knows(&other, number)));
    // What is forgotten makes room.
    drop(tenant);
    let again = authority("tenant", &room);
    (0..30).for_each(|number| say(&again, number));
    assert!((0..30).all(|number| knows(&again, number)));
}

/// Until then whoever came later was asked about at each request.
#[test]
fn bug_a_full_memory_takes_who_comes_later_in_place_of_who_came_first() {
    let authority = authority("shop", &Room::new(usize::MAX));
    for number in 0..ANSWERS_MAX + 3 {
        say(&authority, number, StatusCode::OK, 1);
        assert!(knows(&authority, number), "{number}");
    }
    assert_eq!(authority.answers.len(), ANSWERS_MAX);
    assert!((0..3).all(|number| !knows(&authority, number)) && knows(&authority, 3));
}

#[test]
fn attack_whoever_is_refused_pushes_out_nobody_who_is_let_in() {
    let authority = authority("shop", &Room::new(usize::MAX));
    let guests = 0..ANSWERS_MAX - 10;
    guests.clone().for_each(|number| say(&authority, number, StatusCode::OK, 1));
    let strangers = guests.end..guests.end + 100;
    for number in strangers.clone() {
        say(&authority, number, StatusCode::UNAUTHORIZED, 1);
        assert!(knows(&authority, number), "{number}");
    }
    assert!(guests.clone().all(|number| knows(&authority, number)));
    // They make way for guests, and then are not remembered.
    let late = strangers.end..strangers.end + 10;
    late.clone().for_each(|number| say(&authority, number, StatusCode::OK, 1));
    say(&authority, late.end, StatusCode::UNAUTHORIZED, 1);
    assert!(guests.chain(late.clone()).all(|number| knows(&authority, number)));
    assert!(!strangers.clone().chain([late.end]).any(|number| knows(&authority, number)));
}

#[test]
fn an_answer_out_of_date_gives_way_before_one_that_is_not() {
    let authority = authority("shop", &Room::new(6_600));
    for number in 0..2 {
        say(&authority, number, StatusCode::OK, 1_000);
        assert!(knows(&authority, number), "{number}");
    }
    authority.answers.expire(&key(1));
    say(&authority, 2, StatusCode::OK, 1_000);
    assert_eq!([0, 1, 2].map(|number| knows(&authority, number)), [true, false, true]);
}

#[test]
fn a_namespace_with_more_than_its_share_gives_it_back_with_each_answer() {
    let room = Room::new(10_000);
    let authority = authority("shop", &room);
    for number in 0..3 {
        say(&authority, number, StatusCode::OK, 1_000);
        assert!(knows(&authority, number), "{number}");
    }
    let _others = room.lease(&"other".into(), 5_000).unwrap();
    for is_known in [false, true] {
        say(&authority, 3, StatusCode::OK, 1_000);
        assert_eq!((knows(&authority, 3), authority.answers.len()), (is_known, 2));
    }
}

/// A certificate of one host that is renewed had everybody asked about again, and each authority looked up.
#[test]
fn bug_what_is_known_goes_on_when_an_ingress_is_read_again_and_asks_the_same() {
    const URL: &str = "http://auth.example/";
    let old = Authority::new(Asking::remembering(URL, "$http_x_token"), finder("shop"), None);
    say(&old, 0, StatusCode::OK, 1);
    let narrow = || finder("shop").allowing("::1/128");
    for (case, url, key, finder, keeps_places, keeps_answers) in [
        ("the same", URL, "$http_x_token", finder("shop"), true, true),
        ("another key", URL, "$http_x_other", finder("shop"), true, false),
        ("another path", "http://auth.example/x", "$http_x_token", finder("shop"), false, false),
        ("another scheme", "https://auth.example/", "$http_x_token", finder("shop"), false, false),
        ("attack: not allowed any more", URL, "$http_x_token", narrow(), false, false),
    ] {
        let new = Authority::new(Asking::remembering(url, key), finder, Some(&old));
        assert_eq!(Arc::ptr_eq(&old.places, &new.places), keeps_places, "{case}");
        assert_eq!(knows(&new, 0), keeps_answers, "{case}");
    }
}

#[test]
fn copies_under_way_count_when_an_ingress_is_read_again() {
    let old = Mirror::new(Copies::to("http://one.example/"), finder("shop"), None);
    let under_way: Vec<_> = (0..COPIES_MAX).map(|_| old.begin().unwrap()).collect();
    for (url, keeps_places) in [("http://one.example/", true), ("http://two.example/", false)] {
        let new = Mirror::new(Copies::to(url), finder("shop"), Some(&old));
        assert!(new.begin().is_none(), "{url}");
        assert_eq!(Arc::ptr_eq(&old.places, &new.places), keeps_places, "{url}");
    }
    drop(under_way);
    let new = Mirror::new(Copies::to("http://two.example/"), finder("shop"), Some(&old));
    assert!(new.begin().is_some());
}
