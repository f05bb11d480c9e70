//! What an endpoint says of itself, read along: hyper keeps it to itself.

use super::{
    frame::{ACK, HEAD_BYTES, Head, SETTINGS},
    settings::MAX_CONCURRENT_STREAMS,
};

const SETTING_BYTES: usize = 6;

/// Reads frames in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct Overheard {
    /// Of a frame's head, or of a setting: what came of it.
    part: Vec<u8>,
    /// Bytes of a payload that are to come.
    left: usize,
    is_settings: bool,
}

/// What came with some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// A whole frame of settings, which is what an endpoint begins with (RFC 9113 3.4).
    pub(crate) has_settings: bool,
    /// How many streams it takes at a time from now on (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub(crate) streams_max: Option<u32>,
}

impl Overheard {
    /// What these bytes, behind all before, say. Whoever speaks no HTTP/2 says nothing.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        while !bytes.is_empty() {
            let wanted = match self.left {
                0 => HEAD_BYTES - self.part.len(),
                left => left,
            };
            let (now, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            bytes = rest;
            match self.left {
                0 => self.head(now, &mut heard),
                _ => self.payload(now, &mut heard),
            }
        }
        heard
    }

    fn head(&mut self, bytes: &[u8], heard: &mut Heard) {
        self.part.extend_from_slice(bytes);
        let Some(head) = Head::parse(&self.part) else { return };
        self.part.clear();
        self.left = head.length;
        self.is_settings = head.kind == SETTINGS && !head.has(ACK);
        heard.has_settings |= self.is_settings && self.left == 0;
    }

    fn payload(&mut self, bytes: &[u8], heard: &mut Heard) {
        self.left -= bytes.len();
        if !self.is_settings {
            return;
        }
        for &byte in bytes {
            self.part.push(byte);
            let Some([a, b, value @ ..]) = self.part.first_chunk::<SETTING_BYTES>() else {
                continue;
            };
            if u16::from_be_bytes([*a, *b]) == MAX_CONCURRENT_STREAMS {
                heard.streams_max = Some(u32::from_be_bytes(*value));
            }
            self.part.clear();
        }
        if self.left == 0 {
            self.part.clear();
            heard.has_settings = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            frame::{write_ping, write_settings},
            settings::INITIAL_WINDOW_SIZE,
        },
        *,
    };

    fn settings(all: &[(u16, u32)]) -> Vec<u8> {
        let mut frame = Vec::new();
        write_settings(all, &mut frame);
        frame
    }

    #[test]
    fn what_an_endpoint_takes_at_a_time_is_heard_in_whatever_pieces_it_comes() {
        let mut ping = Vec::new();
        write_ping(0, *b"\0\0\x04\x04\0\0\0\x03", &mut ping);
        let ack = vec![0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
        let (ten, none) = ((MAX_CONCURRENT_STREAMS, 10), (MAX_CONCURRENT_STREAMS, 0));
        let window = (INITIAL_WINDOW_SIZE, 65_536);
        for (frames, has_settings, streams_max) in [
            (vec![settings(&[ten])], true, Some(10)),
            (vec![settings(&[window, ten, window])], true, Some(10)),
            (vec![settings(&[window])], true, None),
            (vec![settings(&[])], true, None),
            (vec![settings(&[ten]), ping.clone(), settings(&[none])], true, Some(0)),
            (vec![ping.clone(), ack.clone()], false, None),
            (vec![ack, ping, settings(&[ten])], true, Some(10)),
            // A part of a setting is none (RFC 9113 6.5).
            (
                vec![vec![0, 0, 3, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0], settings(&[ten])],
                true,
                Some(10),
            ),
            (vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], false, None),
            (vec![settings(&[ten])[..14].to_vec()], false, None),
        ] {
            let bytes = frames.concat();
            for size in [1, 2, 5, 7, bytes.len()] {
                let mut overheard = Overheard::default();
                let mut all = Heard::default();
                for piece in bytes.chunks(size) {
                    let heard = overheard.read(piece);
                    all.has_settings |= heard.has_settings;
                    all.streams_max = heard.streams_max.or(all.streams_max);
                }
                let expected = Heard { has_settings, streams_max };
                assert_eq!(all, expected, "{frames:?} by {size}");
            }
        }
    }
}
