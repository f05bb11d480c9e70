//! From one process to the next on the same addresses: no connection is refused, none is reset.
//!
//! Listening sockets that share an address (SO_REUSEPORT) form a group, in order of listen(2). A
//! SYN goes to one of them by hash and stays with it: closing that socket resets what is still half
//! open. So a newcomer steers SYNs to its own sockets by a classic BPF program, which any member of
//! the group may attach and whose result is an index into the group. The old process then gets
//! nothing new, waits until what is half open has been completed, and closes.
//!
//! Closing reorders the group: the last socket takes the place of the closed one
//! (`__reuseport_detach_sock`). With `own` sockets of the old process in front and at least as many
//! of the new one behind, the socket at `total - own` keeps its place until all but one of the old
//! ones are closed. With the last one the index lies outside of the group, and the kernel goes by
//! hash again, over the new process's sockets alone. So there is no moment in which a SYN can reach
//! a socket about to be closed, and nothing is left to tidy up.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    os::fd::AsFd,
    sync::Once,
};

use nix::{
    libc::{self, sock_filter, sock_fprog},
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};

/// More sockets than this of an earlier process are not matched.
const SOCKETS_MAX: usize = 1_024;
/// tcp(5) states, as /proc/net/tcp prints them.
const LISTEN: &str = "0A";

/// The sockets that listen on one address: ours, and perhaps those of another process.
#[derive(Debug)]
pub struct Group {
    address: SocketAddr,
    /// Ours.
    own: usize,
    /// Another process had sockets there when we came.
    shared: bool,
    leaving: Once,
}

impl Group {
    /// The group of an address in which `threads` need a socket each; nothing of ours listens yet.
    pub fn join(address: SocketAddr, threads: usize) -> Self {
        let theirs = listening(address).unwrap_or_else(|error| {
            tracing::warn!(%address, %error, "cannot see who else listens");
            0
        });
        // As many as the others at least: what `leave` relies on.
        let own = threads.max(theirs.min(SOCKETS_MAX));
        Self { address, own, shared: theirs > 0, leaving: Once::new() }
    }

    /// The group of an address at which a process has one socket and takes over from nobody by itself:
    /// who was there before leaves the address to it.
    pub fn single(address: SocketAddr) -> Self {
        Self { address, own: 1, shared: false, leaving: Once::new() }
    }

    /// How many sockets are to be made.
    pub fn sockets(&self) -> usize {
        self.own
    }

    /// All our sockets listen and are served: new connections come here from now on.
    pub fn arrive(&self, socket: &impl AsFd) {
        if !self.shared {
            return;
        }
        let steered = listening(self.address).and_then(|total| {
            let first = total.saturating_sub(self.own);
            attach(socket, &mut spread(first, self.own))?;
            Ok(first)
        });
        match steered {
            Ok(0) => {}
            Ok(_) => tracing::info!(
                address = %self.address,
                "another process listens here, too: it is taken over from"
            ),
            Err(error) => tracing::warn!(
                address = %self.address, %error,
                "cannot steer connections away from another process that listens here"
            ),
        }
    }

    /// Our sockets are about to be closed: no new connection may come to them. Once is enough.
    pub fn leave(&self, socket: &impl AsFd) {
        self.leaving.call_once(|| {
            let left = listening(self.address).and_then(|total| {
                match total.checked_sub(self.own) {
                    // Nobody to leave them to.
                    None | Some(0) => Ok(()),
                    Some(keeps_its_place) => attach(socket, &mut always(keeps_its_place)),
                }
            });
            if let Err(error) = left {
                tracing::warn!(
                    address = %self.address, %error,
                    "cannot leave connections to the other process that listens here"
                );
            }
        });
    }
}

/// Sockets in state LISTEN on exactly this address, of all processes.
fn listening(address: SocketAddr) -> io::Result<usize> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    count(BufReader::new(File::open(table)?), address)
}

/// Listening sockets come first: the others, perhaps a hundred thousand, are not read.
fn count(table: impl BufRead, address: SocketAddr) -> io::Result<usize> {
    let address = as_printed(address);
    let mut found = 0;
    for line in table.lines().skip(1) {
        let line = line?;
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, state) = (columns.next(), columns.nth(1));
        if state != Some(LISTEN) {
            break;
        }
        found += usize::from(local == Some(&*address));
    }
    Ok(found)
}

/// proc(5): words of an address in the machine's byte order.
fn as_printed(address: SocketAddr) -> String {
    let words = |octets: &[u8]| -> String {
        let words = octets.chunks_exact(4).map(|word| word.try_into().unwrap_or_default());
        words.map(|word| format!("{:08X}", u32::from_ne_bytes(word))).collect()
    };
    let ip = match address {
        SocketAddr::V4(address) => words(&address.ip().octets()),
        SocketAddr::V6(address) => words(&address.ip().octets()),
    };
    format!("{ip}:{:04X}", address.port())
}

/// One of `count` sockets from `first` on, at random. Not by the packet's hash: a packet that never
/// left the machine may have none.
fn spread(first: usize, count: usize) -> [sock_filter; 4] {
    const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, RANDOM),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, number(count).max(1)),
        instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, number(first)),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// One socket for all; past the end of the group: by hash.
fn always(index: usize) -> [sock_filter; 1] {
    [instruction(libc::BPF_RET | libc::BPF_K, number(index))]
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k }
}

/// A group holds 65,535 sockets at most.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn attach(socket: &impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n   \
        0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1\n   \
        1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 2\n   \
        2: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 3\n   \
        3: 0100007F:0050 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 4\n   \
        4: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 5\n";

    #[test]
    fn listening_sockets_of_one_address_are_counted_and_no_line_after_them_is_read() {
        for (address, expected) in
            [("127.0.0.1:80", 2), ("0.0.0.0:80", 1), ("127.0.0.1:81", 0), ("[::]:80", 0)]
        {
            let found = count(TABLE.as_bytes(), address.parse().unwrap()).unwrap();
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn the_kernels_own_table_is_understood() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(listening(address).unwrap(), 1, "{address}");
            drop(listener);
            assert_eq!(listening(address).unwrap(), 0, "{address}");
        }
    }
}
