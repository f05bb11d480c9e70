use std::{
    convert::Infallible,
    sync::Arc,
    task::{Poll::Ready, Waker},
};

use fairlead_state::Key;
use futures::{SinkExt, channel::mpsc};
use http::{Request, Response};
use http_body_util::{Empty, StreamBody};
use hyper::{client, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
    task::yield_now,
};

use super::*;
use crate::{
    config::Timeouts,
    routes::{Patience, Speech, Upstream, UpstreamKey},
    serve::{
        alone::{self, Woken},
        body::{Progress, RequestBody, ResponseBody, Upload},
        connect::connect,
        upstream2::Shared2,
    },
};

const CONNECT_MS: u64 = 10_000;
/// Sixteen ticks.
const READ_MS: u64 = 80;
const TICKS: usize = 40;
const PATIENCE: Patience = Patience { connect_ms: CONNECT_MS, send_ms: READ_MS, read_ms: READ_MS };

/// What an endpoint says by HTTP/2.
type Says = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

fn timeouts() -> Timeouts {
    Timeouts { keep_alive_idle_ms: 40, ..Timeouts::default() }
}

/// An answer of which nothing but the head is there, and who gives it.
async fn answered(client: &Rc<Client>) -> (ResponseBody, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new(UpstreamKey::of(Key::new("default", "web")));
    upstream.set(&[listener.local_addr().unwrap()], &Speech::default(), None);
    let endpoint = upstream.endpoints().list[0].clone();
    let worker = &client.worker;
    let mut connection = connect(worker, &endpoint, CONNECT_MS).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let sending = connection.send(Box::new(Request::new(RequestBody::Empty)), worker, &PATIENCE);
    let head = far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
    // Nobody writes before he was asked.
    let (response, written) = tokio::join!(sending, async {
        yield_now().await;
        head.await
    });
    written.unwrap();
    assert_eq!(response.unwrap().status(), 200);
    (ResponseBody::upstream(Carrier::H1(connection), client.clone(), &PATIENCE), far)
}

/// The same by HTTP/2, while its request is still being sent.
async fn answered2(client: &Rc<Client>) -> (ResponseBody, Says, Progress) {
    let (near, far) = duplex(64 << 10);
    let (says, said) = mpsc::channel(1);
    let said = std::sync::Mutex::new(Some(said));
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        let said = said.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(StreamBody::new(said))) }
    });
    let server = server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(server.serve_connection(TokioIo::new(far), service));
    let shaking = client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
    let (mut sender, connection) = shaking.await.unwrap();
    tokio::spawn(connection);
    let watch = client.worker.clock.watch();
    let progress = Progress::new(READ_MS, &PATIENCE);
    progress.begin(&watch);
    let request = Request::new(Empty::<Bytes>::new());
    let incoming = sender.send_request(request).await.unwrap().into_body();
    watch.disarm();
    let carrier = Carrier::H2(incoming, Stream2::on(&Rc::new(Shared2::new(None)), watch, false));
    (ResponseBody::upstream(carrier, client.clone(), &PATIENCE), says, progress)
}

/// Takes the next piece.
async fn take(body: &mut ResponseBody, cx: &mut Context<'_>) {
    while Pin::new(&mut *body).poll_frame(cx).map(|frame| frame.unwrap().unwrap()).is_pending() {
        yield_now().await;
    }
}

/// Its client takes nothing of what is there already. nginx: no timer while nothing is read.
#[tokio::test]
async fn bug_an_endpoint_is_not_waited_for_and_nobody_woken_while_nobody_reads_on() {
    for is_gzipped in [false, true] {
        let client = alone::client(timeouts());
        let clock = &client.worker.clock;
        let woken = Arc::<Woken>::default();
        let waker = woken.clone().into();
        let cx = &mut Context::from_waker(&waker);
        let (mut body, mut far) = answered(&client).await;
        if is_gzipped {
            body.gzip(1);
        }
        for part in ["", "part", "and more"] {
            let case = format!("behind {part:?}, {is_gzipped}");
            if !part.is_empty() {
                far.write_all(part.as_bytes()).await.unwrap();
                take(&mut body, cx).await;
            }
            let before = woken.times();
            alone::pass_at_once(clock, TICKS);
            assert_eq!(woken.times(), before, "{case}");
            assert!(Pin::new(&mut body).poll_frame(cx).is_pending(), "{case}");
        }
        // Now it is.
        alone::pass_at_once(clock, TICKS);
        let end = Pin::new(&mut body).poll_frame(cx);
        assert!(matches!(end, Ready(Some(Err(BodyError::TimedOut)))), "{end:?}, {is_gzipped}");
        assert_eq!(client.worker.counters.upstream_timeouts.get(), 1);
    }
}

#[tokio::test]
async fn bug_nor_is_it_by_http2_whatever_its_client_sends_meanwhile() {
    for stage in [Upload::Sending, Upload::Receiving, Upload::Done] {
        let client = alone::client(timeouts());
        let clock = &client.worker.clock;
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut body, mut says, progress) = answered2(&client).await;
        for part in ["", "part", "and more"] {
            if !part.is_empty() {
                says.send(Ok(Frame::data(part.into()))).await.unwrap();
                take(&mut body, cx).await;
            }
            progress.reach(stage);
            alone::pass_at_once(clock, TICKS);
            let polled = Pin::new(&mut body).poll_frame(cx);
            assert!(polled.is_pending(), "{stage:?}, behind {part:?}: {polled:?}");
        }
        alone::pass_at_once(clock, TICKS);
        let end = Pin::new(&mut body).poll_frame(cx);
        assert!(matches!(end, Ready(Some(Err(BodyError::TimedOut)))), "{stage:?}: {end:?}");
    }
}
