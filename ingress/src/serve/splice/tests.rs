use std::{future::poll_fn, time::Duration};

use rustix::event::{EventfdFlags, eventfd};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::{pipes::PIPE_BYTES, *};

const LEAST: usize = 64 << 10;
const TURN: usize = 1 << 20;

/// What is between an endpoint and a client.
struct Between {
    from: TcpStream,
    to: TcpStream,
    pipes: Pipes,
}

impl Between {
    fn pump(&self, bytes: usize) -> Pump {
        Pump::begin(&self.pipes, bytes as u64).unwrap()
    }

    async fn run(&self, pump: &mut Pump) -> Result<(), Broke> {
        poll_fn(|cx| pump.poll(Some(&self.from), &self.to, cx)).await
    }

    /// Moves what can be moved until it waits for that.
    async fn run_until(&self, pump: &mut Pump, waits: Waits) {
        poll_fn(|cx| match pump.poll(Some(&self.from), &self.to, cx) {
            Poll::Pending if pump.waits() == waits => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
            Poll::Ready(outcome) => panic!("it waits for nothing: {outcome:?}"),
        })
        .await;
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// What is in between, the endpoint and the client.
async fn way() -> (Between, TcpStream, TcpStream) {
    let ((from, endpoint), (to, client)) = (pair().await, pair().await);
    (Between { from, to, pipes: Pipes::default() }, endpoint, client)
}

/// No two parts of it are alike.
fn body(bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(8) as u64).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut body: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    body.truncate(bytes);
    body
}

/// Says it, and stays.
fn says(mut endpoint: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    tokio::spawn(async move {
        endpoint.write_all(&bytes).await.unwrap();
        endpoint
    })
}

fn hears(mut client: TcpStream, bytes: usize) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let mut heard = vec![0; bytes];
        client.read_exact(&mut heard).await.unwrap();
        heard
    })
}

/// Closes with a reset.
fn resets(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[tokio::test]
async fn all_bytes_arrive_as_they_were_sent_whatever_their_number() {
    for bytes in [
        LEAST,
        LEAST + 1,
        PIPE_BYTES - 1,
        PIPE_BYTES,
        PIPE_BYTES + 1,
        TURN - 1,
        TURN,
        TURN + 1,
        5 * TURN + 3,
    ] {
        let (between, endpoint, client) = way().await;
        let (mut pump, sent) = (between.pump(bytes), body(bytes));
        let (said, heard) = (says(endpoint, sent.clone()), hears(client, bytes));
        between.run(&mut pump).await.unwrap();
        assert!(heard.await.unwrap() == sent, "{bytes}");
        assert_eq!(pump.moved(), Moved { taken: bytes, given: bytes });
        assert_eq!(pump.moved(), Moved::default(), "told once");
        said.await.unwrap();
    }
}

#[tokio::test]
async fn attack_what_is_said_behind_a_body_stays_where_it_is() {
    let (mut between, endpoint, client) = way().await;
    let mut pump = between.pump(LEAST);
    let said = says(endpoint, [body(LEAST), b"HTTP/1.1 200 OK\r\n".to_vec()].concat());
    let heard = hears(client, LEAST);
    between.run(&mut pump).await.unwrap();
    assert!(heard.await.unwrap() == body(LEAST));
    said.await.unwrap();
    let mut next = [0; 17];
    between.from.read_exact(&mut next).await.unwrap();
    assert_eq!(&next, b"HTTP/1.1 200 OK\r\n");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_waited_for_and_then_gets_all_of_it() {
    let (between, endpoint, client) = way().await;
    let bytes = 32 * TURN;
    let mut pump = between.pump(bytes);
    let said = says(endpoint, body(bytes));
    between.run_until(&mut pump, Waits::Room).await;
    let moved = pump.moved();
    assert!(moved.given > 0 && moved.taken > moved.given, "{moved:?}");
    // Nothing more is taken for a client that takes nothing.
    between.run_until(&mut pump, Waits::Room).await;
    assert_eq!(pump.moved(), Moved::default());
    let heard = hears(client, bytes);
    between.run(&mut pump).await.unwrap();
    assert!(heard.await.unwrap() == body(bytes));
    said.await.unwrap();
}

#[tokio::test]
async fn what_an_endpoint_says_so_far_goes_out_before_more_is_waited_for() {
    let (between, mut endpoint, mut client) = way().await;
    let bytes = LEAST + 3;
    let mut pump = between.pump(bytes);
    for piece in body(bytes).chunks(LEAST / 4) {
        endpoint.write_all(piece).await.unwrap();
        let mut moved = Moved::default();
        poll_fn(|cx| {
            let polled = pump.poll(Some(&between.from), &between.to, cx);
            let Moved { taken, given } = pump.moved();
            (moved.taken, moved.given) = (moved.taken + taken, moved.given + given);
            if moved.given == piece.len() { Poll::Ready(Ok(())) } else { polled }
        })
        .await
        .unwrap();
        assert_eq!(moved.taken, piece.len());
        let mut heard = vec![0; piece.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard == piece);
    }
    assert_eq!(pump.left, 0);
}

/// sozu#1323: each segment takes a page's place of a pipe.
#[tokio::test]
async fn bug_segments_that_fill_a_pipe_long_before_their_bytes_do() {
    let (between, mut endpoint, client) = way().await;
    endpoint.set_nodelay(true).unwrap();
    let sent = body(LEAST);
    let mut pump = between.pump(LEAST);
    for piece in sent.chunks(61) {
        endpoint.write_all(piece).await.unwrap();
    }
    let heard = hears(client, LEAST);
    between.run(&mut pump).await.unwrap();
    assert!(heard.await.unwrap() == sent);
}

#[tokio::test]
async fn an_endpoint_that_ends_early_is_cut_off_once_what_it_said_is_out() {
    let (between, endpoint, client) = way().await;
    let said = body(LEAST - 1);
    let mut pump = between.pump(LEAST);
    drop(says(endpoint, said.clone()).await.unwrap());
    let heard = hears(client, LEAST - 1);
    let outcome = between.run(&mut pump).await;
    assert!(matches!(outcome, Err(Broke::CutOff)), "{outcome:?}");
    assert!(heard.await.unwrap() == said);
    drop(pump);
    assert_eq!(between.pipes.kept(), 1, "nothing is in it");
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_is_not_taken_for_the_client() {
    let (between, endpoint, _client) = way().await;
    let mut pump = between.pump(LEAST);
    between.run_until(&mut pump, Waits::More).await;
    resets(endpoint);
    let outcome = between.run(&mut pump).await;
    assert!(matches!(outcome, Err(Broke::From(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_is_not_taken_for_the_endpoint_and_its_bytes_are_nobody_elses() {
    let (between, endpoint, client) = way().await;
    let bytes = 32 * TURN;
    let mut pump = between.pump(bytes);
    let saying = says(endpoint, body(bytes));
    between.run_until(&mut pump, Waits::Room).await;
    resets(client);
    let outcome = between.run(&mut pump).await;
    assert!(matches!(outcome, Err(Broke::To(_))), "{outcome:?}");
    drop(pump);
    assert_eq!(between.pipes.kept(), 0);
    saying.abort();
}

#[tokio::test]
async fn one_pipe_serves_one_body_after_the_other() {
    let (between, mut endpoint, mut client) = way().await;
    for turn in 0..3 {
        let sent = body(LEAST + turn);
        let mut pump = between.pump(sent.len());
        let (said, heard) = (says(endpoint, sent.clone()), {
            tokio::spawn(async move {
                let mut heard = vec![0; LEAST + turn];
                client.read_exact(&mut heard).await.unwrap();
                (client, heard)
            })
        });
        between.run(&mut pump).await.unwrap();
        assert_eq!(between.pipes.kept(), 0);
        drop(pump);
        assert_eq!(between.pipes.kept(), 1);
        let heard = heard.await.unwrap();
        assert!(heard.1 == sent, "{turn}");
        (endpoint, client) = (said.await.unwrap(), heard.0);
    }
}

#[tokio::test]
async fn others_have_their_turn_however_fast_both_sides_are() {
    let (between, endpoint, client) = way().await;
    let bytes = 32 * TURN;
    let mut pump = between.pump(bytes);
    let (said, heard) = (says(endpoint, body(bytes)), hears(client, bytes));
    let mut most = 0;
    poll_fn(|cx| {
        let polled = pump.poll(Some(&between.from), &between.to, cx);
        most = most.max(pump.moved().given);
        polled
    })
    .await
    .unwrap();
    assert!(heard.await.unwrap() == body(bytes));
    said.await.unwrap();
    // A pipe's places may each hold more than a page.
    assert!(most < TURN + 2 * PIPE_BYTES, "{most} bytes in one turn");
}

/// A file that is waited for as sockets are, and that the kernel does not splice.
fn unspliceable() -> TcpStream {
    let counter = eventfd(1, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    TcpStream::from_std(counter.into()).unwrap()
}

#[tokio::test]
async fn what_cannot_be_spliced_is_left_to_be_copied() {
    let (mut between, _endpoint, _client) = way().await;
    between.from = unspliceable();
    let mut pump = between.pump(LEAST);
    let outcome = between.run(&mut pump).await;
    assert!(matches!(outcome, Err(Broke::Unable(_))), "{outcome:?}");
    assert_eq!(pump.moved(), Moved::default());
}

#[test]
fn short_bodies_and_those_there_is_no_pipe_for_are_copied() {
    let pipes = Pipes::default();
    for (bytes, expected) in [(0, false), (LEAST - 1, false), (LEAST, true)] {
        assert_eq!(Pump::begin(&pipes, bytes as u64).is_some(), expected, "{bytes}");
    }
    assert!(Pump::begin(&Pipes::none(), u64::MAX).is_none());
}
