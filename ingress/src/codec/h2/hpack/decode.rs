//! Blocks of fields, read (RFC 7541 3.2, 6).

use std::mem;

use super::{
    TABLE_BYTES, Unread,
    dynamic::Dynamic,
    field::{Field, Name},
    huffman, integer,
    table::{self, Entry},
};

/// Room for longer text is not kept.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Who takes the fields of a block.
pub(in super::super) trait Sink {
    /// A field of so many bytes, as lists count them.
    ///
    /// # Errors
    /// There are too many to go on reading.
    fn take(&mut self, field: &Field, bytes: usize) -> Result<(), Unread>;
}

/// One for all blocks of a connection.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    dynamic: Dynamic<Entry>,
    /// Text that came in code: a name, a value.
    texts: [Vec<u8>; 2],
}

impl Decoder {
    pub(in super::super) fn new() -> Self {
        Self { dynamic: Dynamic::new(TABLE_BYTES), texts: Default::default() }
    }

    /// Reads a whole block. What is no field for its bytes is passed on as such: the table has it all
    /// the same, and both sides must agree on it.
    ///
    /// # Errors
    /// Nothing on this connection can be read any more.
    pub(in super::super) fn decode(
        &mut self,
        block: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Unread> {
        let mut rest = block;
        let mut may_resize = true;
        while let Some(first) = rest.first().copied() {
            match first {
                0x80.. => {
                    let number = integer::take(&mut rest, 7)?;
                    let entry = entry(&self.dynamic, number)?;
                    sink.take(&entry.field, entry.size())?;
                }
                0x40.. => {
                    let entry = self.literal(&mut rest, 6, false)?;
                    sink.take(&entry.field, entry.size())?;
                    let bytes = entry.size();
                    self.dynamic.push(entry, bytes);
                }
                0x20.. => {
                    let bytes = integer::take(&mut rest, 5)?;
                    // RFC 7541 4.2: before all fields, and not above what we said.
                    if !may_resize || bytes > TABLE_BYTES {
                        return Err(Unread::Invalid);
                    }
                    self.dynamic.resize(bytes);
                    continue;
                }
                _ => {
                    let entry = self.literal(&mut rest, 4, first & 0x10 != 0)?;
                    sink.take(&entry.field, entry.size())?;
                }
            }
            may_resize = false;
        }
        for text in &mut self.texts {
            if text.capacity() > KEPT_BYTES_MAX {
                *text = Vec::new();
            }
        }
        Ok(())
    }

    fn literal(&mut self, rest: &mut &[u8], bits: u32, sensitive: bool) -> Result<Entry, Unread> {
        let [name_text, value_text] = &mut self.texts;
        let (name, name_bytes) = match integer::take(rest, bits)? {
            0 => {
                let name = string(rest, name_text)?;
                (Name::parse(name), name.len())
            }
            number => {
                let entry = entry(&self.dynamic, number)?;
                (entry.field.name(), entry.name_bytes)
            }
        };
        let value = string(rest, value_text)?;
        Ok(Entry::new(name, name_bytes, value, sensitive))
    }
}

fn entry(dynamic: &Dynamic<Entry>, number: usize) -> Result<&Entry, Unread> {
    let fixed = table::entries();
    let place = number.checked_sub(1).ok_or(Unread::Invalid)?;
    match place.checked_sub(fixed.len()) {
        None => fixed.get(place),
        Some(place) => dynamic.get(place),
    }
    .ok_or(Unread::Invalid)
}

/// Text, as it is there or decoded into `room`.
fn string<'a, 'b: 'a>(rest: &mut &'b [u8], room: &'a mut Vec<u8>) -> Result<&'a [u8], Unread> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::take(rest, 7)?;
    let (text, behind) = mem::take(rest).split_at_checked(length).ok_or(Unread::Invalid)?;
    *rest = behind;
    if !is_coded {
        return Ok(text);
    }
    room.clear();
    huffman::decode(text, room)?;
    Ok(room)
}

#[cfg(test)]
mod tests;
