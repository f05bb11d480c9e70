//! `loadbalance weighted`, as clients see it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fairlead_dns::start;
use fairlead_state::{Store, model::Kind};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    contract::objects,
    forward::{address, reply_to, soa, upstream},
    world::{PATIENCE, World, by, query, tcp, udp},
};

fn corefile(file: &Path, reload: &str, to: std::net::SocketAddr) -> String {
    let file = file.display();
    format!(
        ".:53 {{\n loadbalance weighted {file} {{\n reload {reload}\n }}\n kubernetes cluster.local\n \
         cache\n forward . {to}\n}}\n"
    )
}

/// Three addresses, of IPv4.
async fn three() -> std::net::SocketAddr {
    upstream(|asked| {
        let mut reply = reply_to(asked, ResponseCode::NoError);
        match asked.queries[0].query_type() {
            RecordType::A => {
                reply.answers = (1..=3).map(|last| address("www.example.", 60, last)).collect();
            }
            _ => reply.authorities = vec![soa("example.")],
        }
        vec![reply]
    })
    .await
}

fn first(reply: &Message) -> String {
    reply.answers[0].data.to_string()
}

/// A file, and the folder it goes with.
fn weights(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    fs::write(&file, text).unwrap();
    (folder, file)
}

/// Of `count` addresses the heavy one comes first; one time in 128 it is another.
async fn comes_first(heavy: &str, count: usize, ask: impl AsyncFn(usize) -> Message) {
    let mut heavies = 0;
    for turn in 0..50 {
        let reply = ask(turn).await;
        assert_eq!(reply.answers.len(), count, "{reply}");
        heavies += usize::from(first(&reply) == heavy);
    }
    assert!(heavies > 40, "{heavy}: {heavies} of 50");
}

#[tokio::test]
async fn the_first_address_is_chosen_by_weight_whoever_answers() {
    let (_folder, file) =
        weights("www.example\n192.0.2.2 255\nDB.demo.svc.cluster.local\n10.1.0.2 255\n");
    let world = World::by(&corefile(&file, "30s", three().await), objects()).await;
    for (name, heavy, count) in
        [("www.example.", "192.0.2.2", 3), ("db.demo.svc.cluster.local.", "10.1.0.2", 2)]
    {
        let asked = query(name, RecordType::A);
        let ask = async |turn: usize| match turn % 2 {
            0 => udp(world.v4(), &asked).await,
            _ => tcp(world.v4(), &asked).await,
        };
        comes_first(heavy, count, ask).await;
    }
    world.end().await;
}

#[tokio::test]
async fn addresses_that_dns64_makes_stay_in_the_order_of_those_they_are_made_of() {
    let (_folder, file) = weights("www.example\n192.0.2.2 255\n");
    let corefile = corefile(&file, "30s", three().await)
        .replace(" cache\n", " cache\n dns64 {\n allow_ipv4\n }\n");
    let world = World::by(&corefile, vec![]).await;
    let ask = async |_: usize| world.ask("www.example.", RecordType::AAAA).await;
    comes_first("64:ff9b::c000:202", 3, ask).await;
    world.end().await;
}

#[tokio::test]
async fn new_weights_are_in_force_without_a_reload_of_the_corefile() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    // It comes later.
    let world = World::by(&corefile(&file, "1s", three().await), vec![]).await;
    for heavy in ["192.0.2.3", "192.0.2.1"] {
        fs::write(&file, format!("www.example\n{heavy} 255\n")).unwrap();
        let heavier = async {
            let mut in_a_row = 0;
            while in_a_row < 20 {
                let is_heavy = first(&world.ask("www.example.", RecordType::A).await) == heavy;
                in_a_row = if is_heavy { in_a_row + 1 } else { 0 };
            }
        };
        timeout(PATIENCE, heavier).await.expect("new weights");
    }
    world.end().await;
}

#[tokio::test]
async fn a_wrong_file_of_weights_is_refused_and_the_old_corefile_stays() {
    let (_folder, file) = weights("www.example\n192.0.2.1 1\n192.0.2.2 heavy\n");
    let wrong = by(&corefile(&file, "30s", three().await));
    let (_store, snapshots) = Store::new([Kind::Service]);
    let error = start(&wrong, snapshots, CancellationToken::new()).unwrap_err().to_string();
    assert!(error.contains("weights: line 3: \"192.0.2.2 heavy\": give a weight"), "{error}");
    let world = World::by(".:53 {\n kubernetes cluster.local\n}\n", objects()).await;
    assert_eq!(world.running.renew(&wrong).unwrap_err().to_string(), error);
    let kept = world.ask("web.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(kept.answers.len(), 1);
    world.end().await;
}
