//! While the server is not heard: watches that end, histories that are gone, outages.

use std::{collections::BTreeSet, time::Instant};

use fairlead_state::{Key, Kind};

use super::{Followed, LIMIT, secret, service, services};
use crate::support::apiserver::ApiServer;

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke_off() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until("in sync", |_| true).await;
    for port in 81..84 {
        server.disconnect_all();
        server.put(service("a", port));
        let expected = [format!("a:{port}")];
        followed.until("the change", |s| services(s) == expected).await;
    }
    let requests = server.requests();
    assert_eq!((requests.streaming_lists, requests.lists), (1, 0), "nothing was listed again");
    assert!(requests.watches >= 3);
}

#[tokio::test]
async fn a_watch_the_server_ends_is_taken_up_from_its_last_bookmark() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until("in sync", |_| true).await;
    // Versions move on by objects this watch does not see; the bookmark tells it.
    server.put_all((0..10).map(|i| secret(&format!("s{i}"), "x")));
    let before = followed.running.health.borrow().kinds[&Kind::Service].last_contact;
    server.bookmark();
    let limit = Instant::now() + LIMIT;
    while followed.running.health.borrow().kinds[&Kind::Service].last_contact == before {
        assert!(Instant::now() < limit, "the bookmark is a contact");
        tokio::task::yield_now().await;
    }
    server.compact();
    server.end_watches();
    server.put(service("a", 81));
    followed.until("the change", |s| services(s) == ["a:81"]).await;
    let requests = server.requests();
    assert_eq!(requests.streaming_lists + requests.lists, 1, "410 was avoided by the bookmark");
}

/// An update lost with a compacted history must be found by listing, and nothing may flicker.
#[tokio::test]
async fn after_410_gone_a_new_list_replaces_everything_in_one_step() {
    for streaming in [true, false] {
        let server = ApiServer::start().await;
        if !streaming {
            server.without_streaming_lists();
        }
        server.put_all((0..900).map(|i| service(&format!("old{i}"), 80)));
        server.put(service("stays", 80));
        let mut followed = Followed::start(&server, [Kind::Service]).await;
        followed.until("in sync", |_| true).await;
        server.pause();
        for i in 0..900 {
            server.delete("Service", "default", &format!("old{i}"));
        }
        server.put_all((0..700).map(|i| service(&format!("new{i}"), 80)));
        server.compact();
        server.resume();
        followed.until("the new ones", |s| s.services().len() == 701).await;
        let sizes: BTreeSet<usize> =
            followed.history.iter().map(|snapshot| snapshot.services().len()).collect();
        assert_eq!(sizes, BTreeSet::from([701, 901]), "old or new, never in between");
        let stays = Key::new("default", "stays");
        assert!(followed.history.iter().all(|s| s.services().contains_key(&stays)));
        assert_eq!(followed.history.last().unwrap().revision(), 2);
    }
}

#[tokio::test]
async fn a_list_that_expires_between_its_pages_is_begun_again() {
    let server = ApiServer::start().await;
    server.without_streaming_lists();
    server.put_all((0..600).map(|i| service(&format!("s{i}"), 80)));
    // Each page is answered and at once forgotten.
    let compacting = async {
        loop {
            server.compact();
            tokio::task::yield_now().await;
        }
    };
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    tokio::select! {
        () = compacting => {}
        snapshot = followed.until("in sync", |_| true) => {
            assert_eq!(snapshot.services().len(), 600);
            let requests = server.requests();
            assert!(requests.pages >= 1 && requests.lists >= 2, "{requests:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_waited_for() {
    let server = ApiServer::start_unreachable();
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until_health("refused", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    let error = followed.running.health.borrow().kinds[&Kind::Service].last_error.clone();
    assert!(error.unwrap().contains("Connection refused"), "the cause is named");
    assert!(!followed.is_published());
    server.resume();
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!(services(&snapshot), ["a:80"]);
    let health = followed.running.health.borrow().clone();
    assert_eq!(health.stale_for(Instant::now()), None);
}

#[tokio::test]
async fn an_outage_keeps_the_last_snapshot_and_says_how_old_it_is() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until("in sync", |_| true).await;
    server.pause();
    followed.until_health("cut off", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    let health = followed.running.health.borrow().clone();
    assert!(health.stale_for(Instant::now()).is_some());
    assert!(health.is_synced());
    assert!(followed.is_published());
    server.put(service("a", 81));
    server.resume();
    followed.until("the change", |s| services(s) == ["a:81"]).await;
    followed.until_health("back", |h| h.stale_for(Instant::now()).is_none()).await;
}

#[tokio::test]
async fn a_server_that_answers_503_is_asked_again() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    server.answer_with(Some(503));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until_health("503", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    server.answer_with(None);
    followed.until("in sync", |_| true).await;
}
