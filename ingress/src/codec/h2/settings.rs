//! What a client says of itself (RFC 9113 6.5.2).

use super::{
    Reason,
    frame::{MAX_31, PAYLOAD_BYTES_MAX},
};

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// Of the settings that matter to a server, those that were said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The least, and the last: one frame may say it twice (RFC 7541 4.2).
    pub(super) table_bytes: Option<[u32; 2]>,
    pub(super) window: Option<u32>,
}

/// Reads a frame's payload.
///
/// # Errors
/// A value that cannot be, or a part of a setting.
pub(super) fn parse(payload: &[u8]) -> Result<Said, Reason> {
    let (settings, rest) = payload.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(Reason::FrameSize);
    }
    let least = u32::try_from(PAYLOAD_BYTES_MAX).unwrap_or(MAX_31);
    let mut said = Said::default();
    for [a, b, value @ ..] in settings {
        let value = u32::from_be_bytes(*value);
        match u16::from_be_bytes([*a, *b]) {
            HEADER_TABLE_SIZE => {
                let least = said.table_bytes.map_or(value, |[least, _]| least.min(value));
                said.table_bytes = Some([least, value]);
            }
            ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Reason::Protocol),
            INITIAL_WINDOW_SIZE if value > MAX_31 => return Err(Reason::FlowControl),
            INITIAL_WINDOW_SIZE => said.window = Some(value),
            // All may be as long as ours are.
            MAX_FRAME_SIZE if !(least..1 << 24).contains(&value) => return Err(Reason::Protocol),
            _ => {}
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_what_may_be_said() {
        let none = Said::default();
        for (name, value, expected) in [
            (HEADER_TABLE_SIZE, u32::MAX, Ok(Said { table_bytes: Some([u32::MAX; 2]), ..none })),
            (ENABLE_PUSH, 1, Ok(none)),
            (ENABLE_PUSH, 2, Err(Reason::Protocol)),
            (MAX_CONCURRENT_STREAMS, 0, Ok(none)),
            (INITIAL_WINDOW_SIZE, 0, Ok(Said { window: Some(0), ..none })),
            (INITIAL_WINDOW_SIZE, MAX_31, Ok(Said { window: Some(MAX_31), ..none })),
            (INITIAL_WINDOW_SIZE, MAX_31 + 1, Err(Reason::FlowControl)),
            (MAX_FRAME_SIZE, 16_383, Err(Reason::Protocol)),
            (MAX_FRAME_SIZE, 16_384, Ok(none)),
            (MAX_FRAME_SIZE, 16_777_216, Err(Reason::Protocol)),
            (ENABLE_CONNECT_PROTOCOL, 2, Err(Reason::Protocol)),
            (0xa0a, u32::MAX, Ok(none)),
        ] {
            let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
            assert_eq!(parse(&payload), expected, "{name} {value}");
            assert_eq!(parse(&payload[..5]), Err(Reason::FrameSize));
        }
        assert_eq!(parse(&[]), Ok(none));
    }

    #[test]
    fn the_last_of_the_same_setting_counts_and_of_tables_the_least_too() {
        let payload = [(1, 100), (4, 7), (1, 0), (1, 4_096), (4, 9)]
            .map(|(name, value): (u16, u32)| {
                [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
            })
            .concat();
        let said = parse(&payload).unwrap();
        assert_eq!((said.table_bytes, said.window), (Some([0, 4_096]), Some(9)));
    }
}
