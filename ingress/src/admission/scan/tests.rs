use proptest::prelude::*;

use super::*;

fn scanned(bytes: &[u8]) -> Option<(u64, Refused)> {
    let mut scanner = Scanner::default();
    scanner.feed(bytes).map(|finding| (finding.request, finding.reason))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\n";
const BAD: &str =
    "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn what_hyper_would_let_pass_is_found() {
    use Refused as R;
    let long = " ".repeat(100);
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
        ("coding twice", "TE: x\r\nTransfer-Encoding: chunked, chunked\r\n", R::TransferCoding),
        ("gzip", "Transfer-Encoding: gzip, chunked\r\n", R::TransferCoding),
    ] {
        let head = format!("{POST}{fields}\r\n");
        assert_eq!(scanned(head.as_bytes()), Some((0, reason)), "{name}");
    }
    let fragment = "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(scanned(fragment.as_bytes()), Some((0, R::Path)));
    // A field too long to be kept, when it comes in pieces.
    let padded = format!("{POST}Content-Length:{long}5\r\n\r\n");
    let mut scanner = Scanner::default();
    let found = padded.as_bytes().chunks(1).filter_map(|byte| scanner.feed(byte)).next();
    assert_eq!(found, Some(Finding { request: 0, reason: R::Length }));
}

#[test]
fn a_request_is_found_behind_any_body() {
    for (name, before, count) in [
        ("nothing", String::new(), 0),
        ("empty lines", "\r\n\n".to_owned(), 0),
        ("requests without body", GET.repeat(3), 3),
        ("a length", format!("{POST}Content-Length: 5\r\n\r\nGET /"), 1),
        ("no bytes", format!("{POST}Content-Length: 0\r\n\r\n"), 1),
        (
            "chunks",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\n\r\n"),
            1,
        ),
        (
            "chunks and trailers",
            format!(
                "{POST}Transfer-Encoding: Chunked\r\n\r\nA\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\nx: y\r\n\r\n"
            ),
            1,
        ),
        (
            "leading zeros",
            format!(
                "{POST}Transfer-Encoding: chunked\r\n\r\n0000000000000005\r\nGET /\r\n0\r\n\r\n"
            ),
            1,
        ),
    ] {
        let bytes = format!("{before}{BAD}");
        assert_eq!(scanned(bytes.as_bytes()), Some((count, Refused::LengthAndCoding)), "{name}");
    }
}

/// Where parsers differ on a body, the request behind it must not be taken for one.
#[test]
fn behind_a_chunked_body_in_doubt_no_request_is_served() {
    for (name, body) in [
        ("size ended by LF", "0\n\r\n"),
        ("trailer ended by LF", "0\r\nx: y\n\r\n"),
        ("no size", ";x\r\n"),
        ("size behind a space", " 5\r\n"),
        ("a number for 17 digits", "00000000000000005\r\nabcde\r\n0\r\n\r\n"),
    ] {
        let bytes = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}{GET}");
        assert_eq!(scanned(bytes.as_bytes()), Some((1, Refused::Malformed)), "{name}");
    }
}

#[test]
fn ordinary_requests_are_no_finding() {
    for request in [
        GET,
        "GET / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-type: a/b\r\nContent-Length:5\r\nTE: trailers\r\n\r\nab#de",
        "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\tchunked \r\n\r\n3\r\n#\r\n\r\n0\r\n\r\n",
        "GET /?a=%23 HTTP/1.1\r\nReferer: http://b/#c\r\n\r\n",
    ] {
        assert_eq!(scanned(request.repeat(2).as_bytes()), None, "{request}");
    }
}

/// A proxy that reads byte by byte and one that reads whole packets must not differ.
#[test]
fn a_padded_length_or_coding_is_refused_whole_and_in_pieces() {
    let padding = " ".repeat(LINE_BYTES_KEPT);
    for (field, value, reason) in [
        ("Content-Length", "5", Refused::Length),
        ("Transfer-Encoding", "chunked", Refused::TransferCoding),
    ] {
        let request = format!("{POST}{field}:{padding}{value}\r\n\r\n");
        assert_eq!(scanned(request.as_bytes()), Some((0, reason)), "{field}");
        let mut scanner = Scanner::default();
        let found = request.as_bytes().chunks(7).map(|piece| scanner.feed(piece)).last();
        assert_eq!(found, Some(Some(Finding { request: 0, reason })), "{field}");
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                GET, POST, BAD, "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "\r\n",
                "\n", "3\r\nabc\r\n", "0\r\n\r\n", "x", "#", "C", "T", ":", " ", "0", "\r",
            ]),
            0..12,
        ),
        cuts in prop::collection::vec(1usize..40, 0..20),
    ) {
        let bytes = parts.concat().into_bytes();
        let mut pieces = Scanner::default();
        let (mut rest, mut found) = (&bytes[..], None);
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            found = pieces.feed(piece);
            rest = more;
        }
        found = pieces.feed(rest).or(found);
        let mut whole = Scanner::default();
        prop_assert_eq!(found, whole.feed(&bytes));
    }
}

/// How many requests hyper sees in these bytes, and whether it found them all proper.
async fn served_by_hyper(bytes: &[u8]) -> (u64, bool) {
    use http_body_util::{BodyExt, Empty};
    use hyper::{Request, Response, body::Incoming};

    let served = std::cell::Cell::new(0);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        served.set(served.get() + 1);
        async {
            let read = request.into_body().collect().await;
            read.map(|_| Response::new(Empty::<bytes::Bytes>::new()))
        }
    });
    let (mut client, server) = tokio::io::duplex(1 << 20);
    tokio::io::AsyncWriteExt::write_all(&mut client, bytes).await.unwrap();
    let (mut reading, writing) = tokio::io::split(client);
    let io = hyper_util::rt::TokioIo::new(server);
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    let client = async {
        let mut writing = writing;
        tokio::io::AsyncWriteExt::shutdown(&mut writing).await.unwrap();
        let mut answers = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answers).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(connection, client);
    (served.get(), outcome.is_ok())
}

/// Messages that are mostly proper, with what parsers differ on here and there.
fn message() -> impl Strategy<Value = String> {
    let fields = prop::sample::select(vec![
        "",
        "",
        "",
        "x: y\r\n",
        "x: y\n",
        "Content-Length: 3\r\n",
        "Content-Length: 3\r\n",
        "content-length:\t5 \r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:CHUNKED\t\r\n",
        " x: y\r\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "",
        "abc",
        "abc",
        "abcde",
        "3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
        "003;e=\"\r\nabc\r\n0\r\nt: u\r\n\r\n",
        "0\r\nt: u\n\r\n",
        "0\r\nt: u\r\n\n",
        "3 \t\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3;\nx\r\nabc\r\n0\r\n\r\n",
        "\r\n",
        "\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0;x\r\n\r\n",
        "3\r\nabc\r\n000\r\n\r\n",
        "0\r\nPOST: /\r\nContent-Length: 9\r\n\r\n",
        "0\r\n\r",
        "1\r\n\r\r\n0\r\n\r\n",
    ]);
    let line = prop::sample::select(vec!["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\n"]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"]);
    let fields = prop::collection::vec(fields, 2);
    (line, fields, end, body).prop_map(|(line, fields, end, body)| {
        format!("{line}Host: a\r\n{}{end}{body}", fields.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Without a finding both agree where requests begin: none gets by unseen.
    #[test]
    fn hyper_sees_no_request_that_was_not_scanned(
        messages in prop::collection::vec(message(), 1..5)
    ) {
        let bytes = messages.concat().into_bytes();
        let mut scanner = Scanner::default();
        let finding = scanner.feed(&bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (served, proper) = runtime.block_on(served_by_hyper(&bytes));
        match finding {
            Some(finding) => prop_assert!(finding.request <= scanner.heads),
            None if proper => prop_assert_eq!(scanner.heads, served),
            None => prop_assert!(scanner.heads >= served),
        }
    }
}
