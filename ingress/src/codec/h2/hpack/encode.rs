//! Blocks of fields, written. What is the same in nearly all answers gets a number the first time;
//! the rest is copied as it is: it differs each time, and neither a table nor Huffman's code would
//! be worth our time.

use http::{HeaderName, HeaderValue, StatusCode};

use super::{FIELD_BYTES, TABLE_BYTES, dynamic::Dynamic, integer, table};

const STATUS: usize = 8;
/// Longer values are not kept: they would push out all others.
const KEPT_VALUE_BYTES_MAX: usize = 256;

/// One for all blocks of a connection.
#[derive(Debug)]
pub(in super::super) struct Encoder {
    dynamic: Dynamic<(HeaderName, HeaderValue)>,
    /// The client is to be told in the next block.
    resized: Option<usize>,
}

impl Encoder {
    pub(in super::super) fn new() -> Self {
        Self { dynamic: Dynamic::new(TABLE_BYTES), resized: None }
    }

    /// The client's SETTINGS_HEADER_TABLE_SIZE.
    pub(in super::super) fn resize(&mut self, bytes: usize) {
        let bytes = bytes.min(TABLE_BYTES);
        if bytes != self.dynamic.bytes_max() {
            // RFC 7541 4.2: the smallest in between counts, too.
            let least = self.resized.map_or(bytes, |least| least.min(bytes));
            self.resized = Some(least);
            self.dynamic.resize(bytes);
        }
    }

    /// Before the first field.
    pub(in super::super) fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(least) = self.resized.take() else { return };
        let now = self.dynamic.bytes_max();
        if least < now {
            integer::write(0x20, 5, least, out);
        }
        integer::write(0x20, 5, now, out);
    }

    pub(in super::super) fn status(&self, status: StatusCode, out: &mut Vec<u8>) {
        let number = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                integer::write(0, 4, STATUS, out);
                return string(status.as_str().as_bytes(), out);
            }
        };
        integer::write(0x80, 7, number, out);
    }

    pub(in super::super) fn field(
        &mut self,
        name: &HeaderName,
        value: &HeaderValue,
        out: &mut Vec<u8>,
    ) {
        let table::Known { number, repeats } = table::known(name.as_str());
        let is_kept = repeats && value.len() <= KEPT_VALUE_BYTES_MAX;
        if !is_kept || value.is_sensitive() {
            // 0x10: nobody on the way is to index it either (RFC 7541 7.1.3).
            let first = if value.is_sensitive() { 0x10 } else { 0 };
            return literal(first, 4, number, name, value, out);
        }
        let same = |(kept, old): &(HeaderName, HeaderValue)| kept == name && old == value;
        if let Some(place) = self.dynamic.position(same) {
            return integer::write(0x80, 7, table::FIELDS.len() + 1 + place, out);
        }
        literal(0x40, 6, number, name, value, out);
        let bytes = name.as_str().len() + value.len() + FIELD_BYTES;
        // A copy: the value may be a part of something larger.
        if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
            self.dynamic.push((name.clone(), own), bytes);
        }
    }
}

fn literal(
    first: u8,
    bits: u32,
    number: usize,
    name: &HeaderName,
    value: &HeaderValue,
    out: &mut Vec<u8>,
) {
    integer::write(first, bits, number, out);
    if number == 0 {
        string(name.as_str().as_bytes(), out);
    }
    string(value.as_bytes(), out);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer::write(0, 7, text.len(), out);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::h2::hpack::{Decoder, Field, Sink, Unread};

    struct Fields(Vec<(String, String)>);

    impl Sink for Fields {
        fn take(&mut self, field: &Field, _: usize) -> Result<(), Unread> {
            let Field::Regular(name, value) = field else { panic!("{field:?}") };
            let sensitive = if value.is_sensitive() { "secret " } else { "" };
            let value = format!("{sensitive}{}", value.to_str().unwrap());
            self.0.push((name.as_str().to_owned(), value));
            Ok(())
        }
    }

    fn block(encoder: &mut Encoder, fields: &[(&'static str, &'static str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(*name == "x-secret");
            encoder.field(&HeaderName::from_static(name), &value, &mut out);
        }
        out
    }

    #[test]
    fn what_is_written_is_read_and_what_repeats_is_short() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let fields = [
            ("server", "a"),
            ("content-type", "text/plain"),
            ("content-length", "128"),
            ("x-own", "b"),
            ("etag", "\"1\""),
            ("vary", ""),
            ("x-frame-options", "DENY"),
        ];
        let secret = [("x-secret", "c"), ("server", "a")];
        let mut lengths = Vec::new();
        for _ in 0..3 {
            for fields in [&fields[..], &secret] {
                let block = block(&mut encoder, fields);
                lengths.push(block.len());
                let mut read = Fields(Vec::new());
                decoder.decode(&block, &mut read).unwrap();
                let read: Vec<_> = read
                    .0
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.trim_start_matches("secret ")))
                    .collect();
                assert_eq!(read, fields);
            }
        }
        assert!(lengths[2] < lengths[0], "{lengths:?}");
        assert_eq!(lengths[2..4], lengths[4..], "{lengths:?}");
    }

    #[test]
    fn statuses_have_a_number_or_are_written_out() {
        let encoder = Encoder::new();
        for (status, expected) in
            [(200, &b"\x88"[..]), (500, b"\x8e"), (404, b"\x8d"), (502, b"\x08\x03502")]
        {
            let mut out = Vec::new();
            encoder.status(StatusCode::from_u16(status).unwrap(), &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_table_is_never_larger_than_the_client_lets_it_be() {
        let names = ["server", "via", "vary", "content-type", "x-frame-options"];
        let values = ["0", "1", "22", "333", "4444", "55555", "666666", "7777777"];
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (i, size) in [4096, 100, 0, 60, 4096, 1 << 20, 40].into_iter().enumerate() {
            encoder.resize(size);
            if i.is_multiple_of(2) {
                // Twice without a block in between.
                encoder.resize(64);
            }
            for value in values {
                let fields: Vec<_> = names.iter().map(|name| (*name, value)).collect();
                let mut read = Fields(Vec::new());
                decoder.decode(&block(&mut encoder, &fields), &mut read).unwrap();
                let read: Vec<_> =
                    read.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(read, fields, "{size}");
            }
        }
    }
}
