//! Watches of single objects share connections: ten thousand Secrets are not as many connections.

use fairlead_state::{Key, Kind, Snapshot};
use serde_json::{Value, json};

use super::{Followed, ingress, secret};
use crate::support::apiserver::ApiServer;

const KINDS: [Kind; 2] = [Kind::Ingress, Kind::Secret];

/// So many Secrets, and an Ingress that names them.
fn named(count: usize, text: &str) -> Vec<Value> {
    let name = |i| format!("s{i}");
    let tls: Vec<Value> = (0..count).map(|i| json!({"secretName": name(i)})).collect();
    let mut ingress = ingress("i", "s0");
    ingress["spec"]["tls"] = json!(tls);
    (0..count).map(|i| secret(&name(i), text)).chain([ingress]).collect()
}

fn has(snapshot: &Snapshot, name: &str, text: &str) -> bool {
    let secret = snapshot.secrets().get(&Key::new("default", name));
    let content = secret.and_then(|secret| secret.data.get("tls.crt"));
    content.is_some_and(|content| **content == *text.as_bytes())
}

fn all_have(snapshot: &Snapshot, count: usize, text: &str) -> bool {
    (0..count).all(|i| has(snapshot, &format!("s{i}"), text))
}

/// All the Secrets are in the first snapshot.
async fn follow(server: &ApiServer, secrets: usize) -> Followed {
    server.put_all(named(secrets, "old"));
    let mut followed = Followed::start(server, KINDS).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert!(all_have(&snapshot, secrets, "old"), "all {secrets} in the first snapshot");
    followed
}

#[tokio::test]
async fn a_connection_carries_as_many_watches_as_the_server_gives_streams_and_at_most_100() {
    for (given, secrets, connections) in [(100, 500, 5), (250, 201, 3), (20, 100, 5)] {
        let server = ApiServer::start_with_tls().await;
        server.give_streams(given);
        let mut followed = follow(&server, secrets).await;
        // Ingresses have one of their own.
        assert_eq!(server.requests().connections, connections + 1, "{given} streams");
        let last = format!("s{}", secrets - 1);
        server.put(secret(&last, "new"));
        followed.until("a change", |s| has(s, &last, "new")).await;
        assert_eq!(server.requests().connections, connections + 1, "{given} streams, later");
    }
}

#[tokio::test]
async fn a_server_without_http2_is_watched_over_a_connection_each() {
    let server = ApiServer::start().await;
    let mut followed = follow(&server, 40).await;
    assert_eq!(server.requests().connections, 41);
    server.put(secret("s39", "new"));
    followed.until("a change", |s| has(s, "s39", "new")).await;
}

#[tokio::test]
async fn watches_that_the_server_ends_go_on_over_the_same_connections() {
    let server = ApiServer::start_with_tls().await;
    let mut followed = follow(&server, 150).await;
    let before = server.requests().connections;
    server.end_watches();
    server.put_all(named(150, "new"));
    followed.until("the changes", |s| all_have(s, 150, "new")).await;
    let after = server.requests();
    assert!(after.connections <= before + 1, "at most the one of Ingresses: {after:?}");
    assert_eq!(after.streaming_lists, 151, "no Secret was read again");
}

/// Each of 500 watches once made a connection at every try, and all of them at once.
#[tokio::test]
async fn after_an_outage_watches_come_back_over_as_few_connections_as_before() {
    let server = ApiServer::start_with_tls().await;
    let mut followed = follow(&server, 500).await;
    let before = server.requests().connections;
    server.pause();
    let is_cut_off = |health: &fairlead_state::SourceHealth| {
        health.kinds[&Kind::Ingress].last_error.is_some()
            && health.problems.contains_key("Secret default/s499")
    };
    followed.until_health("cut off", is_cut_off).await;
    server.put_all(named(500, "new"));
    server.resume();
    let snapshot = followed.until("the changes", |s| all_have(s, 500, "new")).await;
    assert_eq!(snapshot.secrets().len(), 500);
    let after = server.requests();
    assert!(after.connections <= 2 * before, "{before} before, {} after", after.connections);
    assert_eq!(after.streaming_lists, 501, "no Secret was read again");
}

#[tokio::test]
async fn a_connection_that_takes_no_more_requests_keeps_its_watches_beside_another() {
    let server = ApiServer::start_with_tls().await;
    let mut followed = follow(&server, 10).await;
    assert_eq!(server.requests().connections, 2);
    server.go_away();
    // GOAWAY may be overtaken by a request or two.
    for count in 11..90 {
        server.put_all(named(count, "old"));
        followed.until("a Secret more", |s| all_have(s, count, "old")).await;
        if server.requests().connections > 2 {
            break;
        }
    }
    server.put(secret("s0", "new"));
    followed.until("a change on the first connection", |s| has(s, "s0", "new")).await;
    let requests = server.requests();
    assert_eq!((requests.connections, requests.watches), (3, 0), "nothing was taken up again");
}
