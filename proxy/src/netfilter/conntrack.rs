//! ctnetlink: the connections netfilter knows (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

use std::io;

use fairlead_ebpf::{
    abi::{Address, INGRESS, SCTP, TCP, Tuple, UDP},
    packet::mapped,
};
use netlink_packet_core::{NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink;

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`.
const GET: u16 = 0x101;
/// `struct nfgenmsg`; all zero: of every family.
const FAMILY_LEN: usize = 4;
// `enum ctattr_type`, and those below.
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
const PROTO_NUMBER: u16 = 1;
const PROTO_PORTS: [u16; 2] = [2, 3];
/// `IPS_SRC_NAT`.
const SOURCE_TRANSLATED: u32 = 1 << 4;
/// Of more, those that come last are not known of.
const HELD_MAX: usize = 1 << 18;

/// A connection whose source netfilter translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The packets on their way back, as they arrive.
    pub(super) reply: Tuple,
    /// How long it holds without another packet. Netfilter counts seconds, which are a little shorter.
    pub(super) left_ticks: u32,
}

impl Held {
    /// The other end.
    pub(super) fn server(&self) -> (Address, [u8; 2]) {
        (self.reply.source, self.reply.source_port)
    }
}

/// Those that go out from a port that `is_meant`.
pub(super) fn translated(is_meant: impl Fn(u16) -> bool) -> io::Result<Vec<Held>> {
    match read(is_meant) {
        // A kernel that tracks no connections translates none.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPROTONOSUPPORT)) =>
        {
            Ok(Vec::new())
        }
        result => result,
    }
}

fn read(is_meant: impl Fn(u16) -> bool) -> io::Result<Vec<Held>> {
    let socket = netlink::open(NETLINK_NETFILTER)?;
    socket.send(&netlink::message(GET, NLM_F_REQUEST | NLM_F_DUMP, &request()), 0)?;
    let mut all = Vec::new();
    let is_meant = |held: &Held| is_meant(u16::from_be_bytes(held.reply.destination_port));
    while !netlink::receive(&socket, |message| {
        if all.len() < HELD_MAX {
            all.extend(held(message).filter(is_meant));
        }
    })? {}
    Ok(all)
}

/// For those of both families with this status.
fn request() -> Vec<u8> {
    let status = SOURCE_TRANSLATED.to_be_bytes();
    let len = u16::try_from(NLA_HEADER_SIZE + status.len()).unwrap_or_default();
    [&[0; FAMILY_LEN][..], &len.to_ne_bytes(), &STATUS.to_ne_bytes(), &status].concat()
}

fn held(message: &[u8]) -> Option<Held> {
    let all = message.get(netlink::HEADER_LEN + FAMILY_LEN..)?;
    if number(attribute(all, STATUS)?)? & SOURCE_TRANSLATED == 0 {
        return None;
    }
    let reply = attribute(all, TUPLE_REPLY)?;
    let (ip, proto) = (attribute(reply, TUPLE_IP)?, attribute(reply, TUPLE_PROTO)?);
    let protocol = *attribute(proto, PROTO_NUMBER)?.first()?;
    if ![TCP, UDP, SCTP].contains(&protocol) {
        return None;
    }
    let address = |v4: u16, v6: u16| -> Option<Address> {
        match attribute(ip, v4) {
            Some(address) => Some(mapped(address.try_into().ok()?)),
            None => attribute(ip, v6)?.try_into().ok(),
        }
    };
    let port = |kind: u16| -> Option<[u8; 2]> { attribute(proto, kind)?.try_into().ok() };
    let [source_v4, destination_v4] = IP_V4;
    let [source_v6, destination_v6] = IP_V6;
    let [source_port, destination_port] = PROTO_PORTS;
    let reply = Tuple {
        source: address(source_v4, source_v6)?,
        destination: address(destination_v4, destination_v6)?,
        source_port: port(source_port)?,
        destination_port: port(destination_port)?,
        protocol,
        hook: INGRESS,
        zero: [0; 2],
    };
    // None of what hardware forwards.
    let left_ticks = attribute(all, TIMEOUT).and_then(number).unwrap_or(u32::MAX);
    Some(Held { reply, left_ticks })
}

fn attribute(all: &[u8], kind: u16) -> Option<&[u8]> {
    let mut attributes = NlasIterator::new(all).map_while(Result::ok);
    let found = attributes.find(|attribute| attribute.kind() == kind)?;
    let len = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..len)
}

/// In network byte order.
fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLA_ALIGNTO;

    use super::*;

    /// What Linux 6.18 says of a client at 10.77.1.2:37342 whose connection to 10.77.2.1:30080 goes on to
    /// 10.77.2.2:8080 from the node's port 5000.
    const MASQUERADED: &str = "020000003400018014000180080001000a4d0102080002000a4d02011c00028005000100\
        060000000600020091de000006000300758000003400028014000180080001000a4d0202080002000a4d02011c0002\
        800500010006000000060002001f900000060003001388000008000300000001be080008000000000008000c007a96\
        86de08000b0000000001080007000006977f300004802c0001800500010003000000050002000a0000000500030\
        00a00000006000400230000000600050023000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        [vec![0; netlink::HEADER_LEN], pairs.map(byte).collect()].concat()
    }

    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(NLA_HEADER_SIZE + value.len()).unwrap();
        let mut all = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        all.resize(all.len().next_multiple_of(NLA_ALIGNTO), 0);
        all
    }

    /// Of [`MASQUERADED`] the same in IPv6, or with something changed.
    fn made(protocol: u8, status: u32, address: fn(u16) -> Vec<u8>) -> Vec<u8> {
        let ip = [address(1), address(2)].concat();
        let ports = [nested(2, &[0x1f, 0x90]), nested(3, &[0x13, 0x88])].concat();
        let proto = [nested(1, &[protocol]), ports].concat();
        let tuple = [nested(1, &ip), nested(2, &proto)].concat();
        let all = [nested(3, &status.to_be_bytes()), nested(2, &tuple)].concat();
        [vec![0; netlink::HEADER_LEN + FAMILY_LEN], all].concat()
    }

    fn v6(end: u16) -> Vec<u8> {
        let mut address = [0xfd; 16];
        address[15] = u8::try_from(end).unwrap();
        nested(2 + end, &address)
    }

    #[test]
    fn what_the_kernel_says_of_a_masqueraded_connection_is_read() {
        let Held { reply, left_ticks } = held(&bytes(MASQUERADED)).unwrap();
        assert_eq!(left_ticks, 431_999);
        assert_eq!(reply.source, mapped([10, 77, 2, 2]));
        assert_eq!(reply.destination, mapped([10, 77, 2, 1]));
        let ports = [reply.source_port, reply.destination_port].map(u16::from_be_bytes);
        assert_eq!((ports, reply.protocol, reply.hook), ([8080, 5000], TCP, INGRESS));

        let Held { reply, left_ticks } = held(&made(UDP, SOURCE_TRANSLATED, v6)).unwrap();
        assert_eq!((reply.source[15], reply.destination[15], reply.protocol), (1, 2, UDP));
        assert_eq!(left_ticks, u32::MAX, "it does not say");
    }

    #[test]
    fn others_and_what_is_cut_short_are_left_out() {
        const ICMP: u8 = 1;
        let strange = |kind: u16| nested(kind, &[1, 2, 3]);
        for (message, what) in [
            (made(TCP, 1 << 5, v6), "only its destination is translated"),
            (made(ICMP, SOURCE_TRANSLATED, v6), "no ports"),
            (made(TCP, SOURCE_TRANSLATED, strange), "an address of three bytes"),
        ] {
            assert_eq!(held(&message), None, "{what}");
        }
        let whole = made(TCP, SOURCE_TRANSLATED, v6);
        for len in 0..whole.len() {
            assert_eq!(held(&whole[..len]), None, "{len} bytes");
        }
        let mut endless = whole;
        endless[netlink::HEADER_LEN + FAMILY_LEN] = 0;
        assert_eq!(held(&endless), None, "an attribute of no length");
    }
}
