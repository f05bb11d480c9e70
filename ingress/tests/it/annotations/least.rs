//! `load-balance: least_conn`.

use std::{net::SocketAddr, sync::Arc};

use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, watch},
    time::timeout,
};

use super::site;
use crate::support::{
    PATIENCE, World,
    client::{get, read_to_close},
    objects::{IngressExt, backend},
    upstream::{Upstream, dead},
};

/// A client whose request the endpoint that tells of it has now.
async fn waiting_at(arrived: &Notify, role: SocketAddr) -> TcpStream {
    let asking = async {
        loop {
            let mut client = TcpStream::connect(role).await.unwrap();
            let head = b"GET / HTTP/1.1\r\nHost: least.example\r\nConnection: close\r\n\r\n";
            client.write_all(head).await.unwrap();
            tokio::select! {
                () = arrived.notified() => break client,
                // The other one had it.
                _ = read_to_close(&mut client) => {}
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("it is sent nothing")
}

#[tokio::test]
async fn an_endpoint_that_has_not_answered_gets_no_more_while_others_are_idle() {
    const MEANWHILE: usize = 12;
    let fast = Upstream::echo("fast").await;
    let (arrived, (open, is_open)) = (Arc::new(Notify::new()), watch::channel(false));
    let told = arrived.clone();
    let slow = Upstream::serve(move |_| {
        let (told, mut is_open) = (told.clone(), is_open.clone());
        async move {
            told.notify_one();
            let _ = is_open.wait_for(|is_open| *is_open).await;
            Response::new(Full::new(Bytes::from("slow\n")))
        }
    })
    .await;
    let mut objects = backend("web", &[fast.address, slow.address]);
    objects.push(site("least", &[("load-balance", "least_conn")]).object());
    objects.push(site("bad", &[("load-balance", "least_time")]).object());
    let world = World::single(objects).await;
    let others = async || {
        let mut names = Vec::new();
        for _ in 0..MEANWHILE {
            names.push(get(world.http(), "least.example", "/").await.who().1.to_owned());
        }
        names
    };
    let gone = waiting_at(&arrived, world.http()).await;
    assert_eq!(others().await, ["fast"; MEANWHILE]);
    // Its request is over with the client: it is as idle as the other one.
    drop(gone);
    let mut waiting = waiting_at(&arrived, world.http()).await;
    assert_eq!(others().await, ["fast"; MEANWHILE]);
    open.send_replace(true);
    let answer = read_to_close(&mut waiting).await;
    assert!(answer.ends_with("slow\n"), "{answer}");
    let slow_ones = others().await.iter().filter(|name| *name == "slow").count();
    assert_eq!(slow_ones, MEANWHILE / 2, "in rounds: it has answered all");
    assert_eq!(world.reasons("bad").len(), 1);
}

#[tokio::test]
async fn a_tried_endpoint_is_not_asked_again_for_being_idle() {
    let good = Upstream::echo("good").await;
    let mut objects = backend("web", &[good.address, dead().await]);
    objects.push(site("least", &[("load-balance", "least_conn")]).object());
    let world = World::single(objects).await;
    for _ in 0..6 {
        assert_eq!(get(world.http(), "least.example", "/").await.who(), (200, "good"));
    }
}
