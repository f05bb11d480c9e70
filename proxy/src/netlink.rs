//! Netlink (RFC 3549) of families that no crate speaks.

use std::io;

use netlink_sys::{Socket, SocketAddr};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// What each message begins with.
pub(crate) const HEADER_LEN: usize = 16;
/// Longer than any message: the kernel sends dumps in pieces of at most 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;

/// A conversation with the kernel, in this thread's network namespace.
pub(crate) fn open(family: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(family)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// A message of this kind (`nlmsg_type`).
pub(crate) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + body.len()).unwrap_or_default();
    let numbers = [1u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &numbers, body].concat()
}

/// Hands one datagram's messages to `take`; whether that was the end.
///
/// # Errors
/// Those of the socket, and what the kernel answers.
pub(crate) fn receive(socket: &Socket, take: impl FnMut(&[u8])) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(BUFFER_LEN);
    socket.recv(&mut buffer, 0)?;
    read(&buffer, take)
}

fn read(mut rest: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some([a, b, c, d, e, f]) = rest.first_chunk::<6>() {
        let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let Some(message) = rest.get(..len).filter(|message| message.len() >= HEADER_LEN) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink message cut short"));
        };
        match u16::from_ne_bytes([*e, *f]) {
            // A dump that the kernel breaks off ends like any other, and says why.
            NLMSG_DONE => return end(code(message).unwrap_or_default()),
            NLMSG_ERROR => return end(code(message).unwrap_or(-libc::EIO)),
            _ => take(message),
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// What follows the header of a last message: 0, or an error, negative.
fn code(message: &[u8]) -> Option<i32> {
    let code = message.get(HEADER_LEN..HEADER_LEN + 4)?;
    Some(i32::from_ne_bytes(code.try_into().ok()?))
}

fn end(code: i32) -> io::Result<bool> {
    match code {
        0 => Ok(true),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: u16 = 20;

    fn of(kind: u16, code: i32) -> Vec<u8> {
        message(kind, 0, &code.to_ne_bytes())
    }

    /// A kernel without udp_diag says so behind a dump of nothing: no socket was ever found stale.
    #[test]
    fn a_dump_that_breaks_off_is_no_whole_one() {
        for (last, expected) in [
            (of(NLMSG_DONE, 0), Ok(true)),
            (message(NLMSG_DONE, 0, &[]), Ok(true)),
            (of(NLMSG_DONE, -libc::ENOENT), Err(Some(libc::ENOENT))),
            (of(NLMSG_ERROR, 0), Ok(true)),
            (of(NLMSG_ERROR, -libc::EPERM), Err(Some(libc::EPERM))),
            (message(NLMSG_ERROR, 0, &[]), Err(Some(libc::EIO))),
            (vec![], Ok(false)),
        ] {
            let mut taken = vec![];
            let all = [of(OTHER, 7), of(OTHER, 8), last].concat();
            let found = read(&all, |message| taken.push(code(message)));
            assert_eq!(found.map_err(|error| error.raw_os_error()), expected, "{all:?}");
            assert_eq!(taken, [Some(7), Some(8)], "{all:?}");
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = of(OTHER, 7);
        for len in 6..whole.len() {
            let found = read(&whole[..len], |_| ()).map_err(|error| error.kind());
            assert_eq!(found, Err(io::ErrorKind::InvalidData), "{len} bytes");
        }
        let endless = [&u32::MAX.to_ne_bytes()[..], &[0; 12]].concat();
        assert!(read(&endless, |_| ()).is_err());
    }
}
