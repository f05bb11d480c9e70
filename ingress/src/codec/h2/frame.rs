//! Frames (RFC 9113 4, 6): their heads, and those that are written.

use std::ops::Range;

use super::Reason;

pub(super) const HEAD_BYTES: usize = 9;
/// SETTINGS_MAX_FRAME_SIZE as it is without being said, which is the least. Enough for both sides:
/// longer frames would let one stream keep the others waiting.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;
/// What a client begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Identifiers and windows have one bit less than their room.
pub(super) const MAX_31: u32 = (1 << 31) - 1;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 1 << 2;
pub(super) const PADDED: u8 = 1 << 3;
pub(super) const WITH_PRIORITY: u8 = 1 << 5;

const PRIORITY_BYTES: usize = 5;

/// What is in front of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// `None`: not all of it is there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let [a, b, c, kind, flags, s @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(s) & MAX_31;
        Some(Self { length: usize::try_from(length).ok()?, kind, flags, stream })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Writes it. No frame of ours is longer than its field can say.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let [_, a, b, c] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    /// Where in the payload its content is: without padding, without a priority.
    ///
    /// # Errors
    /// The padding is longer than the frame (RFC 9113 6.1).
    pub(super) fn content(&self, payload: &[u8]) -> Result<Range<usize>, Reason> {
        let mut start = 0;
        let mut end = payload.len();
        if self.has(PADDED) {
            let padding = payload.first().ok_or(Reason::FrameSize)?;
            start = 1;
            end = end.checked_sub(usize::from(*padding)).ok_or(Reason::Protocol)?;
        }
        if self.kind == HEADERS && self.has(WITH_PRIORITY) {
            start += PRIORITY_BYTES;
        }
        if start > end { Err(Reason::Protocol) } else { Ok(start..end) }
    }

    /// A stream that depends on itself (RFC 9113 5.3.1 leaves of RFC 7540's priorities only this).
    pub(super) fn depends_on_itself(&self, payload: &[u8]) -> bool {
        let at = match self.kind {
            PRIORITY => 0,
            HEADERS if self.has(WITH_PRIORITY) => usize::from(self.has(PADDED)),
            _ => return false,
        };
        let parent = payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
        parent.is_some_and(|parent| u32::from_be_bytes(*parent) & MAX_31 == self.stream)
    }
}

/// A payload of four bytes.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

fn head(kind: u8, flags: u8, stream: u32, length: usize, out: &mut Vec<u8>) {
    Head { length, kind, flags, stream }.write(out);
}

pub(super) fn write_reset(stream: u32, reason: Reason, out: &mut Vec<u8>) {
    head(RST_STREAM, 0, stream, 4, out);
    out.extend_from_slice(&reason.code().to_be_bytes());
}

pub(super) fn write_window(stream: u32, more: u32, out: &mut Vec<u8>) {
    head(WINDOW_UPDATE, 0, stream, 4, out);
    out.extend_from_slice(&more.to_be_bytes());
}

pub(super) fn write_ping(flags: u8, payload: [u8; 8], out: &mut Vec<u8>) {
    head(PING, flags, 0, payload.len(), out);
    out.extend_from_slice(&payload);
}

pub(super) fn write_goaway(last: u32, reason: Reason, out: &mut Vec<u8>) {
    head(GOAWAY, 0, 0, 8, out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.code().to_be_bytes());
}

pub(super) fn write_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    head(SETTINGS, 0, 0, settings.len() * 6, out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(super) fn write_settings_ack(out: &mut Vec<u8>) {
    head(SETTINGS, ACK, 0, 0, out);
}

/// Makes the block that begins at `start` of `out` a HEADERS frame, or several frames if it is too
/// long for one (RFC 9113 6.10). Room for the first one's head is before it.
pub(super) fn seal_block(stream: u32, flags: u8, start: usize, out: &mut Vec<u8>) {
    let length = out.len().saturating_sub(start + HEAD_BYTES);
    if length <= PAYLOAD_BYTES_MAX {
        let mut first = Vec::with_capacity(HEAD_BYTES);
        head(HEADERS, flags | END_HEADERS, stream, length, &mut first);
        if let Some(room) = out.get_mut(start..start + HEAD_BYTES) {
            room.copy_from_slice(&first);
        }
        return;
    }
    let block = out.split_off(start + HEAD_BYTES);
    out.truncate(start);
    let last = block.len().div_ceil(PAYLOAD_BYTES_MAX) - 1;
    for (i, part) in block.chunks(PAYLOAD_BYTES_MAX).enumerate() {
        let (kind, own) = if i == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
        let end = if i == last { END_HEADERS } else { 0 };
        head(kind, own | end, stream, part.len(), out);
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        for (length, kind, flags, stream) in
            [(0, DATA, 0, 0), (16_384, HEADERS, 0x25, 1), ((1 << 24) - 1, 255, 255, MAX_31)]
        {
            let head = Head { length, kind, flags, stream };
            let mut bytes = Vec::new();
            head.write(&mut bytes);
            assert_eq!(Head::parse(&bytes), Some(head));
            assert_eq!(Head::parse(&bytes[..8]), None);
            // The reserved bit is nobody's (RFC 9113 4.1).
            bytes[5] |= 0x80;
            assert_eq!(Head::parse(&bytes), Some(head));
        }
    }

    #[test]
    fn content_is_what_padding_and_priority_leave() {
        type Case = (u8, u8, &'static [u8], Result<Range<usize>, Reason>);
        let cases: [Case; 9] = [
            (DATA, 0, b"abc", Ok(0..3)),
            (DATA, PADDED, b"\x01ab\0", Ok(1..3)),
            (DATA, PADDED, b"\x03\0\0\0", Ok(1..1)),
            (DATA, PADDED, b"\x04\0\0\0", Err(Reason::Protocol)),
            (DATA, PADDED, b"", Err(Reason::FrameSize)),
            (DATA, WITH_PRIORITY, b"abc", Ok(0..3)),
            (HEADERS, WITH_PRIORITY, b"pppppabc", Ok(5..8)),
            (HEADERS, WITH_PRIORITY | PADDED, b"\x01pppppa\0", Ok(6..7)),
            (HEADERS, WITH_PRIORITY, b"pppp", Err(Reason::Protocol)),
        ];
        for (kind, flags, payload, expected) in cases {
            let head = Head { length: payload.len(), kind, flags, stream: 1 };
            assert_eq!(head.content(payload), expected, "{kind} {flags} {payload:?}");
        }
    }

    #[test]
    fn a_long_block_is_continued_and_is_the_same() {
        const MOST: usize = PAYLOAD_BYTES_MAX;
        for (length, frames) in [(0, 1), (MOST, 1), (MOST + 1, 2), (3 * MOST, 3), (3 * MOST + 1, 4)]
        {
            let block: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut out = b"before".to_vec();
            let start = out.len();
            out.extend([0; HEAD_BYTES]);
            out.extend(&block);
            seal_block(7, END_STREAM, start, &mut out);
            let (mut rest, mut seen) = (&out[start..], Vec::new());
            let mut joined = Vec::<u8>::new();
            while let Some(head) = Head::parse(rest) {
                assert_eq!(head.stream, 7);
                let end = HEAD_BYTES + head.length;
                joined.extend(&rest[HEAD_BYTES..end]);
                rest = &rest[end..];
                seen.push((head.kind, head.has(END_STREAM), head.has(END_HEADERS)));
            }
            assert!(joined == block, "{length}");
            assert_eq!(seen.len(), frames);
            for (i, frame) in seen.iter().enumerate() {
                let kind = if i == 0 { HEADERS } else { CONTINUATION };
                assert_eq!(*frame, (kind, i == 0, i + 1 == frames));
            }
        }
    }
}
