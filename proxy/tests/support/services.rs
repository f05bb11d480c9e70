//! Services written straight into the maps, and servers behind them.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use fairlead_ebpf::abi::{
    ANY_V4, ANY_V6, Address, Backend, BackendKey, FirstBackends, FrontendEntry, FrontendKey,
    FrontendValue, TCP, UDP,
};
use fairlead_proxy::{
    delta::Step,
    maps::{Maps, kernel::KernelMaps},
};

/// IPv4 as v4-mapped.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The key of a service address such as `10.96.0.1:80`.
pub(crate) fn frontend(at: &str, protocol: u8) -> FrontendKey {
    let at: SocketAddr = at.parse().unwrap();
    FrontendKey { address: address(at.ip()), port: at.port().to_be_bytes(), protocol, zero: 0 }
}

/// The key of a NodePort.
pub(crate) fn node_port(is_ipv4: bool, port: u16, protocol: u8) -> FrontendKey {
    let address = if is_ipv4 { ANY_V4 } else { ANY_V6 };
    FrontendKey { address, port: port.to_be_bytes(), protocol, zero: 0 }
}

/// Makes `key` lead to `backends`, as set `set_id` and with counters of the same number.
pub(crate) fn put(
    maps: &mut KernelMaps,
    key: FrontendKey,
    set_id: u32,
    backends: &[(SocketAddr, u16)],
) {
    replace(maps, key, (set_id, set_id), backends);
}

/// Makes `key` lead to `backends`, with this set id and counter id: slots first, as the
/// synchroniser does it.
pub(crate) fn replace(
    maps: &mut KernelMaps,
    key: FrontendKey,
    (set_id, counter_id): (u32, u32),
    backends: &[(SocketAddr, u16)],
) {
    let slots = backends.iter().zip(0u32..).map(|((at, flags), slot)| {
        let backend =
            Backend { address: address(at.ip()), port: at.port().to_be_bytes(), flags: *flags };
        (BackendKey { set_id, slot }, backend)
    });
    let slots: Vec<_> = slots.collect();
    let first = FirstBackends::of(&key, slots.iter().map(|(_, backend)| *backend));
    let value = FrontendValue {
        set_id,
        counter_id,
        backends: u16::try_from(backends.len()).unwrap(),
        ..bytemuck::Zeroable::zeroed()
    };
    maps.apply(&Step::PutBackends(slots)).unwrap();
    maps.apply(&Step::PutFrontends(vec![(key, FrontendEntry { value, first })])).unwrap();
}

/// Tells other threads to stop when dropped, also by a test that fails.
#[derive(Debug)]
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A server that answers every connection or datagram with its own name, in a thread that ends
/// with the process.
pub(crate) fn serve(protocol: u8, ip: IpAddr, name: &'static str) -> SocketAddr {
    match protocol {
        TCP => serve_tcp(ip, name),
        UDP => serve_udp(ip, name),
        other => panic!("no server for protocol {other}"),
    }
}

fn serve_tcp(ip: IpAddr, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
        }
    });
    at
}

fn serve_udp(ip: IpAddr, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), client);
        }
    });
    at
}

/// What a server says over TCP, and whom the client believes to be connected to.
pub(crate) fn ask_tcp(to: SocketAddr) -> std::io::Result<(String, SocketAddr)> {
    let mut stream = TcpStream::connect(to)?;
    let peer = stream.peer_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((answer, peer))
}

/// The unspecified address of the same family.
pub(crate) fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
