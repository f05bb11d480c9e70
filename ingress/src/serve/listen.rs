//! Listening sockets: at least one per thread and address, all taken before anything is served.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use fairlead_handover::Group;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::{config::IngressConfig, error::IngressError};

/// Connections the kernel holds for a thread that is busy.
pub(crate) const BACKLOG: i32 = 4096;

/// Sockets that are bound and do not listen yet.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Where plain HTTP will be served.
    pub(crate) http: Vec<SocketAddr>,
    /// Where HTTPS will be served.
    pub(crate) https: Vec<SocketAddr>,
    /// Per thread.
    pub(crate) threads: Vec<Vec<Listener>>,
}

/// One thread's socket for one address.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: SocketAddr,
    tls: bool,
    group: Arc<Group>,
}

/// The same, listening.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) socket: Rc<TcpListener>,
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) group: Arc<Group>,
}

impl Listener {
    /// Sockets of one thread for an address without TLS.
    pub(crate) fn plain(address: SocketAddr) -> io::Result<Vec<Self>> {
        let group = Arc::new(Group::join(address, 1));
        let listener = |_| {
            let socket = socket(address, Type::STREAM)?;
            Ok(Self { socket, address, tls: false, group: group.clone() })
        };
        (0..group.sockets()).map(listener).collect()
    }

    /// Takes connections from now on; must be called on the thread that will accept them.
    pub(crate) fn listen(self) -> io::Result<Listening> {
        let Self { socket, address, tls, group } = self;
        socket.listen(BACKLOG)?;
        let socket = Rc::new(TcpListener::from_std(socket.into())?);
        Ok(Listening { socket, address, tls, group })
    }
}

/// Takes all addresses for all threads.
///
/// Nothing listens yet: until routes are known a connection is refused, so that whoever balances in
/// front goes elsewhere, instead of being told 404.
pub(crate) fn bind(config: &IngressConfig, threads: usize) -> Result<Bound, IngressError> {
    let mut bound = Bound { http: Vec::new(), https: Vec::new(), threads: Vec::new() };
    bound.threads.resize_with(threads, Vec::new);
    let http = config.http_listen.iter().map(|address| (*address, false));
    let https = config.https_listen.iter().map(|address| (*address, true));
    for (wanted, tls) in http.chain(https) {
        let first = match socket(wanted, Type::STREAM) {
            Err(error) if is_missing_ipv6(wanted, &error) => {
                tracing::warn!(address = %wanted, "no IPv6 on this machine: not listening there");
                continue;
            }
            first => first.map_err(|source| refused(wanted, source))?,
        };
        let local = first.local_addr().map_err(|source| refused(wanted, source))?;
        let address = local.as_socket().unwrap_or(wanted);
        let group = Arc::new(Group::join(address, threads));
        let mut first = Some(first);
        for i in 0..group.sockets() {
            let socket = match first.take() {
                Some(first) => first,
                None => socket(address, Type::STREAM).map_err(|source| refused(address, source))?,
            };
            if let Some(thread) = bound.threads.get_mut(i % threads) {
                thread.push(Listener { socket, address, tls, group: group.clone() });
            }
        }
        let addresses = if tls { &mut bound.https } else { &mut bound.http };
        addresses.push(address);
    }
    if bound.http.is_empty() && bound.https.is_empty() {
        return Err(IngressError::NoListener);
    }
    Ok(bound)
}

/// A socket that shares its address with those of other threads and of another process.
pub(crate) fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // 0.0.0.0 has a socket of its own, and clients keep their own family.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

pub(crate) fn is_missing_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    // A kernel without IPv6 knows no such family; one with it switched off has no such address.
    let codes = [errno::EAFNOSUPPORT, errno::EADDRNOTAVAIL];
    address.is_ipv6()
        && address.ip().is_unspecified()
        && error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Linux numbers of the errors told apart here.
mod errno {
    pub(super) const EAFNOSUPPORT: i32 = 97;
    pub(super) const EADDRNOTAVAIL: i32 = 99;
}

fn refused(address: SocketAddr, source: io::Error) -> IngressError {
    let cure = match source.kind() {
        io::ErrorKind::AddrInUse => "stop what holds it, or choose another address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "the address is not one of this machine's",
        _ => "choose another address",
    };
    IngressError::Listen { address, cure, source }
}
