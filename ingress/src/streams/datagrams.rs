//! Datagrams and the address they were sent to: an answer from another one is nobody's (RFC 1122 §4.1.3.5).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::{io::Interest, net::UdpSocket};

/// Who asks whom: answers go the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) client: SocketAddr,
    /// `None`: the kernel did not say.
    own: Option<IpAddr>,
}

/// A socket that knows which of the machine's addresses was asked.
#[derive(Debug)]
pub(super) struct Datagrams(UdpSocket);

impl Datagrams {
    /// # Errors
    /// The kernel refuses to tell addresses.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        match socket.local_addr()? {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Self(socket))
    }

    /// Waits for the next one; how long it is.
    pub(super) async fn receive(&self, room: &mut [u8]) -> io::Result<(usize, Way)> {
        self.0.async_io(Interest::READABLE, || self.read(room)).await
    }

    fn read(&self, room: &mut [u8]) -> io::Result<(usize, Way)> {
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(room)];
        let got = recvmsg::<SockaddrStorage>(
            self.0.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let own = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        let client = got.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok((got.bytes, Way { client, own }))
    }

    /// Sends one back; as on the network, what does not fit is lost.
    pub(super) fn answer(&self, datagram: &[u8], way: Way) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(datagram)];
            let (v4, v6);
            let own = match way.own {
                Some(IpAddr::V4(own)) => {
                    v4 = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(own.octets()) },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    Some(ControlMessage::Ipv4PacketInfo(&v4))
                }
                Some(IpAddr::V6(own)) => {
                    v6 = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr { s6_addr: own.octets() },
                        ipi6_ifindex: 0,
                    };
                    Some(ControlMessage::Ipv6PacketInfo(&v6))
                }
                None => None,
            };
            let to = SockaddrStorage::from(way.client);
            let flags = MsgFlags::MSG_DONTWAIT;
            sendmsg(self.0.as_raw_fd(), &parts, own.as_slice(), flags, Some(&to))?;
            Ok(())
        })
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4: &SockaddrIn| SocketAddr::V4((*v4).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6: &SockaddrIn6| SocketAddr::V6((*v6).into())))
}
