//! sock_diag(7): which UDP sockets there are, and the end of some.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use crate::netlink::{self, HEADER_LEN};

/// `NETLINK_SOCK_DIAG`.
const PROTOCOL: isize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `struct inet_diag_sockid`, which begins four bytes into the kernel's message.
const ID_LEN: usize = 48;
const ID_AT: usize = HEADER_LEN + 4;

/// Sockets that were met, by cookie.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Connected to what they should not be: they are no more.
    pub(super) ended: HashSet<u64>,
    /// Connected to something else, or to nothing.
    pub(super) others: HashSet<u64>,
}

impl Found {
    pub(super) fn add(&mut self, more: Self) {
        self.ended.extend(more.ended);
        self.others.extend(more.others);
    }
}

/// Ends the sockets of this thread's namespace that are `wanted`: by cookie, with the remote
/// addresses they may have.
pub(super) fn end(wanted: &HashMap<u64, Vec<(IpAddr, u16)>>) -> io::Result<Found> {
    let socket = netlink::open(PROTOCOL)?;
    let (mut stale, mut found) = (Vec::new(), Found::default());
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).map_err(io::Error::other)?;
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        socket.send(&request(SOCK_DIAG_BY_FAMILY, flags, family, &[0; ID_LEN]), 0)?;
        while !netlink::receive(&socket, |message| {
            let Some(id) = message.get(ID_AT..ID_AT + ID_LEN) else { return };
            let Some((cookie, remote)) = read(family, id) else { return };
            match wanted.get(&cookie) {
                Some(remotes) if remotes.contains(&remote) => {
                    stale.push((cookie, family, id.to_vec()));
                }
                Some(_) => _ = found.others.insert(cookie),
                None => {}
            }
        })? {}
    }
    for (cookie, family, id) in stale {
        socket.send(&request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, family, &id), 0)?;
        match netlink::receive(&socket, |_| ()) {
            Ok(_) => _ = found.ended.insert(cookie),
            // Closed by its owner meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                found.others.insert(cookie);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// A socket's cookie, and whom it is connected to.
fn read(family: u8, id: &[u8]) -> Option<(u64, (IpAddr, u16))> {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(id.get(at..at + 4)?.try_into().ok()?))
    };
    let cookie = u64::from(number(40)?) | u64::from(number(44)?) << 32;
    let port = u16::from_be_bytes(id.get(2..4)?.try_into().ok()?);
    let address: [u8; 16] = id.get(20..36)?.try_into().ok()?;
    let ip = if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = address;
        IpAddr::from([a, b, c, d])
    } else {
        Ipv6Addr::from(address).to_canonical()
    };
    Some((cookie, (ip, port)))
}

/// A netlink header and `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, id: &[u8]) -> Vec<u8> {
    let protocol = 17;
    let all_states = u32::MAX.to_ne_bytes();
    let body = [&[family, protocol, 0, 0][..], &all_states, id].concat();
    netlink::message(kind, flags, &body)
}
