//! A client by the byte.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::codec::h2::{
    frame::{self, HEAD_BYTES, Head, PREFACE},
    hpack::{Decoder, Field, Sink, Unread},
};

pub(super) struct Client {
    io: DuplexStream,
    decoder: Decoder,
}

pub(super) type Fields = Vec<(String, String)>;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Head { length: payload.len(), kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

pub(super) fn setting(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(frame::SETTINGS, 0, 0, &payload)
}

/// Opens the window of a stream or, being of stream 0, of the connection.
pub(super) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// RFC 7541 6.2.2: literal fields, no table.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub(super) fn asked<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
}

/// A whole request.
pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    let flags = frame::END_HEADERS | frame::END_STREAM;
    frame(frame::HEADERS, flags, stream, &block(&asked("GET", path)))
}

/// One whose body follows.
pub(super) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(frame::HEADERS, frame::END_HEADERS, stream, &block(&asked("POST", path)))
}

struct Seen(Fields);

impl Sink for Seen {
    fn take(&mut self, field: &Field, _: usize) -> Result<(), Unread> {
        if let Field::Regular(name, value) = field {
            self.0.push((name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
        }
        Ok(())
    }
}

impl Client {
    /// Says the preface, and that it has no settings.
    pub(super) async fn new(mut io: DuplexStream) -> Self {
        io.write_all(PREFACE).await.unwrap();
        io.write_all(&frame(frame::SETTINGS, 0, 0, &[])).await.unwrap();
        Self::of(io)
    }

    /// One that has said something of its own.
    pub(super) fn of(io: DuplexStream) -> Self {
        Self { io, decoder: Decoder::new() }
    }

    /// All in one write.
    pub(super) async fn send(&mut self, frames: &[Vec<u8>]) {
        self.io.write_all(&frames.concat()).await.unwrap();
    }

    /// False: it is not taken.
    pub(super) async fn send_some(&mut self, frames: &[Vec<u8>]) -> bool {
        let bytes = frames.concat();
        let mut written = std::pin::pin!(self.io.write_all(&bytes));
        for _ in 0..100 {
            let polled = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(written.as_mut().poll(cx).is_ready())
            });
            if polled.await {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// `None` at the end.
    pub(super) async fn next(&mut self) -> Option<(Head, Vec<u8>)> {
        let mut head = [0; HEAD_BYTES];
        self.io.read_exact(&mut head).await.ok()?;
        let head = Head::parse(&head).unwrap();
        let mut payload = vec![0; head.length];
        self.io.read_exact(&mut payload).await.unwrap();
        Some((head, payload))
    }

    /// The next frame of a kind.
    pub(super) async fn until(&mut self, kind: u8) -> (Head, Vec<u8>) {
        loop {
            let (head, payload) = self.next().await.expect("the connection ended");
            if head.kind == kind {
                return (head, payload);
            }
        }
    }

    /// The fields of the next answer.
    pub(super) async fn answer(&mut self) -> (Head, Fields) {
        let (head, payload) = self.until(frame::HEADERS).await;
        // Only these of an answer's fields are none of a request's.
        let (status, rest) = match payload[..] {
            [0x88, ref rest @ ..] => ("200".to_owned(), rest),
            [0x89, ref rest @ ..] => ("204".to_owned(), rest),
            [0x8b, ref rest @ ..] => ("304".to_owned(), rest),
            [0x08, 3, a, b, c, ref rest @ ..] => (String::from_utf8(vec![a, b, c]).unwrap(), rest),
            _ => panic!("{payload:x?}"),
        };
        let mut seen = Seen(vec![(":status".to_owned(), status)]);
        self.decoder.decode(rest, &mut seen).unwrap();
        (head, seen.0)
    }

    /// Kinds of all frames to the end.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some((head, _)) = self.next().await {
            kinds.push(head.kind);
        }
        kinds
    }
}
