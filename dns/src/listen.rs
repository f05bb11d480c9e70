//! Sockets: several UDP sockets and one TCP listener per address, all on the same port.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{error::DnsError, sys};

/// Asked of the kernel for received datagrams, in bytes per socket: a burst of about a thousand
/// queries.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// How long a receive waits before the thread looks around: at a newer zone, at its end.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted.
const TCP_BACKLOG: i32 = 512;
/// A peer that sends nothing: TCPMUX (RFC 1078, historic since RFC 7805) was never for UDP.
const NOBODY_PORT: u16 = 1;
/// How many free ports are tried for one that is free for UDP and TCP.
const PORT_ATTEMPTS: usize = 16;

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct Listener {
    /// With the port the kernel chose, if it was left open.
    pub(crate) address: SocketAddr,
    /// One per thread; the kernel spreads clients over them.
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) tcp: TcpListener,
}

/// Binds `threads` UDP sockets and a TCP listener.
pub(crate) fn listen(address: SocketAddr, threads: usize) -> Result<Listener, DnsError> {
    let mut attempt = 1;
    loop {
        match listen_once(address, threads) {
            // The free UDP port was taken for TCP.
            Err(DnsError::Taken { .. }) if address.port() == 0 && attempt < PORT_ATTEMPTS => {
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Whether another process that lets us share the port serves the address already.
pub(crate) fn is_shared(address: SocketAddr) -> bool {
    // A TCP socket gets nothing before it listens: trying disturbs nobody.
    let try_bind = |shared: bool| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        prepare(&socket, address)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())
    };
    let alone = try_bind(false);
    let is_taken = alone.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    address.port() != 0 && is_taken && try_bind(true).is_ok()
}

/// Takes a socket out of those the kernel chooses from for a datagram: a connected socket is chosen
/// for its peer alone (`compute_score` in net/ipv4/udp.c, `reuseport_select_sock` in
/// net/core/sock_reuseport.c). What is queued stays, and replies can be sent to anybody.
pub(crate) fn retire(socket: &UdpSocket) -> io::Result<()> {
    let nobody: SocketAddr = match socket.local_addr()? {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, NOBODY_PORT).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, NOBODY_PORT).into(),
    };
    socket.connect(nobody)
}

fn listen_once(address: SocketAddr, threads: usize) -> Result<Listener, DnsError> {
    let first = udp(address).map_err(|error| cannot(address, "UDP", error))?;
    let bound = first.local_addr().map_err(|error| cannot(address, "UDP", error))?;
    let mut sockets = vec![first];
    for _ in 1..threads.max(1) {
        sockets.push(udp(bound).map_err(|error| cannot(bound, "UDP", error))?);
    }
    let tcp = tcp(bound).map_err(|error| cannot(bound, "TCP", error))?;
    Ok(Listener { address: bound, udp: sockets, tcp })
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    prepare(&socket, address)?;
    // The kernel gives what its limit allows.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    sys::want_losses(socket.as_fd())?;
    if address.ip().is_unspecified() {
        sys::want_local_address(socket.as_fd(), address.is_ipv6())?;
    }
    bind(&socket, address)?;
    Ok(socket.into())
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket, address)?;
    // Connections of an earlier process in TIME_WAIT must not block the port.
    socket.set_reuse_address(true)?;
    bind(&socket, address)?;
    socket.listen(TCP_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        // Or [::] would take IPv4 as well and 0.0.0.0 beside it would be refused.
        socket.set_only_v6(true)?;
    }
    Ok(())
}

fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        // Sharing first would let the kernel choose a port that another process of ours shares.
        socket.bind(&address.into())?;
        return socket.set_reuse_port(true);
    }
    // Shared among our threads, and with our successor during an upgrade.
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())
}

fn cannot(address: SocketAddr, transport: &'static str, source: io::Error) -> DnsError {
    let cure = match source.kind() {
        io::ErrorKind::AddrInUse => return DnsError::Taken { address, transport, source },
        io::ErrorKind::PermissionDenied => {
            "run as root or with CAP_NET_BIND_SERVICE, or give --dns-listen a port above 1023"
        }
        io::ErrorKind::AddrNotAvailable => "no interface has this address: correct --dns-listen",
        _ if address.is_ipv6() => {
            "if this machine has no IPv6, leave the address out of --dns-listen"
        }
        _ => "correct --dns-listen",
    };
    DnsError::Listen { address, transport, cure, source }
}
