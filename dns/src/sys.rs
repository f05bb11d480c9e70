//! Many datagrams per system call: recvmmsg(2) and sendmmsg(2), with the address a datagram was
//! sent to, so that the reply leaves from it. The only unsafe code of this crate; every buffer is
//! owned here and every length is checked here.

mod route;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

pub use route::Route;
use route::{ADDRESS_BYTES, CONTROL_BYTES, Control, Peer};

/// Datagrams per call.
pub const BATCH: usize = 32;
/// Room for one received datagram, in bytes; a query beyond this is cut and marked.
pub const RECEIVE_BYTES_MAX: usize = 2048;
/// Room for one datagram to send, in bytes.
pub const SEND_BYTES_MAX: usize = 1232;

/// [`BATCH`] as the kernel counts.
const BATCH_C: libc::c_uint = 32;
const _: () = assert!(BATCH_C as usize == BATCH, "one constant in two types");

/// Datagrams received by one call.
#[derive(Debug)]
pub struct Inbox {
    data: Box<[[u8; RECEIVE_BYTES_MAX]]>,
    peers: Box<[Peer]>,
    controls: Box<[Control]>,
    /// Length, control length and flags of each.
    arrived: Vec<Arrival>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    bytes: usize,
    control_bytes: usize,
    cut: bool,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'i> {
    /// Its bytes.
    pub bytes: &'i [u8],
    /// It was longer than [`RECEIVE_BYTES_MAX`].
    pub cut: bool,
    /// When it arrived, by the time of day, if [`want_arrival_times`] was asked for.
    pub arrived: Option<Duration>,
    /// The way back; `None` for the empty datagram that wakes a receiver of a socket shut down.
    pub route: Option<Route>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        Self {
            data: vec![[0; RECEIVE_BYTES_MAX]; BATCH].into(),
            peers: vec![Peer::EMPTY; BATCH].into(),
            controls: vec![Control::EMPTY; BATCH].into(),
            arrived: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for one datagram (as long as the socket's receive timeout) and takes up to [`BATCH`]
    /// that are there. Returns how many; none when the time was up or a signal came.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.arrived.clear();
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut messages = [empty_message(); BATCH];
        for (index, message) in messages.iter_mut().enumerate() {
            let (Some(data), Some(peer), Some(control), Some(vector)) = (
                self.data.get_mut(index),
                self.peers.get_mut(index),
                self.controls.get_mut(index),
                vectors.get_mut(index),
            ) else {
                continue;
            };
            *vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
            let header = &mut message.msg_hdr;
            header.msg_name = peer.bytes.as_mut_ptr().cast();
            header.msg_namelen = address_bytes();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
        }
        // SAFETY: each of the BATCH headers points at live buffers of this call with their true
        // lengths: `data`, `peers` and `controls` belong to `self`, which is borrowed mutably,
        // `vectors` to this frame. The kernel writes only there.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH_C,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            return none_if_interrupted(io::Error::last_os_error());
        };
        for (message, peer) in messages.iter().take(received).zip(self.peers.iter_mut()) {
            peer.length = message.msg_hdr.msg_namelen;
            self.arrived.push(Arrival {
                bytes: usize::try_from(message.msg_len).unwrap_or(0).min(RECEIVE_BYTES_MAX),
                control_bytes: message.msg_hdr.msg_controllen.min(CONTROL_BYTES),
                cut: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(received)
    }

    /// The datagrams of the last [`Inbox::receive`].
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let parts = self.arrived.iter().zip(&self.data).zip(&self.peers).zip(&self.controls);
        parts.map(|(((arrival, data), peer), control)| {
            let told = control.read(arrival.control_bytes);
            Datagram {
                bytes: data.get(..arrival.bytes).unwrap_or_default(),
                cut: arrival.cut,
                arrived: told.arrived,
                route: (peer.length > 0).then_some(Route { peer: *peer, local: told.local }),
            }
        })
    }

    /// How many datagrams the socket has lost in all, as of the newest of the last
    /// [`Inbox::receive`], for want of room (counted modulo 2^32); `None`: none, or it is not told
    /// ([`want_losses`]).
    pub fn lost(&self) -> Option<u32> {
        let newest = self.arrived.last()?;
        let control = self.controls.get(self.arrived.len() - 1)?;
        control.read(newest.control_bytes).lost
    }
}

/// Datagrams to be sent by one call.
#[derive(Debug)]
pub struct Outbox {
    data: Box<[[u8; SEND_BYTES_MAX]]>,
    ready: Vec<(usize, Route)>,
}

/// What became of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Datagrams it refused: no route, full buffer, forbidden.
    pub failed: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self { data: vec![[0; SEND_BYTES_MAX]; BATCH].into(), ready: Vec::with_capacity(BATCH) }
    }

    /// Room for the next datagram; empty when the outbox is full.
    pub fn space(&mut self) -> &mut [u8] {
        self.data.get_mut(self.ready.len()).map_or(&mut [], |data| &mut data[..])
    }

    /// Takes the first `bytes` of [`Outbox::space`] as a datagram for `route`.
    pub fn push(&mut self, bytes: usize, route: Route) {
        if self.ready.len() < BATCH {
            self.ready.push((bytes.min(SEND_BYTES_MAX), route));
        }
    }

    /// Sends what was pushed, without waiting, and empties the outbox.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Sent {
        let sent = {
            let mut datagrams: [Outgoing<'_>; BATCH] = [const { Outgoing::EMPTY }; BATCH];
            for ((slot, data), (bytes, route)) in
                datagrams.iter_mut().zip(&self.data).zip(&self.ready)
            {
                *slot = Outgoing { bytes: data.get(..*bytes).unwrap_or_default(), route: *route };
            }
            send(socket, datagrams.get(..self.ready.len()).unwrap_or_default())
        };
        self.ready.clear();
        sent
    }
}

/// A datagram and where it goes.
#[derive(Clone, Copy, Debug)]
struct Outgoing<'o> {
    bytes: &'o [u8],
    route: Route,
}

impl Outgoing<'_> {
    const EMPTY: Self = Self { bytes: &[], route: Route::NOWHERE };
}

/// Sends one datagram without waiting.
pub fn send_one(socket: BorrowedFd<'_>, bytes: &[u8], route: &Route) -> Sent {
    send(socket, &[Outgoing { bytes, route: *route }])
}

fn send(socket: BorrowedFd<'_>, datagrams: &[Outgoing<'_>]) -> Sent {
    let mut vectors = [EMPTY_VECTOR; BATCH];
    let mut controls = [Control::EMPTY; BATCH];
    let mut messages = [empty_message(); BATCH];
    let count = datagrams.len().min(BATCH);
    let parts = messages.iter_mut().zip(&mut vectors).zip(&mut controls).zip(datagrams);
    for (((message, vector), control), datagram) in parts {
        // The kernel does not write through these two; the C types just do not say const.
        *vector = libc::iovec {
            iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
            iov_len: datagram.bytes.len(),
        };
        let header = &mut message.msg_hdr;
        header.msg_name = datagram.route.peer.bytes.as_ptr().cast_mut().cast();
        header.msg_namelen = datagram.route.peer.length.min(address_bytes());
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        let control_bytes = control.put_local_address(datagram.route.local);
        if control_bytes > 0 {
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = control_bytes;
        }
    }
    let mut result = Sent::default();
    let mut at = 0;
    while let Some(rest) = messages.get_mut(at..count).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` are headers filled above; each points at `datagrams`, `vectors` and
        // `controls`, all alive until this function returns, with their true lengths. The kernel
        // reads them and writes msg_len only.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                libc::c_uint::try_from(rest.len()).unwrap_or(BATCH_C),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match usize::try_from(sent) {
            Ok(sent) => {
                result.sent += sent;
                at += sent.max(1);
            }
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // The error is the first message's alone: a client that went away must not cost others
            // their replies.
            Err(_) => {
                result.failed += 1;
                at += 1;
            }
        }
    }
    result
}

/// Makes a wildcard socket say which address each datagram was sent to.
pub fn want_local_address(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        true => switch(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, true),
        false => switch(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, true),
    }
}

/// Makes a socket say how many datagrams it has lost. Where the kernel is another program's
/// imitation and has no such option, it never says so.
pub fn want_losses(socket: BorrowedFd<'_>) -> io::Result<()> {
    match switch(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, true) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Makes a socket say when each datagram arrived, or no longer. Those that are queued already arrive when
/// they are received.
pub fn want_arrival_times(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    switch(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, on)
}

fn switch(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    on: bool,
) -> io::Result<()> {
    let on = libc::c_int::from(on);
    const ON_BYTES: libc::socklen_t = 4;
    const { assert!(size_of::<libc::c_int>() == ON_BYTES as usize) };
    // SAFETY: the value is a live c_int and its size is given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&on).cast(), ON_BYTES)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn empty_message() -> libc::mmsghdr {
    // SAFETY: mmsghdr consists of integers and pointers; zero and null are values of all of them.
    // (It is not written out because musl's has private padding.)
    unsafe { std::mem::zeroed() }
}

fn address_bytes() -> libc::socklen_t {
    libc::socklen_t::try_from(ADDRESS_BYTES).unwrap_or(0)
}

fn none_if_interrupted(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd, time::SystemTime};

    use super::*;

    #[test]
    fn a_socket_tells_of_arrivals_and_losses_when_it_is_asked_to() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        want_local_address(server.as_fd(), false).unwrap();
        want_losses(server.as_fd()).unwrap();
        want_arrival_times(server.as_fd(), true).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(("127.0.0.1", server.local_addr().unwrap().port())).unwrap();
        let mut inbox = Inbox::new();
        // More than any buffer has room for.
        for _ in 0..100_000 {
            client.send(&[7; 64]).unwrap();
        }
        let mut received = 0;
        server.set_nonblocking(true).unwrap();
        while inbox.receive(server.as_fd()).unwrap() > 0 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            for datagram in inbox.datagrams() {
                received += 1;
                let waited = now.checked_sub(datagram.arrived.unwrap());
                assert!(waited.is_none_or(|waited| waited < Duration::from_secs(60)));
                assert_eq!(datagram.route.unwrap().local, Some("127.0.0.1".parse().unwrap()));
            }
        }
        // What comes after the losses tells of them.
        client.send(b"last").unwrap();
        assert_eq!(inbox.receive(server.as_fd()).unwrap(), 1);
        assert_eq!(inbox.lost(), Some(100_000 - received));
        want_arrival_times(server.as_fd(), false).unwrap();
        client.send(b"last").unwrap();
        assert_eq!(inbox.receive(server.as_fd()).unwrap(), 1);
        assert!(inbox.datagrams().all(|datagram| datagram.arrived.is_none()));
    }
}
