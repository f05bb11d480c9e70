//! Room for the largest message, made once a thread: to zero 64 KiB for each of the small replies that questions
//! over TCP, and those asked because of others, mostly get costs more than to make them.

use std::cell::Cell;

/// Bytes of the largest message.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

thread_local! {
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends room for the largest message to what makes one, and takes it back: what is to stay must be copied. In it
/// stand bytes of earlier messages, so that only those that have just been written mean anything.
pub(crate) fn with_room<T>(make: impl FnOnce(&mut [u8]) -> T) -> T {
    // Who asks while it is lent, or first on a thread, has room of its own.
    let mut room = ROOM.take();
    room.resize(MESSAGE_BYTES_MAX, 0);
    let made = make(&mut room);
    ROOM.set(room);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_makes_room_once_and_lends_it_to_one_at_a_time() {
        let (first, inner) = with_room(|room| {
            let inner = with_room(|inner| (inner.as_ptr().addr(), inner.len()));
            (room.as_ptr().addr(), inner)
        });
        assert!(inner.0 != first && inner.1 == MESSAGE_BYTES_MAX, "lent already");
        for _ in 0..3 {
            let again = with_room(|room| (room.as_ptr().addr(), room.len()));
            assert_eq!(again, (first, MESSAGE_BYTES_MAX), "nothing is made anew");
        }
        let elsewhere = std::thread::spawn(|| with_room(|room| room.as_ptr().addr()));
        assert_ne!(elsewhere.join().unwrap(), first);
    }
}
