//! Compressed fields (RFC 7541). What comes is read into the types of requests, what goes is written
//! from those of answers; nothing is text in between.

mod decode;
mod dynamic;
mod encode;
mod field;
pub(super) mod huffman;
mod integer;
mod table;

pub(super) use self::{
    decode::{Decoder, Sink},
    encode::Encoder,
    field::Field,
};

/// SETTINGS_HEADER_TABLE_SIZE as it is without being said; enough for both sides.
pub(super) const TABLE_BYTES: usize = 4_096;
/// What a field counts besides its text (RFC 7541 4.1).
const FIELD_BYTES: usize = 32;

/// The block cannot be read, and neither can any that follow (RFC 9113 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is no compressed block.
    Invalid,
    /// It says more than anybody needs.
    TooMuch,
}
