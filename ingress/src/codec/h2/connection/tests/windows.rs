//! How much is sent, and how much is taken (RFC 9113 5.2).

use http_body_util::BodyExt as _;

use super::{
    client::{asked, block, frame, setting, window},
    *,
};
use crate::codec::h2::frame::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, RST_STREAM, WINDOW_UPDATE,
};

/// Answers with nothing, and reads nothing.
async fn empty(_: Request<Received>) -> Answer<Full<Bytes>> {
    Ok(Response::new(Full::default()))
}

#[tokio::test]
async fn an_answer_is_sent_as_far_as_both_windows_let_it() {
    const LENGTH: usize = 200_000;
    against(bytes, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[get(1, &format!("/{LENGTH}"))]).await;
        let mut data = Vec::new();
        // Of the stream, of the connection.
        let (mut own, mut all) = (65_535, 65_535);
        while data.len() < LENGTH {
            let (head, payload) = client.until(DATA).await;
            data.extend_from_slice(&payload);
            assert!(data.len() <= own.min(all));
            assert_eq!(head.has(END_STREAM), data.len() == LENGTH);
            if data.len() == own.min(all) {
                // One opens, then the other: nothing comes before both have.
                client.send(&[window(1, 10_000), frame(PING, 0, 0, &[7; 8])]).await;
                own += 10_000;
                let (head, _) = client.next().await.unwrap();
                assert_eq!(head.kind, if own.min(all) > data.len() { DATA } else { PING });
                client.send(&[window(0, 10_000)]).await;
                all += 10_000;
            }
        }
        let expected: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
        assert!(data == expected);
    })
    .await;
}

/// SETTINGS_INITIAL_WINDOW_SIZE takes away from open streams, too.
#[tokio::test]
async fn a_window_may_be_below_nothing() {
    against(bytes, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        let initial = |bytes: u32| setting(4, bytes);
        client.send(&[initial(10), get(1, "/30")]).await;
        assert_eq!(client.until(DATA).await.1.len(), 10);
        client.send(&[initial(0), window(1, 10), frame(PING, 0, 0, &[7; 8])]).await;
        client.until(PING).await;
        client.send(&[window(1, 5)]).await;
        assert_eq!(client.until(DATA).await.1.len(), 5);
        client.send(&[initial(100)]).await;
        let (head, payload) = client.until(DATA).await;
        assert_eq!((payload.len(), head.has(END_STREAM)), (15, true));
    })
    .await;
}

#[tokio::test]
async fn streams_take_turns() {
    against(bytes, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[window(0, 1 << 20), get(1, "/60000"), get(3, "/60000")]).await;
        let mut order = Vec::new();
        for _ in 0..8 {
            order.push(client.until(DATA).await.0.stream);
        }
        assert_eq!(order, [1, 3, 1, 3, 1, 3, 1, 3]);
    })
    .await;
}

/// A request nobody reads is taken up to its window, and no further.
#[tokio::test]
async fn a_request_is_taken_as_it_is_read() {
    let service = async |request: Request<Received>| match request.uri().path() {
        "/wait" => {
            let _held = request;
            std::future::pending().await
        }
        _ => echo(request).await,
    };
    against(service, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        let data = |stream| frame(DATA, 0, stream, &[7; 16_384]);
        client.send(&[post(1, "/wait"), data(1), data(1), data(1), data(1)]).await;
        client.send(&[post(3, "/"), data(3), data(3), data(3)]).await;
        let (mut own, mut all) = (0, 0);
        // Half of its window, and then half of the connection's.
        while own < 32_768 {
            let (head, payload) = client.next().await.unwrap();
            let more = frame::number(&payload).unwrap_or_default();
            match (head.kind, head.stream) {
                (WINDOW_UPDATE, 3) => own += more,
                (WINDOW_UPDATE, 0) => all += more,
                (WINDOW_UPDATE, other) => panic!("the window of {other} opens"),
                _ => {}
            }
        }
        // What was said at the beginning.
        assert_eq!(all, SETTINGS.connection_window_bytes - WINDOW_BYTES);
        client.send(&[frame(RST_STREAM, 0, 1, &[0; 4]), frame(PING, 0, 0, &[7; 8])]).await;
        // Given up, it gives back its share: with the 48 KiB of the other, 112 of 256.
        client.until(PING).await;
        let (head, payload) = client.until(WINDOW_UPDATE).await;
        assert_eq!((head.stream, frame::number(&payload)), (0, Some(114_688)));
    })
    .await;
}

/// RFC 9113 6.1: it counts, and nobody takes it.
#[tokio::test]
async fn padding_alone_opens_its_window_again() {
    against(echo, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[post(1, "/")]).await;
        client.answer().await;
        let padding = [&[u8::MAX][..], &[0; 255]].concat();
        client.send(&vec![frame(DATA, PADDED, 1, &padding); 128]).await;
        let opened = loop {
            match client.until(WINDOW_UPDATE).await {
                (Head { stream: 1, .. }, payload) => break frame::number(&payload),
                // What was said at the beginning.
                (head, _) => assert_eq!(head.stream, 0),
            }
        };
        // Half of it.
        assert_eq!(opened, Some(32_768));
    })
    .await;
}

/// Answers once it has been told something, but for `/early`.
async fn reading(request: Request<Received>) -> Answer<Full<Bytes>> {
    let (head, mut body) = request.into_parts();
    if head.uri.path() != "/early" {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    }
    Ok(Response::new(Full::default()))
}

/// RFC 9110 10.1.1.
#[tokio::test]
async fn a_client_that_waits_with_its_body_is_told_to_go_on_if_somebody_waits_for_it() {
    let expects = [("expect", "100-Continue")];
    for (path, more, is_with_head, expected) in [
        ("/", &expects[..], false, &["100", "200"][..]),
        // It sends already, it asks for nothing, nobody reads it.
        ("/", &expects, true, &["200"]),
        ("/", &[], false, &["200"]),
        ("/early", &expects, false, &["200"]),
    ] {
        against(reading, &Rc::default(), SETTINGS, async |io, _| {
            let mut client = Client::new(io).await;
            let fields = block(&[&asked("POST", path)[..], more].concat());
            let head = frame(HEADERS, END_HEADERS, 1, &fields);
            let data = frame(DATA, END_STREAM, 1, b"abc");
            let ping = frame(PING, 0, 0, &[7; 8]);
            let (first, second) = match is_with_head {
                true => (vec![head, data], None),
                false => (vec![head, ping], Some(data)),
            };
            client.send(&first).await;
            let mut statuses = Vec::new();
            loop {
                match client.next().await.unwrap() {
                    (head, payload) if head.kind == HEADERS => {
                        statuses.push(match payload[..] {
                            [0x88, ..] => "200",
                            [0x08, 3, b'1', b'0', b'0'] => "100",
                            _ => panic!("{payload:x?}"),
                        });
                        if head.has(END_STREAM) {
                            break;
                        }
                    }
                    (head, _) if head.kind == PING => {
                        client.send(second.as_slice()).await;
                    }
                    _ => {}
                }
            }
            assert_eq!(statuses, expected, "{path} {more:?} {is_with_head}");
        })
        .await;
    }
}

/// RFC 9113 8.1: an answer need not wait for the rest of its request, and the rest is no mistake.
#[tokio::test]
async fn an_early_answer_ends_the_request() {
    against(empty, &Rc::default(), SETTINGS, async |io, connection| {
        let mut client = Client::new(io).await;
        client.send(&[post(1, "/")]).await;
        assert!(client.answer().await.0.has(END_STREAM));
        let (head, payload) = client.until(RST_STREAM).await;
        assert_eq!((head.stream, &payload[..]), (1, &[0; 4][..]));
        let rest = frame(DATA, END_STREAM, 1, b"abc");
        client.send(&[rest, frame(PING, 0, 0, &[7; 8])]).await;
        assert!(matches!(client.next().await, Some((Head { kind: PING, .. }, _))));
        assert!(connection.borrow().is_idle());
    })
    .await;
}

/// Others ended meanwhile, and many of them.
#[tokio::test]
async fn the_rest_of_a_request_that_was_ended_early_is_no_mistake_however_late_it_comes() {
    against(empty, &Rc::default(), SETTINGS, async |io, _| {
        let mut client = Client::new(io).await;
        client.send(&[post(1, "/")]).await;
        client.answer().await;
        client.until(RST_STREAM).await;
        for id in (3..).step_by(2).take(500) {
            client.send(&[get(id, "/")]).await;
            client.answer().await;
        }
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-sum", "1")]));
        let rest = [frame(DATA, 0, 1, b"abc"), trailers, frame(PING, 0, 0, &[7; 8])];
        client.send(&rest).await;
        assert!(matches!(client.next().await, Some((Head { kind: PING, .. }, _))));
    })
    .await;
}

#[tokio::test]
async fn attack_a_window_that_stays_shut_ends_its_stream_and_no_other() {
    let world = Rc::<World>::default();
    against(bytes, &world, SETTINGS, async |io, connection| {
        let mut client = Client::new(io).await;
        client.send(&[window(0, 1 << 20), get(1, "/70000"), get(3, "/10")]).await;
        let mut data = 0;
        while data < 65_535 + 10 {
            data += client.until(DATA).await.1.len();
        }
        assert!(connection.borrow().is_stalled());
        *world.now_ms.borrow_mut() = SETTINGS.stall_ms - 1;
        client.send(&[frame(PING, 0, 0, &[7; 8])]).await;
        let next = client.next().await;
        assert!(!matches!(next, Some((Head { kind: RST_STREAM, .. }, _))), "not yet");
        *world.now_ms.borrow_mut() = SETTINGS.stall_ms;
        client.send(&[frame(PING, 0, 0, &[7; 8])]).await;
        let (head, payload) = client.until(RST_STREAM).await;
        assert_eq!((head.stream, payload), (1, Reason::Cancel.code().to_be_bytes().to_vec()));
        client.send(&[get(5, "/10")]).await;
        assert_eq!(client.until(DATA).await.0.stream, 5);
    })
    .await;
    assert_eq!(*world.dropped.borrow(), [Dropped::Stalled]);
}

#[tokio::test]
async fn attack_a_connection_window_that_stays_shut_ends_the_streams_that_wait_for_it() {
    let world = Rc::<World>::default();
    against(bytes, &world, SETTINGS, async |io, connection| {
        let mut client = Client::new(io).await;
        client.send(&[get(1, "/40000"), get(3, "/40000")]).await;
        let mut data = 0;
        while data < 65_535 {
            data += client.until(DATA).await.1.len();
        }
        // An answer without a body passes by.
        client.send(&[get(5, "/0")]).await;
        client.answer().await;
        assert!(connection.borrow().is_stalled());
        *world.now_ms.borrow_mut() = SETTINGS.stall_ms;
        client.send(&[frame(PING, 0, 0, &[7; 8])]).await;
        for id in [1, 3] {
            let (head, payload) = client.until(RST_STREAM).await;
            assert_eq!((head.stream, payload), (id, Reason::Cancel.code().to_be_bytes().to_vec()));
        }
        // Whoever comes later waits on its own account, and is not forgotten.
        client.send(&[get(7, "/10")]).await;
        assert_eq!(client.answer().await.0.stream, 7);
        *world.now_ms.borrow_mut() += SETTINGS.stall_ms - 1;
        client.send(&[frame(PING, 0, 0, &[7; 8]), window(0, 100)]).await;
        let (head, payload) = client.until(DATA).await;
        assert_eq!((head.stream, payload.len()), (7, 10));
    })
    .await;
    assert_eq!(*world.dropped.borrow(), [Dropped::Stalled; 2]);
}

#[tokio::test]
async fn answers_nobody_takes_are_no_flood_however_many() {
    const STREAMS: usize = 250;
    let world = Rc::<World>::default();
    let settings = Settings { streams_max: 300, ..SETTINGS };
    against(bytes, &world, settings, async |io, _| {
        let mut client = Client::new(io).await;
        // The first of them have all there is of the connection's window.
        let ids = (1..).step_by(2).take(STREAMS);
        let requests: Vec<_> = ids.clone().map(|id| get(id, "/70000")).collect();
        client.send(&requests).await;
        for _ in ids.clone() {
            client.answer().await;
        }
        // What is said has been taken, and then each has had its turn.
        for _ in 0..2 {
            client.send(&[frame(PING, 0, 0, &[7; 8])]).await;
            client.until(PING).await;
        }
        *world.now_ms.borrow_mut() = SETTINGS.stall_ms;
        client.send(&[frame(PING, 0, 0, &[7; 8])]).await;
        for id in ids {
            assert_eq!(client.until(RST_STREAM).await.0.stream, id);
        }
        client.send(&[get(1_001, "/0")]).await;
        assert_eq!(client.answer().await.0.stream, 1_001);
    })
    .await;
    assert_eq!(*world.dropped.borrow(), [Dropped::Stalled; STREAMS]);
}
