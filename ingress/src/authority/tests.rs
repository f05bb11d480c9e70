use std::net::IpAddr;

use super::*;
use crate::{fair::Queue, routes::Interfaces};

/// One of an Ingress of this namespace, whose answers are remembered.
fn authority(namespace: &str, room: &Room) -> Authority {
    let resolve = |_: &str| Ok(vec![IpAddr::from([192, 0, 2, 1])]);
    let finder = Finder::asking(&Queue::new(1), namespace, &Interfaces::of_node(), resolve);
    let asking = Asking::remembering("http://auth.example/", "$http_x_token");
    Authority { room: room.clone(), ..Authority::new(asking, finder) }
}

fn answer(bytes: usize) -> Answer {
    let value = HeaderValue::from_str(&"x".repeat(bytes)).unwrap();
    let fields = HeaderMap::from_iter([(http::header::FROM, value)]);
    Answer { status: StatusCode::OK, fields, cookies: Vec::new(), challenge: None }
}

/// Whether an answer about the request with that number is remembered.
fn remembers(authority: &Authority, number: usize, bytes: usize) -> bool {
    let (key, request) = (answer_key(&number.to_string()).unwrap(), HeaderMap::new());
    let keeping = Keeping { longest: None, varies_by: Box::new([]) };
    authority.remember(key, &request, &answer(bytes), keeping);
    authority.remembered(&key, &request).is_some()
}

/// A field of an answer may be as long as a head, and of each Ingress thousands are remembered.
#[test]
fn attack_long_answers_at_many_ingresses_of_one_namespace_leave_room_for_another_s() {
    const BYTES: usize = 10_000;
    let room = Room::new(100 * BYTES);
    let tenant: Vec<_> = (0..10).map(|_| authority("tenant", &room)).collect();
    let remembered = tenant.iter().enumerate().flat_map(|(i, authority)| {
        (0..20).map(move |number| usize::from(remembers(authority, 20 * i + number, BYTES)))
    });
    let remembered: usize = remembered.sum();
    assert!(remembered * BYTES <= 50 * BYTES, "{remembered}");
    assert!(remembered > 40, "{remembered}");
    let other = authority("other", &room);
    assert!((0..20).all(|number| remembers(&other, number, BYTES)));
    // What is forgotten makes room.
    drop(tenant);
    let again = authority("tenant", &room);
    assert!((0..30).all(|number| remembers(&again, number, BYTES)));
}

#[test]
fn an_answer_out_of_date_gives_way_where_there_is_no_room() {
    let room = Room::new(3_000);
    let authority = authority("shop", &room);
    assert!(remembers(&authority, 0, 1_000) && !remembers(&authority, 1, 1_000));
    for known in authority.answers.lock().unwrap().values_mut() {
        known.until = Instant::now();
    }
    assert!(remembers(&authority, 1, 1_000));
}
