//! The body of an answer (RFC 9112 6.3, 7.1).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;
use memchr::{memchr, memchr_iter, memmem};

use super::{FIELDS_MAX, Framing, LENGTH_MAX, Malformed, may_trail};

/// A chunk's size and what is said of it.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// More than a length of 64 bits has.
const CHUNK_DIGITS_MAX: usize = 16;
/// Of all chunks of a body: extensions are read for nobody.
const CHUNK_EXTENSION_BYTES_MAX: usize = 16 << 10;
const TRAILER_BYTES_MAX: usize = 16 << 10;

/// How far a body is.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    extension_bytes: usize,
    /// Read, and not passed on yet.
    trailers: Option<HeaderMap>,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes.
    Length(u64),
    /// A chunk's first line.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line end behind them.
    ChunkEnd,
    /// What follows the last chunk.
    Trailers,
    /// Whatever comes.
    UntilClose,
    /// Nothing.
    Over,
}

/// What can be passed on.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing before more is read.
    More,
    /// Nothing any more.
    End,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Framing::Empty)
    }
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Tunnel | Framing::Length(0) => State::Over,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extension_bytes: 0, trailers: None }
    }

    /// All of it was passed on.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && self.trailers.is_none()
    }

    /// Bytes to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Over => Some(0),
            _ => None,
        }
    }

    /// So many bytes of a known length were passed on by somebody else.
    pub(crate) fn pass_over(&mut self, bytes: u64) {
        if let State::Length(left) = self.state {
            self.state = match left.saturating_sub(bytes) {
                0 => State::Over,
                left => State::Length(left),
            };
        }
    }

    /// Takes the next piece off `input`.
    ///
    /// # Errors
    /// What follows cannot be told from the next answer.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Piece, Malformed> {
        self.advance(input)?;
        let left = match self.state {
            State::Length(left) | State::Chunk(left) => left,
            State::UntilClose => u64::MAX,
            State::Over => return Ok(self.trailers.take().map_or(Piece::End, Piece::Trailers)),
            State::ChunkSize | State::ChunkEnd | State::Trailers => return Ok(Piece::More),
        };
        if input.is_empty() {
            return Ok(Piece::More);
        }
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let data = input.split_to(taken).freeze();
        let left = left - taken as u64;
        self.state = match self.state {
            State::Length(_) if left == 0 => State::Over,
            State::Length(_) => State::Length(left),
            State::Chunk(_) if left == 0 => State::ChunkEnd,
            State::Chunk(_) => State::Chunk(left),
            other => other,
        };
        // If the end is there as well, who passes on the data knows that it is the last. What is
        // wrong is left where it is, and said when it is its turn.
        let _ = self.advance(input);
        Ok(Piece::Data(data))
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// The body had not.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::UntilClose | State::Over => {
                self.state = State::Over;
                Ok(())
            }
            _ => Err(Malformed::CutOff),
        }
    }

    /// Up to the next data, over what is between chunks.
    fn advance(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        loop {
            self.state = match self.state {
                State::ChunkEnd => match (input.first(), input.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        input.advance(2);
                        State::ChunkSize
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(()),
                    _ => return Err(Malformed::ChunkEnd),
                },
                State::ChunkSize => {
                    let Some(line) = ChunkLine::parse(input)? else { return Ok(()) };
                    self.extension_bytes += line.extension_bytes;
                    if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
                        return Err(Malformed::ChunkSize);
                    }
                    input.advance(line.bytes);
                    match line.size {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    }
                }
                State::Trailers => {
                    let Some((trailers, bytes)) = trailers(input)? else { return Ok(()) };
                    input.advance(bytes);
                    self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                    State::Over
                }
                State::Length(_) | State::Chunk(_) | State::UntilClose | State::Over => {
                    return Ok(());
                }
            };
        }
    }
}

/// A chunk's first line.
struct ChunkLine {
    size: u64,
    extension_bytes: usize,
    /// All of it.
    bytes: usize,
}

impl ChunkLine {
    /// `None` while it is not whole.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let window = bytes.get(..CHUNK_LINE_BYTES_MAX).unwrap_or(bytes);
        let Some(end) = memchr(b'\n', window) else {
            let may_end = bytes.len() < CHUNK_LINE_BYTES_MAX;
            return if may_end { Ok(None) } else { Err(Malformed::ChunkSize) };
        };
        let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
        Self::of(line.unwrap_or_default(), end + 1).map(Some).ok_or(Malformed::ChunkSize)
    }

    fn of(line: &[u8], bytes: usize) -> Option<Self> {
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return None;
        }
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at_checked(digits)?;
        let digits = str::from_utf8(digits).ok().filter(|text| text.len() <= CHUNK_DIGITS_MAX)?;
        let size = u64::from_str_radix(digits, 16).ok().filter(|size| *size <= LENGTH_MAX)?;
        let is_extension = matches!(extension.trim_ascii_start(), [] | [b';', ..]);
        is_extension.then_some(Self { size, extension_bytes: extension.len(), bytes })
    }
}

/// Fields and all bytes up to the end of the message; `None` while they are not there.
fn trailers(bytes: &[u8]) -> Result<Option<(HeaderMap, usize)>, Malformed> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some((HeaderMap::new(), 2)));
    }
    let window = bytes.get(..TRAILER_BYTES_MAX).unwrap_or(bytes);
    let end = memmem::find(window, b"\r\n\r\n").map(|at| at + 4);
    let block = window.get(..end.unwrap_or(window.len())).unwrap_or_default();
    let before = |at: usize| at.checked_sub(1).and_then(|at| block.get(at));
    if memchr_iter(b'\n', block).any(|at| before(at) != Some(&b'\r')) {
        return Err(Malformed::Trailers);
    }
    let Some(end) = end else {
        let may_end = bytes.len() < TRAILER_BYTES_MAX;
        return if may_end { Ok(None) } else { Err(Malformed::Trailers) };
    };
    let fields = fields(block).ok_or(Malformed::Trailers)?;
    Ok(Some((fields, end)))
}

fn fields(block: &[u8]) -> Option<HeaderMap> {
    let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let Ok(Status::Complete((end, fields))) = httparse::parse_headers(block, &mut room) else {
        return None;
    };
    if end != block.len() {
        return None;
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(field.value).ok()?;
        if may_trail(&name) {
            trailers.append(name, value);
        }
    }
    Some(trailers)
}

#[cfg(test)]
mod tests;
