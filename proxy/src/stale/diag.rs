//! sock_diag(7): which UDP sockets there are, and the end of some.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::Socket;

use crate::netlink::{self, HEADER_LEN};

/// `NETLINK_SOCK_DIAG`.
const PROTOCOL: isize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `struct inet_diag_sockid`, which begins four bytes into the kernel's message.
const ID_LEN: usize = 48;
const ID_AT: usize = HEADER_LEN + 4;

/// Sockets that were met, by cookie.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Connected to what they should not be: they are no more.
    pub(super) ended: HashSet<u64>,
    /// Connected to something else, or to nothing.
    pub(super) others: HashSet<u64>,
    /// Connected to what they should not be, and the kernel did not end them.
    pub(super) refused: HashSet<u64>,
}

/// A socket to be ended.
#[derive(Debug)]
struct Stale {
    cookie: u64,
    family: u8,
    /// `struct inet_diag_sockid`.
    id: Vec<u8>,
}

impl Found {
    pub(super) fn add(&mut self, more: Self) {
        self.ended.extend(more.ended);
        self.others.extend(more.others);
        self.refused.extend(more.refused);
    }
}

/// Ends the sockets of this thread's namespace that are `wanted`: by cookie, with the remote
/// addresses they may have. What goes wrong with one, or with one family, keeps no other. Beside what was found is
/// why not all sockets were seen, if so.
pub(super) fn end(wanted: &HashMap<u64, Vec<(IpAddr, u16)>>) -> (Found, Option<io::Error>) {
    let (mut stale, mut found, mut last) = (Vec::new(), Found::default(), None);
    for family in [libc::AF_INET, libc::AF_INET6] {
        last = look(family, wanted, &mut stale, &mut found).err().or(last);
    }
    let mut socket = None;
    if let Some(error) = end_each(&stale, &mut found, |stale| destroy(&mut socket, stale)) {
        tracing::debug!(%error, "stale sockets not ended");
    }
    (found, last)
}

/// A socket's cookie, and whom it is connected to.
type Connected = (u64, (IpAddr, u16));

/// The sockets of this thread's namespace, by cookie, that are connected to one of the remote addresses `wanted`, and to
/// which. Beside them is why not all sockets were seen, if so.
pub(super) fn connected(
    wanted: &HashMap<u64, Vec<(IpAddr, u16)>>,
) -> (Vec<Connected>, Option<io::Error>) {
    let (mut met, mut last) = (Vec::new(), None);
    for family in [libc::AF_INET, libc::AF_INET6] {
        last = look(family, wanted, &mut met, &mut Found::default()).err().or(last);
    }
    (met.iter().filter_map(|socket| read(socket.family, &socket.id)).collect(), last)
}

/// Finds the sockets of one family.
fn look(
    family: i32,
    wanted: &HashMap<u64, Vec<(IpAddr, u16)>>,
    stale: &mut Vec<Stale>,
    found: &mut Found,
) -> io::Result<()> {
    let socket = netlink::open(PROTOCOL)?;
    let family = u8::try_from(family).map_err(io::Error::other)?;
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    socket.send(&request(SOCK_DIAG_BY_FAMILY, flags, family, &[0; ID_LEN]), 0)?;
    while !netlink::receive(&socket, |message| {
        let Some(id) = message.get(ID_AT..ID_AT + ID_LEN) else { return };
        let Some((cookie, remote)) = read(family, id) else { return };
        match wanted.get(&cookie) {
            Some(remotes) if remotes.contains(&remote) => {
                stale.push(Stale { cookie, family, id: id.to_vec() });
            }
            Some(_) => _ = found.others.insert(cookie),
            None => {}
        }
    })? {}
    Ok(())
}

/// Has each ended by `destroy`. Returns the last error.
fn end_each(
    stale: &[Stale],
    found: &mut Found,
    mut destroy: impl FnMut(&Stale) -> io::Result<()>,
) -> Option<io::Error> {
    let mut last = None;
    for stale in stale {
        match destroy(stale) {
            Ok(()) => _ = found.ended.insert(stale.cookie),
            // Closed by its owner meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                found.others.insert(stale.cookie);
            }
            Err(error) => {
                found.refused.insert(stale.cookie);
                last = Some(error);
            }
        }
    }
    last
}

/// After an error the conversation begins anew: an answer that comes late would be taken for the next one's.
fn destroy(socket: &mut Option<Socket>, Stale { family, id, .. }: &Stale) -> io::Result<()> {
    let asked = match socket.take() {
        Some(asked) => asked,
        None => netlink::open(PROTOCOL)?,
    };
    asked.send(&request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, *family, id), 0)?;
    netlink::receive(&asked, |_| ())?;
    *socket = Some(asked);
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The first one that could not be ended kept those behind it, and those that were ended before it were forgotten.
    #[test]
    fn a_socket_that_cannot_be_ended_keeps_no_other_and_is_told_of() {
        let stale = |cookie| Stale { cookie, family: 2, id: vec![0; ID_LEN] };
        let answers = [
            (1, Ok(())),
            (2, Err(libc::EOPNOTSUPP)),
            (3, Ok(())),
            (4, Err(libc::ENOENT)),
            (5, Err(libc::EPERM)),
            (6, Ok(())),
        ];
        let stale = answers.map(|(cookie, _)| stale(cookie));
        let mut found = Found { others: [9].into(), ..Found::default() };
        let last = end_each(&stale, &mut found, |asked| {
            let answer = answers.into_iter().find(|(cookie, _)| *cookie == asked.cookie);
            let (_, answer) = answer.expect("nobody else is asked for");
            answer.map_err(io::Error::from_raw_os_error)
        });
        let (ended, others, refused) = ([1, 3, 6].into(), [4, 9].into(), [2, 5].into());
        assert_eq!(found, Found { ended, others, refused });
        assert_eq!(last.and_then(|error| error.raw_os_error()), Some(libc::EPERM));
        assert!(end_each(&[], &mut found, |_| Err(io::ErrorKind::Other.into())).is_none());
    }
}
