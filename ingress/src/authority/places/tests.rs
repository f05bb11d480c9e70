use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{Condvar, atomic::AtomicUsize},
};

use futures::{FutureExt, future::join_all};

use super::*;
use crate::{fair::Queue, routes::Interfaces, timer::timer};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A resolver that answers what it is told to, when it is told to.
#[derive(Default)]
struct Resolver {
    answers: Mutex<VecDeque<io::Result<Vec<IpAddr>>>>,
    changed: Condvar,
    asked: AtomicUsize,
    waiting: watch::Sender<usize>,
}

impl Resolver {
    fn finder(self: &Arc<Self>) -> Finder {
        self.finder_of("default", &Queue::new(8))
    }

    fn finder_of(self: &Arc<Self>, namespace: &str, places: &Queue) -> Finder {
        let own = self.clone();
        Finder::asking(places, namespace, &Interfaces::of_node(), move |_| own.resolve())
    }

    fn resolve(&self) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.waiting.send_modify(|waiting| *waiting += 1);
        let mut answers = self.answers.lock().unwrap();
        loop {
            if let Some(answer) = answers.pop_front() {
                self.waiting.send_modify(|waiting| *waiting -= 1);
                return answer;
            }
            answers = self.changed.wait(answers).unwrap();
        }
    }

    fn answer(&self, answer: io::Result<Vec<IpAddr>>) {
        self.answers.lock().unwrap().push_back(answer);
        self.changed.notify_one();
    }

    async fn wait_for(&self, count: usize) {
        self.waiting.subscribe().wait_for(|waiting| *waiting == count).await.unwrap();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn silent() -> io::Error {
    io::Error::other("nobody answers")
}

fn time() -> Timer {
    let (timer, keeper) = timer().unwrap();
    std::thread::spawn(move || keeper.run());
    timer
}

fn has_address(place: &Place) -> bool {
    place.upstream.has_endpoints()
}

#[test]
fn an_authority_is_a_host_and_perhaps_a_port() {
    for (text, expected) in [
        ("auth.svc", Some(("auth.svc", None))),
        ("auth.svc:8080", Some(("auth.svc", Some(8080)))),
        ("[::1]:80", Some(("[::1]", Some(80)))),
        ("[::1]", Some(("[::1]", None))),
        ("auth:99999", None),
        ("a b", None),
        ("", None),
    ] {
        assert_eq!(split(text), expected, "{text}");
    }
}

#[tokio::test]
async fn many_requests_wait_for_one_look_up() {
    let (resolver, timer) = (Arc::<Resolver>::default(), time());
    let places = Places::new(false, resolver.finder());
    let asking = join_all((0..100).map(|_| places.place("auth.svc", &timer)));
    let answering = async {
        resolver.wait_for(1).await;
        resolver.answer(Ok(vec![HERE]));
    };
    let (asked, ()) = tokio::join!(asking, answering);
    assert!(asked.iter().flatten().all(|place| has_address(place)) && asked.len() == 100);
    assert_eq!(resolver.asked(), 1);
}

#[tokio::test]
async fn with_known_addresses_nobody_waits_for_the_next_look_up() {
    let (resolver, timer) = (Arc::<Resolver>::default(), time());
    let places = Places::new(false, resolver.finder());
    resolver.answer(Ok(vec![HERE]));
    let place = places.place("auth.svc", &timer).await.unwrap();
    place.due_ms.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        let again = places.place("auth.svc", &timer).now_or_never();
        assert!(again.flatten().is_some_and(|place| has_address(&place)));
    }
    resolver.wait_for(1).await;
    assert_eq!(resolver.asked(), 2);
    let mut ended = place.ended.subscribe();
    resolver.answer(Err(silent()));
    ended.changed().await.unwrap();
    assert!(has_address(&place), "what was found before is better than nothing");
}

/// Each request for it was a look-up, and a thread, of its own.
#[tokio::test]
async fn attack_a_host_that_nobody_answers_for_is_not_looked_up_for_each_request() {
    let (resolver, timer) = (Arc::<Resolver>::default(), time());
    let places = Places::new(false, resolver.finder());
    resolver.answer(Err(silent()));
    for _ in 0..50 {
        assert!(!has_address(&places.place("dead.example", &timer).await.unwrap()));
    }
    assert_eq!(resolver.asked(), 1, "for a second");
}

/// By a variable in its auth-url a client chooses hosts.
#[tokio::test]
async fn attack_silent_hosts_of_one_ingress_leave_threads_for_others() {
    let (resolver, timer) = (Arc::<Resolver>::default(), time());
    let (one, other) = (resolver.finder(), resolver.finder());
    let places = [Places::new(false, one), Places::new(false, other)];
    for number in 0..40 {
        // Clients that leave.
        let host = format!("h{number}.example");
        assert!(places[0].place(&host, &timer).now_or_never().is_none());
    }
    resolver.wait_for(4).await;
    tokio::task::yield_now().await;
    assert_eq!(resolver.asked(), 4);
    assert!(places[1].place("auth.svc", &timer).now_or_never().is_none());
    resolver.wait_for(5).await;
    for _ in 0..41 {
        resolver.answer(Err(silent()));
    }
    resolver.wait_for(0).await;
}

/// Each Ingress of a tenant names a host of its own.
#[tokio::test]
async fn attack_dead_hosts_of_one_namespace_leave_places_for_another_s_at_once() {
    let (resolver, timer, places) = (Arc::<Resolver>::default(), time(), Queue::new(8));
    let tenants: Vec<_> = (0..50).map(|_| resolver.finder_of("tenant", &places)).collect();
    let tenants: Vec<_> = tenants.into_iter().map(|finder| Places::new(false, finder)).collect();
    for (number, places) in tenants.iter().enumerate() {
        let host = format!("dead-{number}.example");
        assert!(places.place(&host, &timer).now_or_never().is_none());
    }
    resolver.wait_for(4).await;
    let other = Places::new(false, resolver.finder_of("other", &places));
    assert!(other.place("auth.svc", &timer).now_or_never().is_none());
    resolver.wait_for(5).await;
    assert_eq!(resolver.asked(), 5, "half of the places, and the other one's");
    for _ in 0..51 {
        resolver.answer(Err(silent()));
    }
    // Whoever waited has its turn.
    while resolver.asked() < 51 {
        tokio::task::yield_now().await;
    }
    resolver.wait_for(0).await;
}

/// Those of `auth.svc` and the like lead somewhere, others nowhere.
fn knowing() -> Places {
    let resolve = |host: &str| match host.strip_suffix(".svc") {
        Some(_) => Ok(vec![HERE]),
        None => Err(silent()),
    };
    Places::new(false, Finder::asking(&Queue::new(8), "shop", &Interfaces::of_node(), resolve))
}

fn knows(places: &Places, host: &str) -> bool {
    places.known.lock().unwrap().places.contains_key(host)
}

/// With each 65th host all were forgotten, and to be looked up anew.
#[tokio::test]
async fn attack_hosts_that_clients_make_up_take_no_place_of_one_that_leads_somewhere() {
    let (places, timer) = (knowing(), time());
    assert!(has_address(&places.place("auth.svc", &timer).await.unwrap()));
    for number in 0..2 * PLACES_MAX {
        let host = format!("h{number}.example");
        assert!(!has_address(&places.place(&host, &timer).await.unwrap()));
        // However often it is asked for.
        places.place("h0.example", &timer).await.unwrap();
    }
    let again = places.place("auth.svc", &timer).now_or_never();
    assert!(again.flatten().is_some_and(|place| has_address(&place)));
    assert_eq!(places.known.lock().unwrap().places.len(), PLACES_MAX);
}

#[tokio::test]
async fn of_hosts_that_lead_somewhere_the_one_goes_that_was_not_asked_for_the_longest() {
    let (places, timer) = (knowing(), time());
    let host = |number: usize| format!("h{number}.svc");
    for number in 0..=PLACES_MAX {
        // The first one is asked for all the time.
        for number in [number, 0] {
            assert!(has_address(&places.place(&host(number), &timer).await.unwrap()));
        }
    }
    for number in 0..=PLACES_MAX {
        assert_eq!(knows(&places, &host(number)), number != 1, "{number}");
    }
}

#[tokio::test]
async fn attack_a_host_that_nobody_is_free_to_look_up_takes_no_other_one_s_place() {
    let (resolver, timer) = (Arc::<Resolver>::default(), time());
    let places = Places::new(false, resolver.finder());
    for number in 0..PLACES_MAX {
        let host = format!("h{number}.example");
        assert!(places.place(&host, &timer).now_or_never().is_none());
    }
    for number in 0..PLACES_MAX {
        let host = format!("late-{number}.example");
        let place = places.place(&host, &timer).now_or_never().flatten();
        assert!(place.is_some_and(|place| !has_address(&place)));
    }
    assert!((0..PLACES_MAX).all(|number| knows(&places, &format!("h{number}.example"))));
    for _ in 0..PLACES_MAX {
        resolver.answer(Err(silent()));
    }
    while resolver.asked() < PLACES_MAX {
        tokio::task::yield_now().await;
    }
    resolver.wait_for(0).await;
}

#[tokio::test]
async fn an_address_is_looked_up_nowhere() {
    let (resolver, timer) = (Arc::<Resolver>::default(), time());
    let places = Places::new(false, resolver.finder());
    for (host, leads) in [
        ("127.0.0.1:80", true),
        ("169.254.169.254", false),
        ("[fe80::1]", false),
        ("[::1]:1", false),
    ] {
        let place = places.place(host, &timer).await.unwrap();
        assert_eq!(has_address(&place), leads, "{host}");
    }
    assert_eq!(resolver.asked(), 0);
}

/// The kernel goes through all interfaces, of which a node has thousands: everybody on the thread waited.
#[tokio::test]
async fn the_node_s_addresses_are_read_once_for_many_hosts_and_not_on_a_thread_that_serves() {
    let (timer, reads) = (time(), Arc::new(Mutex::new(Vec::new())));
    let told = reads.clone();
    let interfaces = Interfaces::by(move || {
        told.lock().unwrap().push(std::thread::current().id());
        Ok([IpAddr::from([192, 0, 2, 1])].into())
    });
    let queue = Queue::new(8);
    let finder = || Finder::asking(&queue, "default", &interfaces, |_| Err(silent()));
    let all: Vec<_> = (0..10).map(|_| Places::new(false, finder())).collect();
    let asking = all.iter().map(|places| places.place("192.0.2.2", &timer));
    assert!(join_all(asking).await.iter().flatten().all(|place| has_address(place)));
    // What is known needs no other thread.
    let again = Places::new(false, finder()).place("192.0.2.3", &timer).now_or_never();
    assert!(again.flatten().is_some_and(|place| has_address(&place)));
    let reads = reads.lock().unwrap();
    assert!(reads.len() == 1 && reads[0] != std::thread::current().id(), "{reads:?}");
}
