//! Endpoints that take few calls at a time, or say that they did not look at one.

use super::*;

/// As the echoing one, and takes so many calls of a connection at a time.
async fn taking_few(streams_max: u32) -> Upstream {
    Upstream::raw(move |stream, counts: Arc<Counts>| async move {
        let service = service_fn(move |request: Request<Incoming>| {
            counts.request();
            async { Ok::<_, Infallible>(Response::new(request.into_body())) }
        });
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.max_concurrent_streams(streams_max);
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    })
    .await
}

/// One more waited for the end of another, and then for nothing.
#[tokio::test]
async fn bug_an_endpoint_that_takes_few_calls_at_a_time_has_more_connections() {
    for (streams_max, calls, connections) in [(10, 25, 3), (1, 5, 5), (100, 25, 1)] {
        for at_once in [false, true] {
            let upstream = taking_few(streams_max).await;
            let world = World::single(web(&upstream)).await;
            let mut sender = client(&world).await;
            let mut open = Vec::new();
            if at_once {
                let senders = (0..calls).map(|_| sender.clone());
                let all = senders.map(|mut sender| async move { opened(&mut sender).await });
                open = futures::future::join_all(all).await;
            } else {
                for _ in 0..calls {
                    open.push(opened(&mut sender).await);
                }
            }
            let seen = (upstream.connections(), upstream.requests());
            assert_eq!(
                seen,
                (connections, calls),
                "{streams_max} at a time, all at once: {at_once}"
            );
            for (response, mut parts) in open {
                comes_back("still here", &mut parts, &mut response.into_body()).await;
            }
        }
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// 2^30, in bytes.
const WINDOW: [u8; 4] = [0x40, 0, 0, 0];
/// Of a stream, for a reason.
const RESET: &[u8] = &[0, 0, 4, 3, 0];
const REFUSED_STREAM: &[u8] = &[0, 0, 0, 7];
const CANCEL: &[u8] = &[0, 0, 0, 8];
/// Without an error, and nothing was looked at.
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Has something else to say to the first request it is sent; 200 to the others.
async fn saying_first(first: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static) -> Upstream {
    Upstream::raw(move |mut stream, counts: Arc<Counts>| {
        let first = first.clone();
        async move {
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            stream.read_exact(&mut [0; 24]).await.unwrap();
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let mut payload = vec![0; (usize::from(head[1]) << 8) | usize::from(head[2])];
                stream.read_exact(&mut payload).await.unwrap();
                if head[3] != HEADERS {
                    continue;
                }
                let id = &head[5..];
                let says = match counts.request() {
                    1 => first(id),
                    // `:status: 200` is the eighth of HPACK's table, and the end.
                    _ => [&[0, 0, 1, HEADERS, 5][..], id, &[0x88]].concat(),
                };
                stream.write_all(&says).await.unwrap();
            }
        }
    })
    .await
}

/// As that one, and repeats what it is sent by the others. `says_at`: so many bytes of its body are there.
async fn refusing_first(says_at: usize, first: fn(&[u8]) -> Vec<u8>) -> Upstream {
    Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
        // Room for all that is sent here (a stream's own is told with the connection's).
        let wide = [
            &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..],
            &WINDOW,
            &[0, 0, 4, 8, 0, 0, 0, 0, 0],
            &WINDOW,
        ];
        stream.write_all(&wide.concat()).await.unwrap();
        stream.read_exact(&mut [0; 24]).await.unwrap();
        let (mut head, mut is_first, mut seen) = ([0; 9], false, 0);
        while stream.read_exact(&mut head).await.is_ok() {
            let length =
                (usize::from(head[0]) << 16) | (usize::from(head[1]) << 8) | usize::from(head[2]);
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            let id = head[5..].to_vec();
            match head[3] {
                HEADERS => (is_first, seen) = (counts.request() == 1, 0),
                DATA => seen += length,
                _ => continue,
            }
            let is_end = head[4] & 1 == 1;
            if is_first && seen >= says_at {
                stream.write_all(&first(&id)).await.unwrap();
                // What is on its way to it yet is of nobody's.
                (is_first, seen) = (false, usize::MAX / 2);
            } else if !is_first && is_end && seen < usize::MAX / 2 {
                let text = format!("{seen}");
                let length = u8::try_from(text.len()).unwrap();
                let answer = [
                    &[0, 0, 1, HEADERS, 4][..],
                    &id[..],
                    &[0x88, 0, 0, length, DATA, 1],
                    &id[..],
                    text.as_bytes(),
                ];
                stream.write_all(&answer.concat()).await.unwrap();
            }
        }
    })
    .await
}

/// A call has a body, and was lost whenever an endpoint went.
#[tokio::test]
async fn bug_a_call_that_was_not_looked_at_is_sent_again_with_what_it_had_said() {
    const KEPT: usize = 64 << 10;
    type First = fn(&[u8]) -> Vec<u8>;
    let refused: First = |id| [RESET, id, REFUSED_STREAM].concat();
    let left: First = |_| GOAWAY.to_vec();
    let cancelled: First = |id| [RESET, id, CANCEL].concat();
    for (name, first, early, late, expected) in [
        // Before it said anything, in the middle of it, and behind all of it.
        ("REFUSED_STREAM", refused, 0, 10, (200, "10")),
        ("REFUSED_STREAM", refused, 10, 20, (200, "30")),
        ("REFUSED_STREAM", refused, KEPT, 0, (200, "65536")),
        ("GOAWAY", left, 0, 10, (200, "10")),
        ("GOAWAY", left, 10, 20, (200, "30")),
        // More than is kept.
        ("REFUSED_STREAM", refused, KEPT + 1, 10, (502, "")),
        // It may have been acted on.
        ("CANCEL", cancelled, 10, 20, (502, "")),
    ] {
        let upstream = refusing_first(early, first).await;
        let world = World::single(web(&upstream)).await;
        let mut sender = client(&world).await;
        let (request, mut parts) = call();
        let response = timeout(PATIENCE, sender.send_request(request));
        let says = async {
            for bytes in [early, late] {
                if bytes > 0 {
                    // Nobody takes more of what was refused for good.
                    _ = parts.send(Ok(Frame::data(vec![b'x'; bytes].into()))).await;
                }
                world.eventually(|_| upstream.requests() >= 1).await;
            }
            drop(parts);
        };
        let (response, ()) = tokio::join!(response, says);
        let response = response.unwrap().unwrap();
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = if status == 200 { std::str::from_utf8(&text).unwrap() } else { "" };
        assert_eq!((status, text), expected, "{name} behind {early} of {}", early + late);
        assert_eq!(upstream.requests(), if status == 200 { 2 } else { 1 }, "{name} {early}");
    }
}

/// RFC 9113 8.7.
#[tokio::test]
async fn bug_what_an_endpoint_says_it_did_not_look_at_is_sent_again_whatever_it_is() {
    type First = fn(&[u8]) -> Vec<u8>;
    let refused: First = |id| [RESET, id, REFUSED_STREAM].concat();
    let cancelled: First = |id| [RESET, id, CANCEL].concat();
    let left: First = |_| GOAWAY.to_vec();
    for (name, first, method, expected) in [
        ("REFUSED_STREAM", refused, "POST", (200, 2, 1)),
        ("GOAWAY", left, "POST", (200, 2, 2)),
        ("REFUSED_STREAM", refused, "GET", (200, 2, 1)),
        ("CANCEL", cancelled, "GET", (200, 2, 1)),
        // It may have been acted on.
        ("CANCEL", cancelled, "POST", (502, 1, 1)),
    ] {
        let upstream = saying_first(first).await;
        let world = World::single(web(&upstream)).await;
        let asks = format!(
            "{method} / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(world.http(), asks.as_bytes()).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let seen = (status, upstream.requests(), upstream.connections());
        assert_eq!(seen, expected, "{name} to {method}: {answer}");
    }
}
