//! Sockets: their network namespace, and netlink ones watched by tokio.

use std::{io, mem, os::fd::AsRawFd as _};

use tokio::io::unix::AsyncFd;

/// `SO_NETNS_COOKIE` (Linux 5.14), in include/uapi/asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the calling thread's network namespace; never used again after it is gone.
pub(crate) fn network_namespace_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)))?;
    let mut cookie = 0u64;
    let mut len = libc::socklen_t::try_from(mem::size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `len` bytes to `cookie`; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Has tokio watch a netlink socket, which must be non-blocking.
pub(crate) fn watched(socket: netlink_sys::Socket) -> io::Result<AsyncFd<netlink_sys::Socket>> {
    // SAFETY: the socket owns its descriptor, always returns the same one, and closes it only when
    // it is dropped, which is after tokio has let go of it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}
