//! A list of everything takes the place of what was known: nobody who asks meanwhile notices.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use fairlead_state::{
    Change,
    model::{Kind, Object},
};
use hickory_proto::rr::RecordType;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, World, namespace, query, service, slice, text, udp};

/// In every list.
const STAYING: u8 = 200;
/// Lists in a row, each with Services of its own beside those.
const LISTS: u8 = 10;

fn web(number: u8) -> String {
    format!("web{number}.demo.svc.cluster.local.")
}

fn database(number: u8) -> String {
    format!("db-0.db{number}.demo.svc.cluster.local.")
}

/// In one list alone; an odd list has more than are remembered as changes: names are all made anew.
fn passing(list: u8) -> usize {
    if list.is_multiple_of(2) { 50 } else { 9000 }
}

/// What an API server lists for the `list`th time, kind by kind.
fn listed(list: u8) -> Vec<Change> {
    let mut services = vec![];
    let mut slices = vec![];
    for number in 0..STAYING {
        services.push(service(
            "demo",
            &format!("web{number}"),
            &[&format!("10.96.0.{number}")],
            &[],
        ));
        let name = format!("db{number}");
        services.push(service("demo", &name, &[], &[]));
        let endpoint = format!("10.1.0.{number}");
        slices.push(slice("demo", &name, &format!("{name}-1"), &[], &[(&endpoint, "db-0", true)]));
    }
    services.extend((0..passing(list)).map(|number| {
        let address = format!("10.{}.{list}.{}", 97 + number / 250, number % 250);
        service("demo", &format!("of{list}-{number}"), &[&address], &[])
    }));
    let replace = |kind, objects: Vec<Object>| Change::Replace { kind, objects, refused: vec![] };
    vec![
        replace(Kind::Namespace, vec![namespace("demo")]),
        replace(Kind::Service, services),
        replace(Kind::EndpointSlice, slices),
    ]
}

/// Asks without an end for what stays, and for what never was; counts the answers.
async fn asking(server: SocketAddr, answers: Arc<AtomicU64>) {
    for number in (0..STAYING).cycle() {
        let cases = [
            (web(number), RecordType::A, format!("{} A 10.96.0.{number}", web(number))),
            (database(number), RecordType::A, format!("{} A 10.1.0.{number}", database(number))),
            (
                format!("{number}.0.1.10.in-addr.arpa."),
                RecordType::PTR,
                format!("{number}.0.1.10.in-addr.arpa. PTR {}", database(number)),
            ),
        ];
        for (name, rtype, wanted) in cases {
            let reply = udp(server, &query(&name, rtype)).await;
            assert_eq!(text(&reply.answers), [wanted], "{reply}");
            answers.fetch_add(1, Relaxed);
        }
        let denied = udp(server, &query("nope.demo.svc.cluster.local.", RecordType::A)).await;
        assert_eq!(u16::from(denied.metadata.response_code), 3, "{denied}");
    }
}

/// Whether what is in one list alone is answered.
async fn is_there(world: &World, list: u8) -> bool {
    let name = format!("of{list}-0.demo.svc.cluster.local.");
    !world.ask(&name, RecordType::A).await.answers.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_everything_gives_no_wrong_answer_while_it_takes_the_old_one_s_place() {
    // CoreDNS emptied its stores first, and for a moment every name was NXDOMAIN (coredns#1365).
    let mut world = World::with(vec![], vec![]).await;
    world.apply(listed(0)).await;
    let (stop, answers) = (CancellationToken::new(), Arc::<AtomicU64>::default());
    let until_stopped = stop.clone().run_until_cancelled_owned(asking(world.v4(), answers.clone()));
    let client = tokio::spawn(until_stopped);
    for list in 1..=LISTS {
        // One after the other, as an API server's lists come.
        for kind in listed(list) {
            world.store.apply([kind]);
        }
        let listed = async {
            while !is_there(&world, list).await {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, listed).await.expect("the new list is answered by");
        assert!(!is_there(&world, list - 1).await, "the one before list {list} is gone");
        // Somebody has asked meanwhile.
        let seen = answers.load(Relaxed);
        let asked = async {
            while answers.load(Relaxed) == seen && !client.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asked).await.expect("answers go on");
    }
    stop.cancel();
    assert!(client.await.expect("no answer was wrong").is_none());
    world.end().await;
}
