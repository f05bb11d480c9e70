//! HTTP/2 by the byte, for what no client library would send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Name and value, as they are.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// Frames as they come, in pieces of any length.
#[derive(Debug, Default)]
pub(crate) struct Came {
    rest: Vec<u8>,
    /// Of the only stream there is.
    pub(crate) data_bytes: usize,
    pub(crate) is_over: bool,
}

impl Came {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(&[high, middle, low, kind, flags, ..]) =
            self.rest.first_chunk::<HEAD_BYTES>()
        {
            let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap();
            if self.rest.len() < HEAD_BYTES + length {
                return;
            }
            if kind == DATA {
                self.data_bytes += length;
                self.is_over |= flags & END_STREAM != 0;
            }
            self.rest.drain(..HEAD_BYTES + length);
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered with this status.
    Status(u16),
    /// Its stream or the whole connection was ended with an error.
    Refused,
}

/// RFC 7541 6.2.2: literal fields, no table, no Huffman code.
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

pub(crate) fn length(block: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 127 => block.push(short),
        _ => {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One request on a connection of its own; `body` is sent as one DATA frame.
pub(crate) async fn request(
    address: SocketAddr,
    fields: &[Field<'_>],
    body: Option<&[u8]>,
) -> Outcome {
    let end = if body.is_none() { END_STREAM } else { 0 };
    let mut frames = frame(HEADERS, END_HEADERS | end, 1, &block(fields));
    if let Some(body) = body {
        frames.extend(frame(DATA, END_STREAM, 1, body));
    }
    answered(address, &frames).await
}

/// What becomes of the first request of these frames, on a connection of their own.
pub(crate) async fn answered(address: SocketAddr, frames: &[u8]) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let bytes = [&begin()[..], frames].concat();
    stream.write_all(&bytes).await.unwrap();
    timeout(PATIENCE, outcome(&mut stream)).await.expect("no answer in time")
}

/// Sends pieces until the other side ends the connection; false: it took all of them, and did not.
pub(crate) async fn is_cut(address: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = async move {
        for piece in [begin()].into_iter().chain(pieces) {
            if writing.write_all(&piece).await.is_err() {
                return;
            }
        }
        // Open on this side.
        std::future::pending::<()>().await;
    };
    let ended = async {
        // A reset is an end, too.
        let _ = reading.read_to_end(&mut Vec::new()).await;
    };
    let either = async {
        tokio::select! { () = sending => {}, () = ended => {} }
    };
    timeout(PATIENCE, either).await.is_ok()
}

/// One request so often on one connection, in one write with the preface; what became of each, in the
/// order of the answers.
pub(crate) async fn requests(
    address: SocketAddr,
    fields: &[Field<'_>],
    count: usize,
) -> Vec<Outcome> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    timeout(PATIENCE, ask(&mut stream, fields, count)).await.expect("no answer in time")
}

/// The same, on a connection that goes on.
pub(crate) async fn ask(
    stream: &mut TcpStream,
    fields: &[Field<'_>],
    count: usize,
) -> Vec<Outcome> {
    let mut bytes = begin();
    for id in (1..).step_by(2).take(count) {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &block(fields)));
    }
    stream.write_all(&bytes).await.unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..count {
        outcomes.push(outcome(stream).await);
    }
    outcomes
}

/// What a client says first.
pub(crate) fn begin() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The reason a connection is closed for, once nothing else comes.
pub(crate) async fn goaway(stream: &mut TcpStream) -> Option<u32> {
    let mut head = [0; 9];
    let mut reason = None;
    while stream.read_exact(&mut head).await.is_ok() {
        let [high, middle, low, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]).try_into().unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        if kind == GOAWAY {
            reason = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    reason
}

/// Waits for the answer to a PING.
pub(crate) async fn ponged(stream: &mut TcpStream) {
    loop {
        let mut head = [0; HEAD_BYTES];
        timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]).try_into().unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == PING && flags & ACK != 0 {
            return;
        }
    }
}

/// Of the answer that comes next.
pub(crate) async fn outcome(stream: &mut TcpStream) -> Outcome {
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let [high, middle, low, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]).try_into().unwrap()];
        if stream.read_exact(&mut payload).await.is_err() {
            break;
        }
        match kind {
            HEADERS => return Outcome::Status(status(&payload)),
            RST_STREAM => return Outcome::Refused,
            GOAWAY if payload[4..8] != [0; 4] => return Outcome::Refused,
            _ => {}
        }
    }
    Outcome::Refused
}

/// RFC 7541 appendix A: `:status` comes first, from the static table or as a literal with its name.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come before it.
    let block = match block {
        [first, rest @ ..] if first >> 5 == 1 => rest,
        block => block,
    };
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x08, 3, digits @ ..] => {
            digits[..3].iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
        }
        // None that a test would expect.
        _ => 0,
    }
}
