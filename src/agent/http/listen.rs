//! Where pages are listened for.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket for all addresses is one of both families where there is IPv6, in whichever family it was asked for: so kube-proxy's and
/// CoreDNS's are (Go's net, favoriteAddrFamily).
pub(in crate::agent) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return bind(address);
    }
    match bind((Ipv6Addr::UNSPECIFIED, address.port()).into()) {
        Err(error) if address.is_ipv4() && error.kind() != io::ErrorKind::AddrInUse => {
            bind(address)
        }
        bound => bound,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    /// Of two families http://[NODE]:10256/healthz was refused: 0.0.0.0 was IPv4 alone.
    #[tokio::test]
    async fn a_socket_for_all_addresses_is_reached_over_both_families() {
        let [ipv4, ipv6] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for (asked, reached_at) in [
            ("0.0.0.0:0", &[ipv4, ipv6][..]),
            ("[::]:0", &[ipv4, ipv6]),
            ("127.0.0.1:0", &[ipv4]),
            ("[::1]:0", &[ipv6]),
        ] {
            let listener = listen(asked.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            for ip in reached_at {
                let reached = TcpStream::connect(SocketAddr::new(*ip, port)).await;
                assert!(reached.is_ok(), "{asked} at {ip}: {reached:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_in_one_family_is_taken() {
        for held in ["0.0.0.0:0", "127.0.0.1:0", "[::1]:0"] {
            let held = std::net::TcpListener::bind(held).unwrap();
            let held = held.local_addr().unwrap();
            let listening = listen((Ipv4Addr::UNSPECIFIED, held.port()).into());
            let kind = listening.map_err(|error| error.kind());
            assert_eq!(kind.err(), Some(io::ErrorKind::AddrInUse), "{held}");
        }
    }
}
