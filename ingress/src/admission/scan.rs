//! Follows the requests of an HTTP/1 connection through its bytes.
//!
//! hyper tells neither of a length it dropped in favour of a coding nor of a fragment it cut off.
//! Both are refused here, because the next parser may see it the other way (RFC 9112 6.1, 11.2).
//! Only what hyper accepts matters: where it gives up, the connection ends with its 400.

use memchr::memchr;

use crate::counters::Refused;

/// Enough for each field that is looked at; a longer one is refused.
const LINE_BYTES_KEPT: usize = 64;
/// `u64` in hexadecimal.
const SIZE_DIGITS_MAX: usize = 16;
const LINE_END_BYTES: u64 = 2;

/// What it has seen so far. Pure: bytes in, a finding out.
#[derive(Debug)]
pub struct Scanner {
    stage: Stage,
    head: Head,
    line: Line,
    /// Heads seen completely.
    heads: u64,
    finding: Option<Finding>,
}

/// The first request that must not be served. What follows it is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How many came before it on the connection.
    pub request: u64,
    /// Why it is refused.
    pub reason: Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Empty lines may come before it.
    RequestLine,
    Fields,
    /// So many bytes more.
    Body(u64),
    ChunkSize,
    /// So many bytes more, the line end after them included.
    Chunk(u64),
    Trailers,
    /// Nothing more is looked at.
    Done,
}

/// What the fields of a head say about its body.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
}

/// The beginning of a line whose end has not come yet.
#[derive(Debug)]
struct Line {
    kept: [u8; LINE_BYTES_KEPT],
    kept_len: usize,
    /// Of the whole line.
    len: usize,
    /// Its last two bytes.
    end: [u8; 2],
}

/// A line as far as it matters.
#[derive(Clone, Copy, Debug)]
struct Text<'a> {
    /// Without its end.
    text: &'a [u8],
    /// Only the beginning of it.
    cut: bool,
    crlf: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        let (head, line) = (Head::default(), Line::default());
        Self { stage: Stage::RequestLine, head, line, heads: 0, finding: None }
    }
}

impl Scanner {
    /// Takes the next bytes of the connection; returns what it found, as long as it lives.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Option<Finding> {
        while !bytes.is_empty() {
            bytes = match self.stage {
                Stage::Done => break,
                Stage::Body(left) => self.skip(bytes, left, Stage::Body, Stage::RequestLine),
                Stage::Chunk(left) => self.skip(bytes, left, Stage::Chunk, Stage::ChunkSize),
                _ => self.take_line(bytes),
            };
        }
        self.finding
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        more: fn(u64) -> Stage,
        next: Stage,
    ) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left.saturating_sub(here as u64);
        self.stage = if left == 0 { next } else { more(left) };
        bytes.get(here..).unwrap_or_default()
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr(b'\n', bytes);
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        // The only thing looked for in a request line, wherever in it.
        if self.stage == Stage::RequestLine && memchr(b'#', part).is_some() {
            self.refuse(Refused::Path);
            return rest;
        }
        match (end, self.line.len) {
            (None, _) => self.line.keep(part),
            (Some(_), 0) => self.end_line(Text::whole(part)),
            (Some(_), _) => {
                self.line.keep(part);
                let line = std::mem::take(&mut self.line);
                self.end_line(line.text());
            }
        }
        rest
    }

    fn end_line(&mut self, line: Text<'_>) {
        let is_empty = line.text.is_empty();
        match self.stage {
            Stage::RequestLine if is_empty => {}
            Stage::RequestLine => {
                self.head = Head::default();
                self.stage = Stage::Fields;
            }
            Stage::Fields if is_empty => self.end_head(),
            Stage::Fields => self.field(line),
            // To hyper a bare LF does not end these, to others it does.
            Stage::ChunkSize | Stage::Trailers if !line.crlf => self.refuse(Refused::Malformed),
            Stage::ChunkSize => self.chunk_size(line.text),
            Stage::Trailers if is_empty => self.stage = Stage::RequestLine,
            Stage::Trailers | Stage::Body(_) | Stage::Chunk(_) | Stage::Done => {}
        }
    }

    fn field(&mut self, line: Text<'_>) {
        if !matches!(line.text.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return;
        }
        let Some(colon) = memchr(b':', line.text) else { return };
        let (name, value) = line.text.split_at(colon);
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if is(b"content-length") {
            match length(value).filter(|_| self.head.length.is_none() && !line.cut) {
                Some(length) => self.head.length = Some(length),
                None => return self.refuse(Refused::Length),
            }
        } else if is(b"transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case(b"chunked") && !line.cut;
            if self.head.chunked || !is_chunked {
                return self.refuse(Refused::TransferCoding);
            }
            self.head.chunked = true;
        }
        if self.head.chunked && self.head.length.is_some() {
            self.refuse(Refused::LengthAndCoding);
        }
    }

    fn end_head(&mut self) {
        self.heads += 1;
        self.stage = match self.head {
            Head { chunked: true, .. } => Stage::ChunkSize,
            Head { length: Some(length), .. } if length > 0 => Stage::Body(length),
            Head { .. } => Stage::RequestLine,
        };
    }

    fn chunk_size(&mut self, line: &[u8]) {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let digits = line.get(..digits).filter(|digits| digits.len() <= SIZE_DIGITS_MAX);
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            Some(0) => self.stage = Stage::Trailers,
            Some(size) => self.stage = Stage::Chunk(size.saturating_add(LINE_END_BYTES)),
            None => self.refuse(Refused::Malformed),
        }
    }

    /// Within a body it is the next request that is refused: this one is being served.
    fn refuse(&mut self, reason: Refused) {
        if self.finding.is_none() {
            self.finding = Some(Finding { request: self.heads, reason });
        }
        self.stage = Stage::Done;
    }
}

/// RFC 9110 8.6: digits alone, no list.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl Default for Line {
    fn default() -> Self {
        Self { kept: [0; LINE_BYTES_KEPT], kept_len: 0, len: 0, end: [0; 2] }
    }
}

impl Line {
    fn keep(&mut self, part: &[u8]) {
        let room = self.kept.get_mut(self.kept_len..).unwrap_or_default();
        let n = room.len().min(part.len());
        if let (Some(to), Some(from)) = (room.get_mut(..n), part.get(..n)) {
            to.copy_from_slice(from);
        }
        self.kept_len += n;
        self.len += part.len();
        match part {
            [.., a, b] => self.end = [*a, *b],
            [b] => self.end = [self.end[1], *b],
            [] => {}
        }
    }

    fn text(&self) -> Text<'_> {
        let kept = Text::whole(self.kept.get(..self.kept_len).unwrap_or_default());
        Text { cut: self.len > self.kept_len, crlf: self.end == *b"\r\n", ..kept }
    }
}

impl<'a> Text<'a> {
    fn whole(line: &'a [u8]) -> Self {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        // As if it had come in pieces: the verdict must not depend on them.
        let cut = line.len() > LINE_BYTES_KEPT;
        match text.strip_suffix(b"\r") {
            Some(text) => Self { text, cut, crlf: true },
            None => Self { text, cut, crlf: false },
        }
    }
}

#[cfg(test)]
mod tests;
