use proptest::prelude::*;

use super::*;

const BYTES_MAX: usize = 1 << 10;

fn read(bytes: &[u8]) -> Result<Option<Head>, Unread> {
    Heads::default().take(&mut BytesMut::from(bytes), BYTES_MAX, &mut HeaderMap::new())
}

fn head(bytes: &str) -> Head {
    read(bytes.as_bytes()).unwrap().unwrap()
}

/// With a Host.
fn post(fields: &str) -> Head {
    head(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

#[test]
fn where_a_body_ends() {
    for (fields, expected) in [
        ("", Framing::Empty),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length:\t5 \r\n", Framing::Length(5)),
        ("Content-Length: 0005\r\n", Framing::Length(5)),
        ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("transfer-encoding:\tChunked \r\n", Framing::Chunked),
        ("TE: trailers\r\ncontent-type: a/b\r\nContent-Length:5\r\n", Framing::Length(5)),
        ("Content-Length: 4503599627370495\r\n", Framing::Length(LENGTH_MAX)),
    ] {
        let head = post(fields);
        assert_eq!((head.framing, head.doubt), (expected, None), "{fields}");
    }
}

#[test]
fn attack_what_others_would_read_otherwise_is_not_served() {
    use Refused as R;
    for (name, fields, reason) in [
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", R::LengthAndCoding),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", R::LengthAndCoding),
        ("by bare LF", "Content-Length: 6\nTransfer-Encoding: chunked\n", R::LengthAndCoding),
        ("two lengths", "Content-Length: 6\r\nContent-Length: 7\r\n", R::Length),
        ("the same length twice", "Content-Length: 6\r\ncontent-length: 6\r\n", R::Length),
        ("list of lengths", "Content-Length: 6, 6\r\n", R::Length),
        ("signed length", "Content-Length: +6\r\n", R::Length),
        ("no length", "Content-Length:\r\n", R::Length),
        ("huge length", "Content-Length: 18446744073709551616\r\n", R::Length),
        ("length beyond what all agree on", "Content-Length: 4503599627370496\r\n", R::Length),
        ("coding twice", "Transfer-Encoding: chunked, chunked\r\n", R::TransferCoding),
        (
            "two codings",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            R::TransferCoding,
        ),
        ("gzip", "Transfer-Encoding: gzip, chunked\r\n", R::TransferCoding),
        ("no end", "Transfer-Encoding: chunked, identity\r\n", R::Malformed),
        ("another coding", "Transfer-Encoding: xchunked\r\n", R::Malformed),
        ("no coding", "Transfer-Encoding:\r\n", R::Malformed),
        (
            "the last one is another",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
            R::Malformed,
        ),
    ] {
        let head = post(fields);
        assert_eq!(head.doubt, Some(reason), "{name}");
        // What follows is not read as one thing or another.
        assert_eq!((head.framing, head.asks.keeps), (Framing::Empty, false), "{name}");
    }
    let chunked = head("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(chunked.doubt, Some(R::Malformed));
    for line in ["GET /a#b", "GET# /a", "GET http://a/#"] {
        let head = head(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(head.doubt, Some(R::Path), "{line}");
    }
    for line in ["GET /?a=%23", "GET /"] {
        let head = head(&format!("{line} HTTP/1.1\r\nReferer: http://b/#c\r\n\r\n"));
        assert_eq!(head.doubt, None, "{line}");
    }
}

#[test]
fn attack_a_padded_length_or_coding_is_refused() {
    for (field, value, reason) in [
        ("Content-Length", "5", Refused::Length),
        ("Transfer-Encoding", "chunked", Refused::TransferCoding),
    ] {
        let line = |padding: usize| format!("{field}:{}{value}\r\n", " ".repeat(padding));
        let fits = FRAMING_LINE_BYTES_MAX - line(0).len();
        assert_eq!(post(&line(fits)).doubt, None, "{field}");
        assert_eq!(post(&line(fits + 1)).doubt, Some(reason), "{field}");
        let behind = format!("{field}: {value}{}\r\n", " ".repeat(FRAMING_LINE_BYTES_MAX));
        assert_eq!(post(&behind).doubt, Some(reason), "{field}");
    }
}

#[test]
fn what_is_no_head_is_refused() {
    use Refused::{FieldsTooMany, Malformed};
    let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(count));
    let (most, more) = (fields(FIELDS_MAX), fields(FIELDS_MAX + 1));
    let sized = |bytes: usize| {
        let head = "GET / HTTP/1.1\r\nx: \r\n\r\n";
        head.replace("x: ", &format!("x: {}", "y".repeat(bytes - head.len())))
    };
    let (longest, longer) = (sized(BYTES_MAX), sized(BYTES_MAX + 1));
    for (name, bytes, expected) in [
        ("a proper one", "GET / HTTP/1.1\r\n\r\n", None),
        ("by bare LF", "GET / HTTP/1.0\nx: y\n\n", None),
        ("empty lines first", "\r\n\n\r\nGET / HTTP/1.1\r\n\r\n", None),
        ("most fields", &most, None),
        ("too many fields", &more, Some(FieldsTooMany)),
        ("the longest", &longest, None),
        ("a byte too long", &longer, Some(FieldsTooMany)),
        ("no end in sight", &"x".repeat(BYTES_MAX), Some(FieldsTooMany)),
        // As in pieces, where nobody waits for the line's end.
        ("a bad line a byte too long", &(("x".repeat(BYTES_MAX)) + "\n\r\n"), Some(FieldsTooMany)),
        ("TLS", "\x16\x03\x01", Some(Malformed)),
        ("CR alone", "\rGET / HTTP/1.1\r\n\r\n", Some(Malformed)),
        ("HTTP/0.9", "GET /\r\n", Some(Malformed)),
        ("HTTP/1.2", "GET / HTTP/1.2\r\n", Some(Malformed)),
        ("HTTP/2.0", "GET / HTTP/2.0\r\n", Some(Malformed)),
        ("HTTP/2's preface, nearly", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r-", Some(Malformed)),
        ("a tab before the target", "GET\t/ HTTP/1.1\r\n", Some(Malformed)),
        ("obs-fold", "GET / HTTP/1.1\r\nx: y\r\n z\r\n\r\n", Some(Malformed)),
        ("NUL in a value", "GET / HTTP/1.1\r\nx: \0\r\n\r\n", Some(Malformed)),
        ("CR in a value", "GET / HTTP/1.1\r\nx: y\rz\r\n\r\n", Some(Malformed)),
        ("a space before the colon", "GET / HTTP/1.1\r\nx : y\r\n\r\n", Some(Malformed)),
        ("no name", "GET / HTTP/1.1\r\n: y\r\n\r\n", Some(Malformed)),
        ("no target", "GET HTTP/1.1\r\n\r\n", Some(Malformed)),
    ] {
        let read = read(bytes.as_bytes());
        match expected {
            None => assert!(matches!(read, Ok(Some(_))), "{name}: {read:?}"),
            Some(reason) => assert_eq!(read.err(), Some(Unread::Refused(reason)), "{name}"),
        }
    }
}

#[test]
fn what_a_client_asks_of_its_connection() {
    let asks = Asks { keeps: true, ..Asks::default() };
    let (is_10, closing) = (Asks { is_10: true, ..Asks::default() }, Asks::default());
    for (line, fields, expected) in [
        ("GET / HTTP/1.1", "", asks),
        ("HEAD / HTTP/1.1", "", Asks { is_head: true, ..asks }),
        ("GET / HTTP/1.1", "Connection: close\r\n", closing),
        ("GET / HTTP/1.1", "Connection: x, Close\r\nConnection: keep-alive\r\n", closing),
        ("GET / HTTP/1.1", "Connection: keep-alive\r\nConnection: x,close\r\n", closing),
        ("GET / HTTP/1.0", "", is_10),
        ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", Asks { keeps: true, ..is_10 }),
        ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", is_10),
        ("GET / HTTP/1.1", "TE: gzip, trailers\r\n", Asks { trailers: true, ..asks }),
        ("GET / HTTP/1.1", "TE: trailersx\r\n", asks),
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n", Asks { upgrades: true, ..asks }),
        ("GET / HTTP/1.0", "Upgrade: websocket\r\n", is_10),
        // Nothing follows that could be waited for.
        ("GET / HTTP/1.1", "Expect: 100-continue\r\n", asks),
        (
            "GET / HTTP/1.1",
            "Content-Length: 1\r\nExpect: 100-Continue\r\n",
            Asks { expects: true, ..asks },
        ),
        ("GET / HTTP/1.1", "Content-Length: 1\r\nExpect: 100-continue, x\r\n", asks),
        ("GET / HTTP/1.0", "Content-Length: 1\r\nExpect: 100-continue\r\n", is_10),
    ] {
        let head = head(&format!("{line}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(head.asks, expected, "{line} {fields}");
    }
}

/// RFC 9113 3.3, 3.4: a connection begins with it or has none.
#[test]
fn the_preface_of_http2_is_known_in_whatever_pieces_and_left_where_it_is() {
    let (mut heads, mut input) = (Heads::default(), BytesMut::new());
    let mut room = HeaderMap::new();
    for (i, byte) in PREFACE.iter().enumerate() {
        input.extend_from_slice(&[*byte]);
        let read = heads.take(&mut input, BYTES_MAX, &mut room);
        match i + 1 == PREFACE.len() {
            true => assert_eq!(read.err(), Some(Unread::Preface)),
            false => assert!(matches!(read, Ok(None)), "{i}: {read:?}"),
        }
    }
    assert_eq!(&input[..], PREFACE);
    let mut input = BytesMut::from("GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(heads.take(&mut input, BYTES_MAX, &mut room), Ok(Some(_))));
    input.extend_from_slice(PREFACE);
    let read = heads.take(&mut input, BYTES_MAX, &mut room);
    assert_eq!(read.err(), Some(Unread::Refused(Refused::Malformed)));
}

#[test]
fn the_room_of_other_fields_holds_nothing_of_them() {
    let mut room = HeaderMap::new();
    room.insert("cookie", HeaderValue::from_static("secret"));
    let mut input = BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = Heads::default().take(&mut input, BYTES_MAX, &mut room).unwrap().unwrap();
    assert_eq!(head.request.headers().len(), 1);
    assert!(room.is_empty());
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                "Host: a\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "x: y\n",
                "\r\n", "\r\n\r\n", "\n", "\r", "#", " ", ":", "\0", "\x16",
            ]),
            0..8,
        ),
        step in 1usize..5,
    ) {
        let bytes = parts.concat().into_bytes();
        let told = |read: &Result<Option<Head>, Unread>| match read {
            Ok(Some(head)) => format!("{head:?}"),
            other => format!("{other:?}"),
        };
        let mut input = BytesMut::from(&bytes[..]);
        let whole = Heads::default().take(&mut input, BYTES_MAX, &mut HeaderMap::new());
        let (mut heads, mut pieces) = (Heads::default(), bytes.chunks(step));
        let mut input = BytesMut::new();
        let piecewise = loop {
            let read = heads.take(&mut input, BYTES_MAX, &mut HeaderMap::new());
            match (read, pieces.next()) {
                (Ok(None), Some(piece)) => input.extend_from_slice(piece),
                (read, _) => break read,
            }
        };
        prop_assert_eq!(told(&piecewise), told(&whole));
    }
}
