use http_body_util::{Empty, Full, StreamBody};

use super::*;

const DAY: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
const KEEPS: Asks = Asks {
    is_10: false,
    is_head: false,
    keeps: true,
    expects: false,
    trailers: false,
    upgrades: false,
};

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

/// Of unknown length.
fn stream() -> impl Body {
    let none = futures::stream::empty::<Result<hyper::body::Frame<Bytes>, std::io::Error>>();
    StreamBody::new(none)
}

/// What is said of the body and of the connection, and how the body goes on.
fn written<B: Body>(
    status: u16,
    asks: Asks,
    closes: bool,
    fields: &[(&'static str, &'static str)],
    body: &B,
) -> (String, Sending) {
    let (status, headers) = (StatusCode::from_u16(status).unwrap(), map(fields));
    let reply = Reply { status, reason: None, headers: &headers, asks, closes };
    let mut out = Vec::new();
    let sending = reply.write(body, || DAY, &mut out);
    let head = String::from_utf8(out).unwrap();
    let (_, fields) = head.split_once("\r\n").unwrap();
    let fields = fields.strip_suffix("\r\n").unwrap();
    (fields.replace(&format!("date: {}\r\n", DAY.to_str().unwrap()), ""), sending)
}

#[test]
fn the_body_says_how_it_is_sent_whatever_the_fields_say() {
    let full = Full::new(Bytes::from_static(b"abc"));
    let lies = &[("content-length", "7"), ("transfer-encoding", "gzip")][..];
    for fields in [&[][..], lies] {
        let (head, sending) = written(200, KEEPS, false, fields, &full);
        assert_eq!((head.as_str(), sending), ("content-length: 3\r\n", Sending::Length(3)));
        let (head, sending) = written(200, KEEPS, false, fields, &Empty::<Bytes>::new());
        assert_eq!((head.as_str(), sending), ("content-length: 0\r\n", Sending::Over));
        let (head, sending) = written(200, KEEPS, false, fields, &stream());
        let chunked = "transfer-encoding: chunked\r\n";
        assert_eq!((head.as_str(), sending), (chunked, Sending::Chunked(vec![])));
    }
}

#[test]
fn http10_knows_no_chunks_and_is_told_what_becomes_of_the_connection() {
    let asks = Asks { is_10: true, ..KEEPS };
    let full = Full::new(Bytes::from_static(b"abc"));
    let (head, _) = written(200, asks, false, &[], &full);
    assert_eq!(head, "content-length: 3\r\nconnection: keep-alive\r\n");
    let (head, _) = written(200, asks, true, &[("trailer", "x-sum")], &full);
    assert_eq!(head, "content-length: 3\r\nconnection: close\r\n");
    let (head, sending) = written(200, asks, false, &[], &stream());
    assert_eq!((head.as_str(), sending), ("connection: close\r\n", Sending::UntilClose));
}

#[test]
fn answers_that_have_no_body_have_none() {
    let (head, get) = (Asks { is_head: true, ..KEEPS }, KEEPS);
    let full = Full::new(Bytes::from_static(b"abc"));
    let empty = Full::new(Bytes::new());
    let length = &[("content-length", "7")][..];
    for (status, asks, fields, body, expected) in [
        // As long as it would be.
        (200, head, length, &empty, "content-length: 7\r\n"),
        (200, head, &[][..], &full, "content-length: 3\r\n"),
        (200, head, &[], &empty, ""),
        // RFC 9110 8.6, 15.3.5, 15.4.5.
        (204, get, length, &full, ""),
        (204, head, length, &full, ""),
        (304, get, length, &empty, ""),
        (101, get, length, &empty, ""),
    ] {
        let (written, sending) = written(status, asks, false, fields, body);
        assert_eq!((written.as_str(), sending), (expected, Sending::Over), "{status} {asks:?}");
    }
    let (written, sending) = written(200, head, false, &[("trailer", "x-sum")], &stream());
    assert_eq!((written.as_str(), sending), ("", Sending::Over));
}

#[test]
fn who_switches_says_so_and_nobody_else_says_anything_of_the_connection() {
    let fields = &[("connection", "upgrade"), ("upgrade", "websocket")];
    let body = Full::new(Bytes::new());
    let (head, _) = written(101, KEEPS, false, fields, &body);
    assert_eq!(head, "connection: upgrade\r\nupgrade: websocket\r\n");
    let (head, _) = written(200, KEEPS, true, &[("connection", "keep-alive, x")], &body);
    assert_eq!(head, "content-length: 0\r\nconnection: close\r\n");
}

#[test]
fn status_lines_and_dates() {
    let own = ReasonPhrase::from_static(b"Fine");
    for (asks, status, reason, date, expected) in [
        (KEEPS, 200, None, None, "HTTP/1.1 200 OK\r\n"),
        (KEEPS, 200, Some(&own), None, "HTTP/1.1 200 Fine\r\n"),
        (KEEPS, 599, None, None, "HTTP/1.1 599 <none>\r\n"),
        (Asks { is_10: true, ..KEEPS }, 404, None, Some("x"), "HTTP/1.0 404 Not Found\r\n"),
    ] {
        let mut headers = HeaderMap::new();
        headers.extend(date.map(|date| (DATE, HeaderValue::from_static(date))));
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, reason, headers: &headers, asks, closes: false };
        let mut out = Vec::new();
        reply.write(&Empty::<Bytes>::new(), || DAY, &mut out);
        let head = String::from_utf8(out).unwrap();
        assert!(head.starts_with(expected) && head.ends_with("\r\n\r\n"), "{head}");
        let day = DAY;
        let said = date.unwrap_or(day.to_str().unwrap());
        assert_eq!(head.matches("date: ").count(), 1);
        assert!(head.contains(&format!("\r\ndate: {said}\r\n")), "{head}");
    }
}

/// What is written of pieces of a body.
fn sent(mut sending: Sending, pieces: &[&'static [u8]], ends: bool) -> Result<Vec<u8>, Misfit> {
    let mut out = Output::default();
    for (i, piece) in pieces.iter().enumerate() {
        let is_last = ends && i + 1 == pieces.len();
        sending.data(Bytes::from_static(piece), is_last, &mut out)?;
    }
    if !ends {
        sending.end(&mut out)?;
    }
    assert!(sending.is_over());
    Ok(out.text)
}

#[test]
fn bodies_are_as_long_as_was_said() {
    let chunked = || Sending::Chunked(vec![]);
    for (sending, pieces, expected) in [
        (Sending::Length(3), &[&b"ab"[..], b"c"][..], Ok(&b"abc"[..])),
        (Sending::Length(3), &[b"", b"abc", b""], Ok(b"abc")),
        (Sending::Length(3), &[b"ab"], Err(Misfit)),
        (Sending::Length(3), &[b"ab", b"cd"], Err(Misfit)),
        (chunked(), &[b"ab", b"", b"c"], Ok(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")),
        (chunked(), &[b""], Ok(b"0\r\n\r\n")),
        (Sending::UntilClose, &[b"ab", b"c"], Ok(b"abc")),
    ] {
        for ends in [false, true] {
            let again = match &sending {
                Sending::Length(length) => Sending::Length(*length),
                Sending::Chunked(_) => chunked(),
                _ => Sending::UntilClose,
            };
            let written = sent(again, pieces, ends);
            assert_eq!(written.as_deref(), expected.as_ref().map(|all| &all[..]), "{sending:?}");
        }
    }
}

#[test]
fn trailers_come_if_they_were_announced_and_are_read() {
    let fields = &[("trailer", "x-sum, Content-Length")];
    let asks = Asks { trailers: true, ..KEEPS };
    for (asks, expected) in [(asks, "0\r\nx-sum: 5\r\n\r\n"), (KEEPS, "0\r\n\r\n")] {
        let (head, mut sending) = written(200, asks, false, fields, &stream());
        assert!(head.contains("trailer: x-sum"), "{head}");
        let mut out = Output::default();
        let trailers = map(&[("x-sum", "5"), ("x-other", "6"), ("content-length", "7")]);
        sending.trailers(trailers, &mut out).unwrap();
        assert_eq!(String::from_utf8(out.text).unwrap(), expected);
        assert!(sending.is_over());
    }
    let mut out = Output::default();
    assert_eq!(Sending::Length(1).trailers(map(&[]), &mut out), Err(Misfit));
    assert_eq!(Sending::Length(0).trailers(map(&[("x-sum", "5")]), &mut out), Ok(()));
    assert!(out.is_sent());
}
