//! A connection and a client of it, in one task.

mod client;
mod floods;
mod rules;
mod windows;

use std::{cell::RefCell, convert::Infallible, future::poll_fn, task::Waker, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex, join};

use self::client::{Client, get, post};
use super::*;
use crate::codec::{
    Unanswered,
    h2::{Received, frame::Head},
};

const SETTINGS: Settings = Settings {
    streams_max: 100,
    head_bytes_max: 16 << 10,
    stream_window_bytes: 64 << 10,
    connection_window_bytes: 256 << 10,
    stall_ms: 1_000,
};
/// Nothing in a test takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time that goes when it is told to, and what was dropped.
#[derive(Debug, Default)]
struct World {
    now_ms: RefCell<u64>,
    dropped: RefCell<Vec<Dropped>>,
}

impl Surroundings for Rc<World> {
    fn now_ms(&self) -> u64 {
        *self.now_ms.borrow()
    }

    fn date(&self) -> HeaderValue {
        HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")
    }

    fn dropped(&self, what: Dropped) {
        self.dropped.borrow_mut().push(what);
    }
}

type Answer<B> = Result<Response<B>, Infallible>;

/// Sends back what it is sent, trailers too, and says what it was asked. `/wait` is never answered.
async fn echo(request: Request<Received>) -> Answer<Received> {
    if request.uri().path() == "/wait" {
        std::future::pending::<()>().await;
    }
    let seen = format!("{} {}", request.method(), request.uri());
    let mut response = Response::new(request.into_body());
    response.headers_mut().insert("x-seen", HeaderValue::try_from(seen).unwrap());
    Ok(response)
}

/// As many bytes as the path says.
async fn bytes(request: Request<Received>) -> Answer<Full<Bytes>> {
    let count = request.uri().path().trim_start_matches('/').parse().unwrap();
    let body: Vec<u8> = (0..=250).cycle().take(count).collect();
    Ok(Response::new(Full::new(Bytes::from(body))))
}

/// Serves while `client` does what it does.
async fn against<V: Serve, T>(
    service: V,
    world: &Rc<World>,
    settings: Settings,
    client: impl AsyncFnOnce(DuplexStream, &RefCell<Connection<DuplexStream, V, Rc<World>>>) -> T,
) -> T {
    let (near, far) = duplex(1 << 20);
    let connection = RefCell::new(Connection::new(near, service, world.clone(), settings));
    let (gone, _) = duplex(1);
    let serving = async {
        poll_fn(|cx| connection.borrow_mut().poll(cx)).await;
        // What was said stays to be read, and then there is nothing.
        connection.borrow_mut().io = gone;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        outcome = tokio::time::timeout(PATIENCE, client(far, &connection)) => {
            outcome.expect("it hangs")
        }
        () = serving => unreachable!(),
    }
}

#[tokio::test]
async fn a_request_is_answered() {
    against(echo, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[get(1, "/a?b")]).await;
        let (head, fields) = client.answer().await;
        assert_eq!((head.stream, head.has(frame::END_STREAM)), (1, true));
        let expected = [
            (":status", "200"),
            ("x-seen", "GET http://a.example/a?b"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields, expected);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_answered_is_reset_and_others_are_answered() {
    let service = async |request: Request<Received>| {
        let is_silent = request.uri().path() == "/silent";
        let mut response = Response::new(request.into_body());
        if is_silent {
            response.extensions_mut().insert(Unanswered);
        }
        Ok::<_, Infallible>(response)
    };
    against(service, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[get(1, "/silent")]).await;
        let (head, payload) = client.until(frame::RST_STREAM).await;
        assert_eq!((head.stream, payload), (1, Reason::Cancel.code().to_be_bytes().to_vec()));
        // Its body is not waited for.
        client
            .send(&[post(3, "/silent"), client::frame(frame::DATA, 0, 3, b"a"), get(5, "/")])
            .await;
        let (head, _) = client.until(frame::RST_STREAM).await;
        assert_eq!(head.stream, 3);
        assert_eq!(client.answer().await.0.stream, 5);
    })
    .await;
}

/// RFC 9110 6.4.1: their fields may be those of an answer with content. Clients take content for a
/// mistake.
#[tokio::test]
async fn answers_without_content_end_with_their_head_whatever_their_body_is() {
    let service = async |request: Request<Received>| {
        let status = request.uri().path().trim_start_matches('/').parse::<u16>().unwrap();
        let mut response = Response::new(Full::new(Bytes::from_static(b"text")));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-length", HeaderValue::from_static("4"));
        Ok::<_, Infallible>(response)
    };
    against(service, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        for (id, method, status, has_length, ends) in [
            (1, "HEAD", "200", true, true),
            (3, "GET", "204", false, true),
            (5, "GET", "304", true, true),
            (7, "HEAD", "502", true, true),
            (9, "GET", "200", true, false),
        ] {
            let flags = frame::END_HEADERS | frame::END_STREAM;
            let fields = client::block(&client::asked(method, &format!("/{status}")));
            client.send(&[client::frame(frame::HEADERS, flags, id, &fields)]).await;
            let (head, fields) = client.answer().await;
            assert_eq!((head.stream, head.has(frame::END_STREAM)), (id, ends), "{method} {status}");
            assert_eq!(fields[0].1, status);
            let length = fields.iter().any(|(name, _)| name == "content-length");
            assert_eq!(length, has_length, "{method} {status}");
        }
        assert_eq!(client.until(frame::DATA).await.1, b"text");
    })
    .await;
}

/// RFC 9113 6.8.
#[tokio::test]
async fn whoever_leaves_serves_what_is_on_its_way_and_nothing_after() {
    against(echo, &Rc::default(), SETTINGS, async |io, connection| {
        let mut client = Client::new(io).await;
        client.send(&[post(1, "/")]).await;
        client.answer().await;
        connection.borrow_mut().drain();
        connection.borrow_mut().drain();
        client.send(&[get(3, "/")]).await;
        let goaway = client.until(frame::GOAWAY).await;
        assert_eq!(goaway.1, [&MAX_31.to_be_bytes()[..], &[0; 4]].concat());
        let ping = client.until(frame::PING).await;
        assert_eq!(client.answer().await.0.stream, 3, "it was on its way");
        client.send(&[client::frame(frame::PING, frame::ACK, 0, &ping.1), get(5, "/")]).await;
        let goaway = client.until(frame::GOAWAY).await;
        assert_eq!(goaway.1, [0, 0, 0, 3, 0, 0, 0, 0]);
        client.send(&[client::frame(frame::DATA, frame::END_STREAM, 1, b"abc")]).await;
        let (head, data) = client.until(frame::DATA).await;
        assert_eq!((head.stream, &data[..]), (1, &b"abc"[..]));
        assert_eq!(client.rest().await, [0_u8; 0], "not the fifth, and nothing but the end");
    })
    .await;
}

#[tokio::test]
async fn a_connection_at_rest_has_no_buffers_and_goes_on() {
    against(echo, &Rc::default(), SETTINGS, async |io, connection| {
        let mut client = Client::new(io).await;
        for id in [1, 3, 5] {
            client.send(&[get(id, "/")]).await;
            client.answer().await;
            {
                let mut connection = connection.borrow_mut();
                connection.rest();
                assert_eq!(connection.input.capacity() + connection.output.text.capacity(), 0);
                assert!(connection.is_idle() && connection.is_resting);
            }
            client.send(&[client::frame(frame::PING, 0, 0, &[7; 8])]).await;
            assert_eq!(client.until(frame::PING).await.1, [7; 8]);
            assert!(connection.borrow().is_resting);
            assert_eq!(connection.borrow().input.capacity(), 0);
        }
    })
    .await;
}

/// What is not read by the client is not piled up here.
#[tokio::test]
async fn answers_to_frames_wait_until_they_are_read() {
    against(echo, &Rc::default(), SETTINGS, async |io, connection| {
        let mut client = Client::new(io).await;
        let pings: Vec<_> = (0..100).map(|_| client::frame(frame::PING, 0, 0, &[7; 8])).collect();
        for round in 0..3_000 {
            // Time goes: it is no flood.
            connection.borrow_mut().guard = Guard::new(round);
            let sent = client.send_some(&pings).await;
            let most = OUTPUT_BYTES_MAX + REPLY_BYTES_MAX + 2 * ROOM_BYTES_MAX;
            assert!(connection.borrow().output.len() <= most);
            if !sent {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a client that reads nothing is read without end");
    })
    .await;
}

/// A client may write all it has before it reads on.
#[tokio::test]
async fn room_for_answers_is_used_as_soon_as_it_is_there() {
    const NARROW_BYTES: usize = 64 << 10;
    let (near, mut far) = duplex(1 << 20);
    let (narrow, mut answers) = duplex(NARROW_BYTES);
    let world = Rc::<World>::default();
    let mut connection = Connection::new(join(near, narrow), bytes, world, SETTINGS);
    let [settings, window] = [client::setting(4, 1 << 20), client::window(0, 1 << 20)];
    let said = [frame::PREFACE, &settings, &window, &get(1, "/1000000")].concat();
    let pings = client::frame(frame::PING, 0, 0, &[7; 8]).repeat(1_200);
    let cx = &mut Context::from_waker(Waker::noop());
    for written in [said, pings] {
        far.write_all(&written).await.unwrap();
        for _ in 0..2 {
            assert!(connection.poll(cx).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert!(!connection.may_read(), "{} bytes are to be written", connection.output.len());
    far.write_all(&get(3, "/1")).await.unwrap();
    answers.read_exact(&mut vec![0; NARROW_BYTES]).await.unwrap();
    assert!(connection.poll(cx).is_pending());
    assert_eq!(connection.last_seen, 3);
}

mod peer {
    //! hyper's client, which is others' work.

    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;

    #[tokio::test]
    async fn bodies_of_all_sizes_come_back_with_their_trailers() {
        against(echo, &Rc::default(), SETTINGS, async |io, _| {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            let sizes = [0, 1, 100, 4_096, 16_384, 65_536, 1_000_000];
            let asking = (0..50).map(|i| {
                let size = sizes[i % sizes.len()];
                let data: Vec<u8> = (0..=u8::MAX).cycle().skip(i).take(size).collect();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", size.to_string().parse().unwrap());
                let parts =
                    data.chunks(10_000).map(|part| Frame::data(Bytes::copy_from_slice(part)));
                let frames = parts.chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>);
                let body = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
                let uri = format!("http://a.example/{i}");
                let answer = sender.send_request(Request::post(uri).body(body).unwrap());
                async move {
                    let answer = answer.await.unwrap();
                    assert_eq!(answer.status(), 200);
                    let body = answer.into_body().collect().await.unwrap();
                    assert_eq!(body.trailers().unwrap()["x-sum"], size.to_string());
                    assert!(body.to_bytes() == data, "{i}");
                }
            });
            futures::future::join_all(asking).await;
        })
        .await;
    }

    #[tokio::test]
    async fn fields_are_the_same_whatever_the_tables_hold() {
        let fields = async |request: Request<Received>| {
            let mut response = Response::new(Full::<Bytes>::default());
            *response.headers_mut() = request.headers().clone();
            Ok::<_, Infallible>(response)
        };
        against(fields, &Rc::default(), SETTINGS, async |io, _| {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            for i in 0..300_usize {
                let mut request = Request::get("http://a.example/").body(Full::<Bytes>::default());
                let headers = request.as_mut().unwrap().headers_mut();
                for n in 0..i % 7 {
                    let name = ["server", "content-type", "x-own", "vary", "via", "etag"][n % 6];
                    let value = "v".repeat((i * 31 + n * 7) % 300) + &(i % 11).to_string();
                    headers.append(name, value.parse().unwrap());
                }
                let sent = headers.clone();
                let mut answer = sender.send_request(request.unwrap()).await.unwrap();
                answer.headers_mut().remove("date");
                answer.headers_mut().remove("content-length");
                assert_eq!(answer.headers(), &sent, "{i}");
            }
        })
        .await;
    }
}
