use super::*;

/// What was passed on: data, trailers, what is left; the error, if there was one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    left: Vec<u8>,
    is_over: bool,
    error: Option<Malformed>,
}

/// In pieces of so many bytes.
fn read(framing: Framing, bytes: &[u8], step: usize) -> Read {
    let (mut decoder, mut input) = (Decoder::new(framing), BytesMut::new());
    let (mut read, mut pieces) = (Read::default(), bytes.chunks(step));
    loop {
        match decoder.take(&mut input) {
            Ok(Piece::Data(data)) => {
                assert!(!data.is_empty(), "nothing is no data");
                read.data.extend_from_slice(&data);
            }
            Ok(Piece::Trailers(trailers)) => read.trailers = Some(trailers),
            Ok(Piece::More) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => {
                    read.error = decoder.end().err();
                    break;
                }
            },
            Ok(Piece::End) => break,
            Err(error) => {
                read.error = Some(error);
                break;
            }
        }
    }
    read.is_over = decoder.is_over();
    pieces.for_each(|piece| input.extend_from_slice(piece));
    read.left = input.to_vec();
    read
}

fn each_way(framing: Framing, bytes: &[u8]) -> Read {
    let whole = read(framing, bytes, bytes.len().max(1));
    for step in 1..bytes.len() {
        let piecewise = read(framing, bytes, step);
        assert_eq!(piecewise.data, whole.data, "in pieces of {step}");
        assert_eq!(piecewise.error, whole.error, "in pieces of {step}");
        assert_eq!(piecewise.trailers, whole.trailers, "in pieces of {step}");
    }
    whole
}

#[test]
fn bodies_end_where_they_are_said_to() {
    use Framing::{Chunked, Empty, Length, Tunnel, UntilClose};
    for (framing, bytes, data, left) in [
        (Empty, "", "", ""),
        (Empty, "unasked", "", "unasked"),
        (Tunnel, "frames", "", "frames"),
        (Length(0), "unasked", "", "unasked"),
        (Length(5), "hello", "hello", ""),
        (Length(5), "hello unasked", "hello", " unasked"),
        (UntilClose, "all of it", "all of it", ""),
        (Chunked, "0\r\n\r\n", "", ""),
        (Chunked, "5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        (Chunked, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nunasked", "hello", "unasked"),
        (Chunked, "0000000000000005\r\nhello\r\n000\r\n\r\n", "hello", ""),
        (Chunked, "a;b=\"c\";d\r\n0123456789\r\n0;e\r\n\r\n", "0123456789", ""),
        (Chunked, "A \t;b\r\n0123456789\r\n0\t\r\n\r\n", "0123456789", ""),
    ] {
        let read = each_way(framing, bytes.as_bytes());
        assert_eq!(read.error, None, "{bytes}");
        assert!(read.is_over, "{bytes}");
        assert_eq!(read.data, data.as_bytes(), "{bytes}");
        assert_eq!(read.left, left.as_bytes(), "{bytes}");
    }
}

#[test]
fn hostile_and_broken_chunks_are_refused() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(CHUNK_LINE_BYTES_MAX));
    let chatty = format!("1;{}\r\na\r\n", "b".repeat(CHUNK_LINE_BYTES_MAX - 10));
    let chatty = chatty.repeat(CHUNK_EXTENSION_BYTES_MAX / (CHUNK_LINE_BYTES_MAX - 10) + 1);
    for (name, bytes, expected) in [
        ("no size", "\r\nhello", Malformed::ChunkSize),
        ("a size that is none", "x\r\nhello", Malformed::ChunkSize),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("a signed size", "+5\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("a negative size", "-1\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("a space first", " 5\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("a size no number of JavaScript's holds", "10000000000000\r\nhello", Malformed::ChunkSize),
        ("a size of 65 bits", "10000000000000000\r\nhello", Malformed::ChunkSize),
        ("a size with zeros without end", "00000000000000005\r\nhello", Malformed::ChunkSize),
        ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("LF behind a size", "5\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("NUL in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n", Malformed::ChunkSize),
        ("an extension without end", &long, Malformed::ChunkSize),
        ("extensions without end", &chatty, Malformed::ChunkSize),
        ("LF behind a chunk", "5\r\nhello\n0\r\n\r\n", Malformed::ChunkEnd),
        ("nothing behind a chunk", "5\r\nhello0\r\n\r\n", Malformed::ChunkEnd),
        ("more than the size says", "5\r\nhello!\r\n0\r\n\r\n", Malformed::ChunkEnd),
        ("CR alone behind a chunk", "5\r\nhello\r0\r\n\r\n", Malformed::ChunkEnd),
        ("LF behind the last chunk's line", "0\r\n\n", Malformed::Trailers),
        ("LF behind a trailer", "0\r\na: b\n\r\n", Malformed::Trailers),
        ("obs-fold in a trailer", "0\r\na: b\r\n c\r\n\r\n", Malformed::Trailers),
        ("a trailer without colon", "0\r\na\r\n\r\n", Malformed::Trailers),
        ("NUL in a trailer", "0\r\na: \0\r\n\r\n", Malformed::Trailers),
        ("an answer in place of trailers", "0\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed::Trailers),
        ("cut off in a size", "5", Malformed::CutOff),
        ("cut off in a chunk", "5\r\nhell", Malformed::CutOff),
        ("cut off behind a chunk", "5\r\nhello\r\n", Malformed::CutOff),
        ("cut off before the end", "5\r\nhello\r\n0\r\n", Malformed::CutOff),
        ("cut off in a trailer", "0\r\na: b\r\n", Malformed::CutOff),
    ] {
        let read = each_way(Framing::Chunked, bytes.as_bytes());
        assert_eq!(read.error, Some(expected), "{name}");
        assert!(!read.is_over, "{name}");
    }
    let short = each_way(Framing::Length(6), b"hello");
    assert_eq!((short.error, short.data), (Some(Malformed::CutOff), b"hello".to_vec()));
}

#[test]
fn trailers_are_told_without_what_belongs_into_heads() {
    let bytes = b"1\r\na\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 5\r\n\
                  Transfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nCache-Control: public\r\n\
                  Content-Type: text/html\r\ngrpc-message:\r\n\r\nHTTP";
    let read = each_way(Framing::Chunked, bytes);
    let trailers = read.trailers.unwrap();
    assert_eq!(trailers.len(), 2);
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "");
    assert_eq!(read.left, b"HTTP");
    // Nothing is left to tell.
    let read = each_way(Framing::Chunked, b"0\r\nHost: a\r\n\r\n");
    assert_eq!((read.error, read.trailers, read.is_over), (None, None, true));
}

#[test]
fn trailers_have_a_limit_and_so_have_their_fields() {
    for (name, trailers) in [
        ("long", format!("a: {}\r\n\r\n", "b".repeat(TRAILER_BYTES_MAX))),
        ("many", format!("{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1))),
        ("endless", "a: b\r\n".repeat(TRAILER_BYTES_MAX / 6 + 1)),
    ] {
        let bytes = format!("0\r\n{trailers}");
        let read = read(Framing::Chunked, bytes.as_bytes(), bytes.len());
        assert_eq!(read.error, Some(Malformed::Trailers), "{name}");
    }
}

/// So that the connection is back in its pool before the client has its last byte.
#[test]
fn who_takes_the_last_data_knows_it() {
    for (framing, bytes) in
        [(Framing::Length(2), &b"ok"[..]), (Framing::Chunked, b"2\r\nok\r\n0\r\n\r\n")]
    {
        let (mut decoder, mut input) = (Decoder::new(framing), BytesMut::from(bytes));
        assert!(matches!(decoder.take(&mut input), Ok(Piece::Data(data)) if data == "ok"));
        assert!(decoder.is_over() && decoder.left() == Some(0), "{framing:?}");
    }
    let (mut decoder, mut input) =
        (Decoder::new(Framing::Chunked), BytesMut::from(&b"2\r\nok\r\n0\r\na: b\r\n\r\n"[..]));
    assert!(matches!(decoder.take(&mut input), Ok(Piece::Data(_))));
    assert!(!decoder.is_over(), "there are trailers");
    assert_eq!(decoder.left(), Some(0));
}
