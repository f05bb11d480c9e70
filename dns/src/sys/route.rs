//! The way a datagram came, read from and written to what the kernel fills in: safe code over plain
//! bytes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

/// Bytes of the longer socket address, `sockaddr_in6`.
pub(super) const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// Bytes of a control message's header, `cmsghdr`: length (a word), level, type.
const HEAD_BYTES: usize = size_of::<libc::cmsghdr>();
const WORD_BYTES: usize = size_of::<usize>();
/// Room for an IP_PKTINFO or IPV6_PKTINFO message, one of the time and one of losses.
pub(super) const CONTROL_BYTES: usize = 96;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// A socket address as the kernel has it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Peer {
    pub(super) bytes: [u8; ADDRESS_BYTES],
    pub(super) length: libc::socklen_t,
}

/// Control messages of one datagram.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_BYTES]);

/// What the kernel tells beside a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The address it was sent to.
    pub(super) local: Option<IpAddr>,
    /// When it arrived, by the time of day.
    pub(super) arrived: Option<Duration>,
    /// How many the socket had lost by then.
    pub(super) lost: Option<u32>,
}

/// Where a datagram came from and which address it was sent to: the way back for the reply.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub(super) peer: Peer,
    /// The address the client asked; `None` when the socket is bound to one address anyway.
    pub(super) local: Option<IpAddr>,
}

impl Peer {
    pub(super) const EMPTY: Self = Self { bytes: [0; ADDRESS_BYTES], length: 0 };
}

impl Route {
    pub(super) const NOWHERE: Self = Self { peer: Peer::EMPTY, local: None };

    /// The sender's port, host byte order; 0 is nobody's.
    pub fn source_port(&self) -> u16 {
        // Port and family stand at the same place in sockaddr_in and sockaddr_in6.
        u16::from_be_bytes([self.peer.bytes[2], self.peer.bytes[3]])
    }

    /// The address the client asked; `None` when the socket is bound to one address anyway.
    pub fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// The sender.
    pub fn source(&self) -> SocketAddr {
        let bytes = &self.peer.bytes;
        let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
        if i32::from(family) == libc::AF_INET6 {
            let address = chunk::<16>(bytes, 8).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from);
            let scope = u32::from_ne_bytes(chunk::<4>(bytes, 24).unwrap_or_default());
            return SocketAddrV6::new(address, self.source_port(), 0, scope).into();
        }
        let address = chunk::<4>(bytes, 4).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from);
        SocketAddr::from((address, self.source_port()))
    }
}

impl Told {
    /// `in_pktinfo` is index, chosen source, destination; `in6_pktinfo` destination, index.
    fn take(&mut self, level: i32, kind: i32, data: &[u8]) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                self.local = chunk::<4>(data, 4).map(|bytes| Ipv4Addr::from(bytes).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                self.local = chunk::<16>(data, 0).map(|bytes| Ipv6Addr::from(bytes).into());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                let number = |at| chunk(data, at).map(u64::from_ne_bytes);
                self.arrived = number(0).zip(number(8)).map(|(seconds, nanoseconds)| {
                    let nanoseconds = nanoseconds.min(NANOSECONDS_PER_SECOND - 1);
                    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
                });
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                self.lost = chunk(data, 0).map(u32::from_ne_bytes);
            }
            _ => {}
        }
    }
}

impl Control {
    pub(super) const EMPTY: Self = Self([0; CONTROL_BYTES]);

    /// Reads the messages that came with a datagram.
    pub(super) fn read(&self, control_bytes: usize) -> Told {
        let mut told = Told::default();
        let mut rest = self.0.get(..control_bytes).unwrap_or_default();
        while let Some(length) = chunk(rest, 0).map(usize::from_ne_bytes)
            && let Some(message) = rest.get(..length)
            && let Some(data) = message.get(HEAD_BYTES..)
        {
            let number = |at| chunk(message, at).map_or(-1, i32::from_ne_bytes);
            told.take(number(WORD_BYTES), number(WORD_BYTES + 4), data);
            rest = rest.get(length.next_multiple_of(WORD_BYTES)..).unwrap_or_default();
        }
        told
    }

    /// Writes the message that sets a datagram's source; returns its length. The interface is left
    /// to the routing table: naming it would bypass it.
    pub(super) fn put_local_address(&mut self, local: Option<IpAddr>) -> usize {
        let mut data = [0; 20];
        let (level, kind, data_bytes) = match local {
            None => return 0,
            Some(IpAddr::V4(v4)) => {
                data[4..8].copy_from_slice(&v4.octets());
                (libc::IPPROTO_IP, libc::IP_PKTINFO, size_of::<libc::in_pktinfo>())
            }
            Some(IpAddr::V6(v6)) => {
                data[..16].copy_from_slice(&v6.octets());
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, size_of::<libc::in6_pktinfo>())
            }
        };
        let length = HEAD_BYTES + data_bytes;
        put(&mut self.0, 0, &length.to_ne_bytes());
        put(&mut self.0, WORD_BYTES, &level.to_ne_bytes());
        put(&mut self.0, WORD_BYTES + 4, &kind.to_ne_bytes());
        put(&mut self.0, HEAD_BYTES, &data);
        length.next_multiple_of(WORD_BYTES)
    }
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_address_survives_the_control_message() {
        for address in [None, Some("192.0.2.7"), Some("2001:db8::7")] {
            let address: Option<IpAddr> = address.map(|text| text.parse().unwrap());
            let mut control = Control::EMPTY;
            let length = control.put_local_address(address);
            assert!(length <= CONTROL_BYTES);
            assert_eq!(control.read(length), Told { local: address, ..Told::default() });
        }
    }
}
