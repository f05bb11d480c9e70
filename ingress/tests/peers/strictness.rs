//! Whatever nginx or HAProxy refuses in front of a server is refused here, over HTTP/1 and HTTP/2.

mod table;

use std::{future::Future, net::SocketAddr};

use self::table::{LAXER, ROWS, Row};
use crate::{
    backends::{Front, Peer},
    smuggling::{
        H1, Seen, origin,
        over_h1::ATTACKS,
        over_h2::{AUTHORITY, FIELDS, HEADS, METHOD, PATH, SCHEME},
    },
    support::{
        client::raw,
        frames::{DATA, END_HEADERS, END_STREAM, Field, HEADERS, answered, block, frame, request},
        upstream::Upstream,
    },
    world,
};

/// The role, and the others in its place, all before one server.
struct Fronts {
    ours: SocketAddr,
    peers: [Peer; 2],
    seen: Seen,
    _origin: Upstream,
}

/// Rows that go on here, and not by a peer.
#[derive(Default)]
struct Found(Vec<(String, &'static str)>);

impl Found {
    /// A row at all of them, one after the other.
    async fn compare<F>(&mut self, fronts: &Fronts, name: &str, send: impl Fn(SocketAddr) -> F)
    where
        F: Future<Output = ()>,
    {
        send(fronts.ours).await;
        let ours = fronts.seen.take();
        let mut told = format!("{} here", ours.len());
        for peer in &fronts.peers {
            send(peer.address).await;
            let theirs = fronts.seen.take();
            told += &format!(", {} by {}", theirs.len(), peer.name);
            if theirs.len() < ours.len() {
                self.0.push((name.to_owned(), peer.name));
            }
        }
        println!("{name}: {told}");
    }

    /// They are those that are known, and all of those.
    fn assert_known(&self, front: Front) {
        let known = LAXER.iter().filter(|(at, ..)| *at == front);
        let known: Vec<(String, &str)> =
            known.map(|(_, name, peer, _)| ((*name).to_owned(), *peer)).collect();
        assert_eq!(self.0, known, "requests that go on here and not by a peer");
    }
}

async fn fronts(front: Front) -> (Fronts, crate::support::World) {
    let seen = Seen::default();
    let origin = origin(&seen).await;
    let world = world(&[origin.address]).await;
    let peers =
        [Peer::nginx(origin.address, front).await, Peer::haproxy(origin.address, front).await];
    (Fronts { ours: world.http(), peers, seen, _origin: origin }, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http1_nothing_goes_on_that_a_peer_refuses() {
    let (fronts, _world) = fronts(Front::Http1).await;
    let mut found = Found::default();
    for (name, head, _) in ATTACKS {
        let bytes = [head, &b"Connection: close\r\n\r\n"[..]].concat();
        found.compare(&fronts, name, |to| sent(to, &bytes)).await;
    }
    for (name, text, _) in H1 {
        let bytes = format!("{text}Connection: close\r\n\r\n").into_bytes();
        found.compare(&fronts, name, |to| sent(to, &bytes)).await;
    }
    found.assert_known(Front::Http1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_nothing_goes_on_that_a_peer_refuses() {
    let (fronts, _world) = fronts(Front::Http2).await;
    let mut found = Found::default();
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    for (name, more, _) in FIELDS {
        let fields = [&usual, *more].concat();
        found.compare(&fronts, name, |to| asked(to, &fields)).await;
    }
    for (name, fields, _) in HEADS {
        found.compare(&fronts, name, |to| asked(to, fields)).await;
    }
    for row in ROWS {
        found.compare(&fronts, row.name, |to| framed(to, row)).await;
    }
    found.assert_known(Front::Http2);
}

async fn sent(to: SocketAddr, bytes: &[u8]) {
    raw(to, bytes).await;
}

async fn asked(to: SocketAddr, fields: &[Field<'_>]) {
    request(to, fields, None).await;
}

async fn framed(to: SocketAddr, row: &Row) {
    let ends = |is_last: bool| if is_last { END_STREAM } else { 0 };
    let has_trailers = !row.trailers.is_empty();
    let is_head_alone = row.body.is_none() && !has_trailers;
    let head = block(&[row.fields, row.more].concat());
    let mut frames = frame(HEADERS, END_HEADERS | ends(is_head_alone), 1, &head);
    if let Some(body) = row.body {
        frames.extend(frame(DATA, ends(!has_trailers), 1, body));
    }
    if has_trailers {
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(row.trailers)));
    }
    answered(to, &frames).await;
}
