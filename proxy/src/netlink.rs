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
pub(crate) fn receive(socket: &Socket, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(BUFFER_LEN);
    socket.recv(&mut buffer, 0)?;
    let mut rest: &[u8] = &buffer;
    while let Some([a, b, c, d, e, f]) = rest.first_chunk::<6>() {
        let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let Some(message) = rest.get(..len).filter(|message| message.len() >= HEADER_LEN) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "netlink message cut short"));
        };
        match u16::from_ne_bytes([*e, *f]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = message.get(HEADER_LEN..HEADER_LEN + 4);
                let code = code.and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
                return match code.unwrap_or(-libc::EIO) {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            _ => take(message),
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}
