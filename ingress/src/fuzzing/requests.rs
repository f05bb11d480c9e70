//! What a client sends over HTTP/1.1: requests, one behind the other.

use bytes::BytesMut;
use http::{
    HeaderMap, Method, Uri, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};

use super::spelling::{one_host, one_path};
use crate::{
    admission::admit,
    codec::{
        Coding, Decoder, FIELDS_MAX, Framing, Piece, begin_chunk, end_chunks,
        h1::{Asks, Head, Heads, Unread},
        write_head,
    },
    config::Limits,
    counters::Refused,
};

/// Small, so that inputs reach it.
const HEAD_BYTES_MAX: usize = 2 << 10;

/// What was read of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) method: Method,
    pub(super) uri: Uri,
    version: Version,
    headers: HeaderMap,
    framing: Framing,
    asks: Asks,
    pub(super) doubt: Option<Refused>,
    pub(super) data: Vec<u8>,
    trailers: Option<HeaderMap>,
    pub(super) is_whole: bool,
}

/// What was read of a connection, until what follows was nobody's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) requests: Vec<Read>,
    pub(super) refused: Option<Unread>,
    /// Bytes behind the last request, if there is an end to it.
    left: Option<usize>,
}

/// The bytes of a connection: what is read does not depend on the pieces they come in; a request that
/// is served has one length, one host and one path, and is the same one once it is sent on.
pub fn request(bytes: &[u8]) {
    let whole = converse(bytes, bytes.len().max(1));
    for step in [1, usize::from(bytes.first().copied().unwrap_or(0) % 61) + 2] {
        assert_eq!(converse(bytes, step), whole, "in pieces of {step}");
    }
    for read in whole.requests {
        is_one(&read);
        let mut head = http::Request::new(()).into_parts().0;
        (head.method, head.uri) = (read.method.clone(), read.uri.clone());
        (head.version, head.headers) = (read.version, read.headers.clone());
        if read.doubt.is_none() && is_admitted(&head) && read.is_whole {
            is_sent_on(&head, &read);
        }
    }
}

/// One end, and one way to tell it.
fn is_one(read: &Read) {
    assert!(read.headers.len() <= FIELDS_MAX);
    if read.doubt.is_some() {
        assert!(read.data.is_empty() && !read.asks.keeps && read.framing == Framing::Empty);
        return;
    }
    let says = |name| read.headers.get_all(name).iter().count();
    assert!(says(CONTENT_LENGTH) + says(TRANSFER_ENCODING) <= 1);
    match read.framing {
        Framing::Empty => assert!(read.is_whole && read.data.is_empty()),
        Framing::Length(length) => assert_eq!(read.is_whole, read.data.len() as u64 == length),
        Framing::Chunked => assert_ne!(read.version, Version::HTTP_10),
        Framing::UntilClose | Framing::Tunnel => unreachable!("a request ends: {read:?}"),
    }
}

fn is_admitted(head: &Parts) -> bool {
    let Ok(admitted) = admit(head, &Limits::default()) else { return false };
    one_path(&admitted.path.normal);
    if !admitted.host.is_empty() {
        one_host(&admitted.host);
    }
    true
}

/// As an endpoint gets it.
fn is_sent_on(head: &Parts, read: &Read) {
    let mut sent = Vec::new();
    let coding = match read.framing {
        Framing::Length(length) => Coding::Length(length),
        Framing::Chunked => Coding::Chunked,
        _ => Coding::Empty,
    };
    write_head(&head.method, &head.uri, &head.headers, &coding, &mut sent);
    match coding {
        Coding::Chunked => {
            if !read.data.is_empty() {
                begin_chunk(read.data.len(), &mut sent);
                sent.extend_from_slice(&read.data);
                sent.extend_from_slice(b"\r\n");
            }
            end_chunks(&read.trailers.clone().unwrap_or_default(), &mut sent);
        }
        Coding::Empty | Coding::Length(_) => sent.extend_from_slice(&read.data),
    }
    let again = read_all(&sent, sent.len(), usize::MAX);
    let [only] = &again.requests[..] else { unreachable!("{again:?} of {read:?}") };
    assert_eq!((only.doubt, again.refused), (None, None), "{read:?}");
    assert!(only.is_whole && again.left == Some(0), "{again:?} of {read:?}");
    assert_eq!((&only.method, &only.data), (&read.method, &read.data));
    let target = |uri: &Uri| uri.path_and_query().map(ToString::to_string);
    assert_eq!(target(&only.uri), target(&read.uri));
    assert_eq!(only.trailers, read.trailers);
}

/// In pieces of so many bytes.
pub(super) fn converse(bytes: &[u8], step: usize) -> Conversation {
    read_all(bytes, step, HEAD_BYTES_MAX)
}

fn read_all(bytes: &[u8], step: usize, head_bytes_max: usize) -> Conversation {
    let mut all = Conversation::default();
    let (mut heads, mut input) = (Heads::default(), BytesMut::new());
    let (mut pieces, mut room) = (bytes.chunks(step), HeaderMap::new());
    loop {
        let head = match heads.take(&mut input, head_bytes_max, &mut room) {
            Ok(Some(head)) => head,
            Ok(None) => match pieces.next() {
                Some(piece) => {
                    input.extend_from_slice(piece);
                    continue;
                }
                None => {
                    all.left = Some(input.len());
                    return all;
                }
            },
            Err(refused) => return Conversation { refused: Some(refused), ..all },
        };
        let Head { request, framing, asks, doubt } = head;
        let (parts, ()) = request.into_parts();
        let mut read = Read {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers,
            framing,
            asks,
            doubt,
            data: Vec::new(),
            trailers: None,
            is_whole: false,
        };
        let mut decoder = Decoder::new(framing);
        while !read.is_whole {
            match decoder.take(&mut input) {
                Ok(Piece::Data(data)) => read.data.extend_from_slice(&data),
                Ok(Piece::Trailers(trailers)) => read.trailers = Some(trailers),
                Ok(Piece::End) => read.is_whole = true,
                Ok(Piece::More) => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => break,
                },
                Err(_) => break,
            }
        }
        let goes_on = read.is_whole && doubt.is_none();
        all.requests.push(read);
        if !goes_on {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::{body::Incoming, server::conn::http1::Builder, service::service_fn};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex, split},
        runtime,
    };

    use super::*;
    use crate::fuzzing::replay::corpus;

    /// Method, target and body of each.
    type Served = Vec<(Method, Uri, Vec<u8>)>;

    /// What hyper serves, and whether it found it all proper.
    async fn by_hyper(bytes: &[u8]) -> (Served, bool) {
        let served = RefCell::new(Vec::new());
        let service = service_fn(|request: Request<Incoming>| {
            let served = &served;
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                served.borrow_mut().push((head.method, head.uri, body.to_vec()));
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let (mut client, server) = duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        let (mut reading, mut writing) = split(client);
        // It is read to its end however early the client has said all.
        let server = TokioIo::new(server);
        let connection = Builder::new().half_close(true).serve_connection(server, service);
        let client = async {
            writing.shutdown().await.unwrap();
            reading.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(connection, client);
        (served.take(), outcome.is_ok())
    }

    /// What is served hyper reads the same, and sees nothing in it that is not.
    fn compare(bytes: &[u8]) -> usize {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        let (theirs, is_proper) = runtime.block_on(by_hyper(bytes));
        let ours = converse(bytes, bytes.len().max(1));
        let is_served = |read: &&Read| read.doubt.is_none() && read.is_whole;
        let served = ours.requests.iter().take_while(is_served);
        let served: Served =
            served.map(|read| (read.method.clone(), read.uri.clone(), read.data.clone())).collect();
        let keeps = ours.requests.iter().all(|read| read.asks.keeps);
        if keeps {
            assert_eq!(theirs.get(..served.len()), Some(&served[..]), "{ours:?}");
        }
        if keeps && is_proper && ours.left == Some(0) {
            assert_eq!(theirs.len(), served.len(), "{ours:?}");
        }
        served.len()
    }

    #[test]
    fn what_is_served_hyper_reads_the_same() {
        let inputs = corpus("ingress_request").into_iter();
        let compared: usize = inputs.map(|(_, bytes)| compare(&bytes)).sum();
        assert!(compared > 0, "nothing of the corpus is a request");
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

        #[test]
        fn attack_no_request_is_served_that_hyper_sees_otherwise(
            messages in prop::collection::vec(message(), 1..5)
        ) {
            let bytes = messages.concat().into_bytes();
            request(&bytes);
            compare(&bytes);
        }
    }
}
