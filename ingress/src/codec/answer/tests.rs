use super::*;

/// Of one answer that counts, in one piece.
fn read(asked: Asked, bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
    Answers::to(asked).take(&mut BytesMut::from(bytes))
}

fn refused(bytes: &[u8]) -> Option<Malformed> {
    read(Asked::Other, bytes).err()
}

#[test]
fn where_a_body_ends() {
    use Asked::{Connect, Head, Other};
    use Framing::{Chunked, Empty, Length, Tunnel, UntilClose};
    for (asked, head, expected, keeps) in [
        (Other, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), true),
        (Other, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Length(0), true),
        (Other, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Chunked, true),
        (Other, "HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
        (Other, "HTTP/1.1 200\r\n\r\n", UntilClose, false),
        (Other, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), false),
        (
            Other,
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\n",
            Length(5),
            true,
        ),
        (
            Other,
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\n",
            Length(5),
            false,
        ),
        // Whatever is said after it.
        (
            Other,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\n\
             Content-Length: 5\r\n\r\n",
            Length(5),
            false,
        ),
        (Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Empty, true),
        (Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Empty, true),
        (Head, "HTTP/1.1 200 OK\r\n\r\n", Empty, true),
        (Other, "HTTP/1.1 204 No Content\r\n\r\n", Empty, true),
        (Other, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Empty, true),
        // Who announces a body may send it, and it would be the next answer.
        (Other, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Empty, false),
        (Other, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Empty, false),
        (Other, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Empty, true),
        (Other, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", Length(0), true),
        (
            Other,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: upgrade\r\n\r\n",
            Tunnel,
            false,
        ),
        (Connect, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Tunnel, false),
        (Connect, "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n", Length(5), true),
    ] {
        let answer = read(asked, head.as_bytes()).unwrap().unwrap();
        assert_eq!((answer.framing, answer.keeps), (expected, keeps), "{asked:?} {head}");
    }
}

/// RFC 9110 8.6.
#[test]
fn a_length_is_passed_on_where_it_means_something() {
    for (asked, status, is_told) in [
        (Asked::Other, "101 Switching Protocols", false),
        (Asked::Other, "204 No Content", false),
        (Asked::Other, "200 OK", true),
        (Asked::Other, "304 Not Modified", true),
        (Asked::Head, "200 OK", true),
    ] {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
        let answer = read(asked, head.as_bytes()).unwrap().unwrap();
        assert_eq!(answer.headers.contains_key(CONTENT_LENGTH), is_told, "{asked:?} {status}");
    }
}

#[test]
fn hostile_and_broken_heads_are_refused() {
    for (name, head, expected) in [
        ("another protocol", &b"SSH-2.0-OpenSSH\r\n"[..], Malformed::Begin),
        ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46", Malformed::Begin),
        ("HTTP/0.9", b"<html>", Malformed::Begin),
        ("HTTP/2", b"HTTP/2 200 OK\r\n\r\n", Malformed::Begin),
        ("an empty line first", b"\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed::Begin),
        ("HTTP/1.2", b"HTTP/1.2 200 OK\r\n\r\n", Malformed::Head),
        ("no status", b"HTTP/1.1 OK\r\n\r\n", Malformed::Head),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", Malformed::Head),
        ("a status below 100", b"HTTP/1.1 099 OK\r\n\r\n", Malformed::Head),
        ("obs-fold", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Malformed::Head),
        ("a field before its name", b"HTTP/1.1 200 OK\r\n X: a\r\n\r\n", Malformed::Head),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Malformed::Head),
        ("a line without colon", b"HTTP/1.1 200 OK\r\nX\r\n\r\n", Malformed::Head),
        ("no name", b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", Malformed::Head),
        ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", Malformed::Head),
        ("bare CR in a value", b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", Malformed::Head),
        ("bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n", Malformed::Head),
        ("NUL in the reason", b"HTTP/1.1 200 O\0K\r\n\r\n", Malformed::Head),
        ("NUL in a name", b"HTTP/1.1 200 OK\r\nX\0: a\r\n\r\n", Malformed::Head),
        ("bare CR before the end", b"HTTP/1.1 200 OK\r\nX: a\r\r\n\r\n", Malformed::Head),
        (
            "two lengths where there is no body",
            b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            Malformed::Length,
        ),
        (
            "chunked in HTTP/1.0 where there is no body",
            b"HTTP/1.0 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::Coding,
        ),
        (
            "an interim answer with a length",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            Malformed::InterimBody,
        ),
        (
            "an interim answer in chunks",
            b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Malformed::InterimBody,
        ),
        (
            "chunked in HTTP/1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::Coding,
        ),
    ] {
        assert_eq!(refused(head), Some(expected), "{name}");
    }
}

#[test]
fn attack_smuggling_lengths_and_codings_that_can_be_read_in_two_ways_are_refused() {
    for (name, fields, expected) in [
        ("no length", "Content-Length:", Malformed::Length),
        ("a length that is none", "Content-Length: x", Malformed::Length),
        ("a signed length", "Content-Length: +3", Malformed::Length),
        ("a negative length", "Content-Length: -3", Malformed::Length),
        ("a length in hex", "Content-Length: 0x3", Malformed::Length),
        ("a list of lengths", "Content-Length: 3, 3", Malformed::Length),
        ("a length of 65 bits", "Content-Length: 18446744073709551616", Malformed::Length),
        (
            "a length no number of JavaScript's holds",
            "Content-Length: 4503599627370496",
            Malformed::Length,
        ),
        ("a length with a space in it", "Content-Length: 1 0", Malformed::Length),
        ("the same length twice", "Content-Length: 3\r\nContent-Length: 3", Malformed::Length),
        ("two lengths", "Content-Length: 3\r\nContent-Length: 4", Malformed::Length),
        (
            "length and coding",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            Malformed::LengthAndCoding,
        ),
        (
            "coding and length",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            Malformed::LengthAndCoding,
        ),
        ("gzip", "Transfer-Encoding: gzip", Malformed::Coding),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked", Malformed::Coding),
        ("chunked, identity", "Transfer-Encoding: chunked, identity", Malformed::Coding),
        ("xchunked", "Transfer-Encoding: xchunked", Malformed::Coding),
        ("chunked, chunked", "Transfer-Encoding: chunked, chunked", Malformed::Coding),
        ("no coding", "Transfer-Encoding:", Malformed::Coding),
        (
            "chunked twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Malformed::Coding,
        ),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert_eq!(refused(head.as_bytes()), Some(expected), "{name}");
    }
}

#[test]
fn heads_have_a_limit_and_so_have_their_fields() {
    let long = |bytes: usize| {
        let frame = "HTTP/1.1 204 No Content\r\nX: \r\n\r\n".len();
        let value = "a".repeat(bytes - frame);
        format!("HTTP/1.1 204 No Content\r\nX: {value}\r\n\r\n")
    };
    assert!(read(Asked::Other, long(HEAD_BYTES_MAX).as_bytes()).unwrap().is_some());
    assert_eq!(refused(long(HEAD_BYTES_MAX + 1).as_bytes()), Some(Malformed::HeadTooLong));
    let endless = long(HEAD_BYTES_MAX * 2);
    assert_eq!(refused(&endless.as_bytes()[..HEAD_BYTES_MAX]), Some(Malformed::HeadTooLong));
    let many =
        |fields: usize| format!("HTTP/1.1 204 No Content\r\n{}\r\n", "X: a\r\n".repeat(fields));
    assert!(read(Asked::Other, many(FIELDS_MAX).as_bytes()).unwrap().is_some());
    assert_eq!(refused(many(FIELDS_MAX + 1).as_bytes()), Some(Malformed::FieldsTooMany));
}

/// Host, what curl says of itself, and the eight fields that are set.
#[test]
fn the_next_request_has_room_in_the_map_of_an_answer() {
    for fields in [0, 1, FIELDS_USUAL, FIELDS_MAX] {
        let head = format!("HTTP/1.1 204 No Content\r\n{}\r\n", "X: a\r\n".repeat(fields));
        let mut headers = read(Asked::Other, head.as_bytes()).unwrap().unwrap().headers;
        headers.clear();
        let room = headers.capacity();
        headers.reserve(FIELDS_USUAL);
        assert!(room >= FIELDS_USUAL && headers.capacity() == room, "{fields}: {room}");
    }
}

#[test]
fn interim_answers_are_passed_over_and_not_without_end() {
    let proper = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
        "HTTP/1.1 199 Own\r\n\r\n",
    ] {
        for (times, is_answered) in [(1, true), (INTERIM_MAX, true), (INTERIM_MAX + 1, false)] {
            let answers = format!("{}{proper}ok", interim.repeat(times));
            let mut input = BytesMut::from(answers.as_bytes());
            match Answers::to(Asked::Other).take(&mut input) {
                Ok(Some(answer)) => {
                    assert!(is_answered && answer.status == StatusCode::OK, "{interim}");
                    assert!(!answer.headers.contains_key("link"));
                    assert_eq!(&input[..], b"ok");
                }
                other => {
                    assert_eq!(other.err(), Some(Malformed::InterimTooMany), "{interim}");
                    assert!(!is_answered, "{interim} {times}");
                }
            }
        }
    }
}

#[test]
fn who_sent_an_interim_answer_has_begun() {
    let mut answers = Answers::to(Asked::Other);
    for (sent, has_begun) in [
        ("", false),
        ("HTTP/1.1 103 Early Hints\r\n", false),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", true),
    ] {
        assert!(answers.take(&mut BytesMut::from(sent)).unwrap().is_none());
        assert_eq!(answers.has_begun(), has_begun, "{sent}");
        answers.scanned = 0;
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_the_same_and_nothing_behind_it_is_taken() {
    let head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 418 Own Words\r\nX: \xe9\r\nvia:1\r\n\r\n";
    let (mut answers, mut input) = (Answers::to(Asked::Other), BytesMut::new());
    for (at, byte) in head.iter().enumerate() {
        assert!(answers.take(&mut input).unwrap().is_none(), "at {at}");
        input.extend_from_slice(&[*byte]);
    }
    input.extend_from_slice(b"body");
    let answer = answers.take(&mut input).unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.reason.unwrap().as_ref(), b"Own Words");
    assert_eq!(answer.headers["x"].as_bytes(), b"\xe9");
    assert_eq!(answer.headers["via"], "1");
    assert_eq!(&input[..], b"body");
}

/// As nginx and hyper take them: CGI programs write such heads.
#[test]
fn a_head_may_end_its_lines_by_lf() {
    let answer = read(Asked::Other, b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok").unwrap().unwrap();
    assert_eq!(answer.framing, Framing::Length(2));
    assert!(answer.reason.is_none());
}
