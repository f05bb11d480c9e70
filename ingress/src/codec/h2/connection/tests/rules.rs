//! What a client may not do, and what becomes of it (RFC 9113).

use super::{
    client::{asked, block, frame, setting, window},
    *,
};
use crate::codec::h2::{
    Oversized,
    frame::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
        PUSH_PROMISE, RST_STREAM, WINDOW_UPDATE, WITH_PRIORITY,
    },
};

const SETTINGS_FRAME: u8 = frame::SETTINGS;
const ACK: u8 = frame::ACK;
const DONE: &[u8; 8] = b"finished";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The stream is reset.
    Stream(Reason),
    /// The connection ends.
    Connection(Reason),
    Nothing,
}

use Outcome::{Connection as C, Nothing, Stream as S};
use Reason::{Compression, FlowControl, FrameSize, Protocol, StreamClosed};

/// What is said, and what becomes of it.
type Rule = (&'static str, Vec<Vec<u8>>, Outcome);

fn headers(flags: u8, stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&asked("POST", "/"), more].concat();
    frame(HEADERS, END_HEADERS | flags, stream, &block(&fields))
}

fn rules() -> Vec<Rule> {
    let wait = || get(1, "/wait");
    let half = || frame(HEADERS, END_STREAM, 1, &block(&asked("GET", "/")));
    let on_itself = [&1_u32.to_be_bytes()[..], &[0], &block(&asked("GET", "/"))].concat();
    let trailers = |flags| frame(HEADERS, END_HEADERS | flags, 1, &block(&[("x-sum", "1")]));
    let large = [&(16_385_u32 << 8).to_be_bytes()[..3], &[PING, 0, 0, 0, 0, 0]].concat();
    let long = vec![0; 16_384];
    vec![
        ("DATA of the connection", vec![frame(DATA, 0, 0, b"a")], C(Protocol)),
        ("DATA of an idle stream", vec![frame(DATA, 0, 1, b"a")], C(Protocol)),
        ("DATA behind the end", vec![wait(), frame(DATA, 0, 1, b"a")], S(StreamClosed)),
        (
            "DATA of a stream the client reset",
            vec![post(1, "/"), frame(RST_STREAM, 0, 1, &[0; 4]), frame(DATA, 0, 1, b"a")],
            S(StreamClosed),
        ),
        (
            "padding longer than DATA",
            vec![post(1, "/"), frame(DATA, PADDED, 1, &[9, 0])],
            C(Protocol),
        ),
        (
            "more DATA than the stream's window",
            [vec![post(1, "/wait")], vec![frame(DATA, 0, 1, &long); 5]].concat(),
            S(FlowControl),
        ),
        ("HEADERS of the connection", vec![get(0, "/")], C(Protocol)),
        ("HEADERS of a server's stream", vec![get(2, "/")], C(Protocol)),
        ("a skipped stream", vec![get(5, "/"), get(3, "/")], C(Protocol)),
        ("HEADERS behind the end", vec![wait(), wait()], S(StreamClosed)),
        ("DATA of a server's stream", vec![get(3, "/wait"), frame(DATA, 0, 2, b"a")], C(Protocol)),
        (
            "RST_STREAM of a server's stream",
            vec![get(3, "/wait"), frame(RST_STREAM, 0, 2, &[0; 4])],
            C(Protocol),
        ),
        ("a server's stream's window", vec![get(3, "/wait"), window(2, 1)], C(Protocol)),
        (
            "PRIORITY of a server's stream, cut short",
            vec![get(3, "/wait"), frame(PRIORITY, 0, 2, &[0; 4])],
            C(FrameSize),
        ),
        ("trailers", vec![post(1, "/"), trailers(END_STREAM)], Nothing),
        ("trailers that do not end", vec![post(1, "/"), trailers(0)], S(Protocol)),
        ("a path in trailers", vec![post(1, "/"), headers(END_STREAM, 1, &[])], S(Protocol)),
        (
            "a request behind itself",
            vec![frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &on_itself)],
            S(Protocol),
        ),
        ("CONTINUATION of nothing", vec![frame(CONTINUATION, 0, 1, &[])], C(Protocol)),
        (
            "fields in parts",
            vec![half(), frame(CONTINUATION, 0, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, &[])],
            Nothing,
        ),
        ("PING between parts", vec![half(), frame(PING, 0, 0, DONE)], C(Protocol)),
        ("a part of another", vec![half(), frame(CONTINUATION, 4, 3, &[])], C(Protocol)),
        ("PRIORITY of an idle stream", vec![frame(PRIORITY, 0, 9, &[0; 5])], Nothing),
        ("PRIORITY of the connection", vec![frame(PRIORITY, 0, 0, &[0; 5])], C(Protocol)),
        ("PRIORITY cut short", vec![wait(), frame(PRIORITY, 0, 1, &[0; 4])], S(FrameSize)),
        (
            "PRIORITY behind itself",
            vec![wait(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])],
            S(Protocol),
        ),
        ("RST_STREAM of the connection", vec![frame(RST_STREAM, 0, 0, &[0; 4])], C(Protocol)),
        ("RST_STREAM of an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], C(Protocol)),
        ("RST_STREAM cut short", vec![wait(), frame(RST_STREAM, 0, 1, &[0; 3])], C(FrameSize)),
        (
            "RST_STREAM twice",
            vec![wait(), frame(RST_STREAM, 0, 1, &[0; 4]), frame(RST_STREAM, 0, 1, &[0; 4])],
            Nothing,
        ),
        ("half a setting", vec![frame(SETTINGS_FRAME, 0, 0, &[0; 5])], C(FrameSize)),
        ("settings of a stream", vec![frame(SETTINGS_FRAME, 0, 1, &[])], C(Protocol)),
        ("ACK with settings", vec![frame(SETTINGS_FRAME, ACK, 0, &[0; 6])], C(FrameSize)),
        ("no push either way", vec![setting(2, 2)], C(Protocol)),
        ("window beyond all", vec![setting(4, 1 << 31)], C(FlowControl)),
        (
            "an open window beyond all",
            vec![wait(), window(1, 1 << 30), setting(4, MAX_31)],
            C(FlowControl),
        ),
        ("frames too short", vec![setting(5, 16_383)], C(Protocol)),
        ("a setting nobody knows", vec![setting(0xff, 7)], Nothing),
        ("PUSH_PROMISE", vec![frame(PUSH_PROMISE, 0, 1, &[0; 4])], C(Protocol)),
        ("PING cut short", vec![frame(PING, 0, 0, &[0; 7])], C(FrameSize)),
        ("PING of a stream", vec![frame(PING, 0, 1, DONE)], C(Protocol)),
        ("an ACK nobody waits for", vec![frame(PING, ACK, 0, &LEAVING)], Nothing),
        ("GOAWAY of a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], C(Protocol)),
        ("GOAWAY cut short", vec![frame(GOAWAY, 0, 0, &[0; 7])], C(FrameSize)),
        ("a window by nothing", vec![window(0, 0)], C(Protocol)),
        ("a stream's window by nothing", vec![wait(), window(1, 0)], S(Protocol)),
        ("a window too wide", vec![window(0, MAX_31)], C(FlowControl)),
        ("a stream's window too wide", vec![wait(), window(1, MAX_31)], S(FlowControl)),
        ("an idle stream's window", vec![window(1, 1)], C(Protocol)),
        ("WINDOW_UPDATE cut short", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], C(FrameSize)),
        ("a frame nobody knows", vec![frame(0xee, 0xff, 7, b"abc")], Nothing),
        ("a frame too long", vec![large], C(FrameSize)),
        (
            "fields that cannot be read",
            vec![frame(HEADERS, END_HEADERS, 1, &[0x80])],
            C(Compression),
        ),
        ("capitals", vec![headers(END_STREAM, 1, &[("X-Own", "a")])], S(Protocol)),
        ("a fragment", vec![get(1, "/a#b")], S(Protocol)),
        (
            "less than announced",
            vec![headers(0, 1, &[("content-length", "3")]), frame(DATA, END_STREAM, 1, b"ab")],
            S(Protocol),
        ),
        (
            "less than announced, and trailers",
            vec![headers(0, 1, &[("content-length", "3")]), trailers(END_STREAM)],
            S(Protocol),
        ),
        (
            "more than announced",
            vec![headers(0, 1, &[("content-length", "3")]), frame(DATA, 0, 1, b"abcd")],
            S(Protocol),
        ),
        (
            "as announced, in parts and padded",
            vec![
                headers(0, 1, &[("content-length", "3")]),
                frame(DATA, 0, 1, b"a"),
                frame(DATA, PADDED | END_STREAM, 1, &[2, b'b', b'c', 0, 0]),
            ],
            Nothing,
        ),
    ]
}

fn rules_of_a_closed_stream() -> Vec<Rule> {
    vec![
        ("DATA of a closed stream", vec![frame(DATA, 0, 1, b"a")], S(StreamClosed)),
        ("a closed stream", vec![get(1, "/")], C(StreamClosed)),
        ("a closed stream's window", vec![window(1, 1)], Nothing),
    ]
}

fn reason(payload: &[u8], at: usize) -> Reason {
    let code = u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    let all = [
        Reason::NoError,
        Reason::Protocol,
        Reason::Internal,
        Reason::FlowControl,
        Reason::StreamClosed,
        Reason::FrameSize,
        Reason::Refused,
        Reason::Cancel,
        Reason::Compression,
        Reason::EnhanceYourCalm,
    ];
    all.into_iter().find(|reason| reason.code() == code).unwrap()
}

pub(super) async fn outcome(client: &mut Client) -> (u8, Option<Reason>) {
    loop {
        let (head, payload) = client.next().await.expect("an end without a word");
        match head.kind {
            RST_STREAM => return (RST_STREAM, Some(reason(&payload, 0))),
            GOAWAY => return (GOAWAY, Some(reason(&payload, 4))),
            PING if payload == DONE => return (PING, None),
            _ => {}
        }
    }
}

#[tokio::test]
async fn each_mistake_ends_what_it_is_of() {
    let open = rules().into_iter().map(|rule| (false, rule));
    let closed = rules_of_a_closed_stream().into_iter().map(|rule| (true, rule));
    for (is_closed, (name, said, expected)) in open.chain(closed) {
        let world = Rc::<World>::default();
        against(echo, &world, SETTINGS, async |io, connection| {
            let mut client = Client::new(io).await;
            if is_closed {
                client.send(&[get(1, "/")]).await;
                client.answer().await;
            }
            client.send(&[&said[..], &[frame(PING, 0, 0, DONE)]].concat()).await;
            let seen = match outcome(&mut client).await {
                (RST_STREAM, Some(reason)) => S(reason),
                (GOAWAY, Some(reason)) => C(reason),
                _ => Nothing,
            };
            assert_eq!(seen, expected, "{name}");
            match expected {
                // All that is left is the end.
                C(_) => assert_eq!(client.rest().await, [0_u8; 0], "{name}"),
                S(_) => {
                    client.until(PING).await;
                    assert!(connection.borrow().is_idle(), "{name}");
                }
                Nothing => {}
            }
        })
        .await;
        let counted = !world.dropped.borrow().is_empty();
        assert_eq!(counted, expected != Nothing, "{name}");
    }
}

#[tokio::test]
async fn a_connection_begins_as_it_must() {
    let settings = frame(SETTINGS_FRAME, 0, 0, &[]);
    let preface = || frame::PREFACE.to_vec();
    for (name, bytes) in [
        ("HTTP/1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("almost", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", &settings[..]].concat()),
        ("no settings", [preface(), get(1, "/")].concat()),
        ("an ACK instead", [preface(), frame(SETTINGS_FRAME, ACK, 0, &[])].concat()),
    ] {
        against(echo, &Rc::default(), SETTINGS, async |mut io, _| {
            tokio::io::AsyncWriteExt::write_all(&mut io, &bytes).await.unwrap();
            let mut client = Client::of(io);
            assert_eq!(outcome(&mut client).await, (GOAWAY, Some(Reason::Protocol)), "{name}");
        })
        .await;
    }
}

#[tokio::test]
async fn frames_are_the_same_in_whatever_pieces_they_come() {
    let mut bytes = frame::PREFACE.to_vec();
    bytes.extend(frame(SETTINGS_FRAME, 0, 0, &[]));
    bytes.extend([post(1, "/a"), frame(DATA, END_STREAM, 1, &[7; 9_000]), get(3, "/b")].concat());
    for step in [1, 3, 9, 10, 100, 4_096, 10_000] {
        against(echo, &Rc::default(), SETTINGS, async |mut io, _| {
            let (mut reading, mut writing) = tokio::io::split(&mut io);
            let writes = async {
                for piece in bytes.chunks(step) {
                    tokio::io::AsyncWriteExt::write_all(&mut writing, piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let reads = async {
                let (mut data, mut ended) = (Vec::new(), 0);
                while ended < 2 {
                    let mut head = [0; 9];
                    tokio::io::AsyncReadExt::read_exact(&mut reading, &mut head).await.unwrap();
                    let head = Head::parse(&head).unwrap();
                    let mut payload = vec![0; head.length];
                    tokio::io::AsyncReadExt::read_exact(&mut reading, &mut payload).await.unwrap();
                    if head.kind == DATA {
                        data.extend(payload);
                    }
                    let is_end = head.has(END_STREAM) && [DATA, HEADERS].contains(&head.kind);
                    ended += usize::from(is_end);
                }
                data
            };
            let ((), data) = tokio::join!(writes, reads);
            assert!(data == [7; 9_000], "{step}");
        })
        .await;
    }
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_counted_and_the_others_served() {
    let world = Rc::<World>::default();
    let settings = Settings { streams_max: 2, ..SETTINGS };
    against(echo, &world, settings, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[post(1, "/"), get(3, "/wait"), get(5, "/")]).await;
        let (head, payload) = client.until(RST_STREAM).await;
        assert_eq!((head.stream, reason(&payload, 0)), (5, Reason::Refused));
        client.send(&[frame(DATA, END_STREAM, 1, b"a")]).await;
        client.until(DATA).await;
        client.send(&[get(7, "/")]).await;
        assert_eq!(client.answer().await.0.stream, 7);
    })
    .await;
    assert_eq!(*world.dropped.borrow(), [Dropped::StreamsTooMany]);
}

/// As whoever admits requests does.
async fn admitting(request: Request<Received>) -> Answer<Received> {
    if request.extensions().get::<Oversized>().is_none() {
        return echo(request).await;
    }
    let mut response = Response::new(Received::nothing());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Ok(response)
}

/// RFC 6585 5; the next request is read as if nothing had been.
#[tokio::test]
async fn too_many_fields_are_for_the_service_to_refuse_and_nothing_else_suffers() {
    let world = Rc::<World>::default();
    let settings = Settings { head_bytes_max: 1_000, ..SETTINGS };
    against(admitting, &world, settings, async |io, _| {
        let mut client = Client::new(io).await;
        let value = "v".repeat(100);
        let many = vec![("x-own", &value[..]); 8];
        client.send(&[headers(END_STREAM, 1, &many), headers(0, 3, &many), get(5, "/")]).await;
        for stream in [1, 3] {
            let (head, fields) = client.answer().await;
            assert_eq!((head.stream, &fields[0].1[..]), (stream, "431"));
        }
        let (head, payload) = client.until(RST_STREAM).await;
        assert_eq!((head.stream, reason(&payload, 0)), (3, Reason::NoError));
        assert_eq!(client.answer().await.1[0].1, "200");
    })
    .await;
    assert!(world.dropped.borrow().is_empty(), "whoever refuses it counts it");
}

#[tokio::test]
async fn too_many_fields_are_refused_in_however_many_frames_they_come() {
    let settings = Settings { head_bytes_max: 1_000, ..SETTINGS };
    against(admitting, &Rc::default(), settings, async |io, _| {
        let mut client = Client::new(io).await;
        let value = "v".repeat(100);
        let many = vec![("x-own", &value[..]); 20];
        let block = block(&[&asked("GET", "/")[..], &many].concat());
        let (first, rest) = block.split_at(900);
        let parts = [
            frame(HEADERS, END_STREAM, 1, first),
            frame(CONTINUATION, END_HEADERS, 1, rest),
            get(3, "/"),
        ];
        client.send(&parts).await;
        for (stream, status) in [(1, "431"), (3, "200")] {
            let (head, fields) = client.answer().await;
            assert_eq!((head.stream, &fields[0].1[..]), (stream, status));
        }
    })
    .await;
}
