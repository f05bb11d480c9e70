//! What an endpoint sends: answers over HTTP/1.1.

use bytes::BytesMut;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::codec::{Answers, Asked, Decoder, FIELDS_MAX, Framing, Malformed, Piece};

/// What was read of one answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    status: StatusCode,
    headers: HeaderMap,
    framing: Option<Framing>,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    refused: Option<Malformed>,
    /// Bytes behind it, if it is whole.
    left: Option<usize>,
}

/// A byte of what was asked, then the bytes of a connection: what is read does not depend on the
/// pieces they come in; an answer that is believed has one length; what it holds was sent.
pub fn answer(bytes: &[u8]) {
    let Some((kind, sent)) = bytes.split_first() else { return };
    let asked = match kind % 3 {
        0 => Asked::Other,
        1 => Asked::Head,
        _ => Asked::Connect,
    };
    let whole = read(asked, sent, sent.len().max(1));
    let step = usize::from(kind / 3) + 1;
    assert_eq!(read(asked, sent, step), whole, "in pieces of {step}");
    let Some(framing) = whole.framing else { return };
    assert!(whole.status == StatusCode::SWITCHING_PROTOCOLS || !whole.status.is_informational());
    assert!(whole.headers.len() <= FIELDS_MAX);
    let says = |name| whole.headers.get_all(name).iter().count();
    assert!(says(CONTENT_LENGTH) + says(TRANSFER_ENCODING) <= 1);
    assert!(whole.data.len() <= sent.len());
    let is_whole = whole.left.is_some();
    match framing {
        Framing::Empty | Framing::Tunnel => assert!(is_whole && whole.data.is_empty()),
        Framing::Length(length) => assert_eq!(is_whole, whole.data.len() as u64 == length),
        Framing::UntilClose => assert_eq!(whole.left, Some(0)),
        Framing::Chunked => assert!(is_whole != whole.refused.is_some()),
    }
}

/// In pieces of so many bytes.
fn read(asked: Asked, sent: &[u8], step: usize) -> Read {
    let (mut read, mut input) = (Read::default(), BytesMut::new());
    let (mut answers, mut pieces) = (Answers::to(asked), sent.chunks(step));
    let answer = loop {
        match answers.take(&mut input) {
            Ok(Some(answer)) => break answer,
            Ok(None) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return read,
            },
            Err(refused) => return Read { refused: Some(refused), ..read },
        }
    };
    read.status = answer.status;
    read.headers = answer.headers;
    read.framing = Some(answer.framing);
    let mut decoder = Decoder::new(answer.framing);
    loop {
        match decoder.take(&mut input) {
            Ok(Piece::Data(data)) => read.data.extend_from_slice(&data),
            Ok(Piece::Trailers(trailers)) => read.trailers = Some(trailers),
            Ok(Piece::End) => break,
            Ok(Piece::More) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => match decoder.end() {
                    Ok(()) => break,
                    Err(refused) => return Read { refused: Some(refused), ..read },
                },
            },
            Err(refused) => return Read { refused: Some(refused), ..read },
        }
    }
    assert!(decoder.is_over() && decoder.left() == Some(0));
    let unread: usize = pieces.map(<[u8]>::len).sum();
    read.left = Some(input.len() + unread);
    read
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::fuzzing::replay::corpus;

    const ROOM_BYTES: usize = 64 << 10;

    /// Status and data, if hyper has both.
    async fn by_hyper(sent: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
        let (near, mut far) = duplex(ROOM_BYTES);
        let (mut sender, connection) = handshake(TokioIo::new(near)).await.unwrap();
        let driving = tokio::spawn(connection);
        let request = Request::builder().uri("/").header("host", "a.example");
        let asking = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let answering = async {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(far.read_u8().await.unwrap());
            }
            far.write_all(sent).await.unwrap();
            far.shutdown().await.unwrap();
        };
        let (response, ()) = tokio::join!(asking, answering);
        let (head, body) = response.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        driving.abort();
        Some((head.status, body.to_vec()))
    }

    #[tokio::test]
    async fn what_is_believed_hyper_reads_the_same() {
        let mut compared = 0;
        for (path, bytes) in corpus("ingress_answer") {
            let Some((kind, sent)) = bytes.split_first() else { continue };
            let ours = read(Asked::Other, sent, sent.len().max(1));
            if !kind.is_multiple_of(3) || ours.left.is_none() {
                continue;
            }
            let theirs = by_hyper(sent).await;
            assert_eq!(theirs, Some((ours.status, ours.data)), "{}", path.display());
            compared += 1;
        }
        assert!(compared > 0, "nothing of the corpus is an answer");
    }
}
