//! Which process has a port, as far as /proc tells: in a container only its own processes are seen.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// What a port is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// `st` of a listening TCP socket in /proc/net/tcp (`TCP_LISTEN`).
const LISTENING: &str = "0A";

/// The process that keeps this address from being taken: `dnsmasq (pid 123)`.
pub(crate) fn of(address: SocketAddr, transport: Transport) -> Option<String> {
    holder(&links(address, transport))
}

/// Whether it is this process itself.
pub(crate) fn is_own(address: SocketAddr, transport: Transport) -> bool {
    has_open(Path::new("/proc/self"), &links(address, transport))
}

/// Sockets that are in the way, as a process's files name them.
fn links(address: SocketAddr, transport: Transport) -> Vec<String> {
    let tables = match transport {
        Transport::Udp => ["udp", "udp6"],
        Transport::Tcp => ["tcp", "tcp6"],
    };
    let tables = tables.iter().filter_map(|table| {
        fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).ok()
    });
    let inodes = tables.flat_map(|table| inodes(&table, address, transport));
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}

/// The error, and who is to blame if that is known.
pub(crate) fn named(error: anyhow::Error, holder: Option<&str>) -> anyhow::Error {
    match holder {
        Some(holder) => {
            anyhow::anyhow!("{}; the port is held by {holder}", crate::exit::one_line(&error))
        }
        None => error,
    }
}

/// Inodes of sockets in a table of /proc/net that have the address, or one that includes it.
fn inodes(table: &str, address: SocketAddr, transport: Transport) -> Vec<String> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let local = parse(columns.nth(1)?)?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        Some((local, state, inode))
    });
    let in_the_way = |(local, state, _): &(SocketAddr, &str, &str)| {
        let same = local.ip() == address.ip();
        let wildcard = local.ip().is_unspecified() || address.ip().is_unspecified();
        let takes = transport == Transport::Udp || *state == LISTENING;
        local.port() == address.port() && (same || wildcard) && takes
    };
    rows.filter(in_the_way).map(|(_, _, inode)| inode.to_owned()).collect()
}

/// `0100007F:0035`: words as the machine has them, the port as a number.
fn parse(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_mut(4).zip([0, 8, 16, 24]) {
                chunk.copy_from_slice(&word(at)?.to_ne_bytes());
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The first process other than this one with one of these sockets open.
fn holder(links: &[String]) -> Option<String> {
    if links.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let others = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        (pid != std::process::id()).then(|| (pid, process.path()))
    });
    for (pid, path) in others {
        if has_open(&path, links) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

fn has_open(process: &Path, links: &[String]) -> bool {
    // Those of other users are not ours to look at, without the right to.
    let Ok(open) = fs::read_dir(process.join("fd")) else { return false };
    let mut targets = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.any(|target| links.iter().any(|link| target == Path::new(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 111 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 0100007F:0050 0200007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1
";
    const TABLE6: &str = "  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1
";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_socket_is_in_the_way_if_it_has_the_address_or_all_of_them() {
        for (table, address, expected) in [
            (TABLE, "127.0.0.53:53", &["111"][..]),
            (TABLE, "0.0.0.0:53", &["111"]),
            (TABLE, "127.0.0.1:53", &[]),
            (TABLE, "192.0.2.1:80", &["222"]),
            (TABLE, "127.0.0.53:54", &[]),
            (TABLE6, "[::1]:53", &["444"]),
            (TABLE6, "[::]:53", &["444"]),
            (TABLE6, "[::2]:53", &[]),
        ] {
            let found = inodes(table, address.parse().unwrap(), Transport::Tcp);
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn a_port_of_this_process_is_its_own() {
        let own = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = own.local_addr().unwrap();
        assert!(is_own(address, Transport::Tcp));
        assert!(!is_own(address, Transport::Udp));
        assert_eq!(of(address, Transport::Tcp), None, "nobody else's");
    }

    #[test]
    fn a_message_says_who_has_the_port_if_that_is_known() {
        let error = || anyhow::anyhow!("port 53 is taken");
        let known = named(error(), Some("dnsmasq (pid 7)")).to_string();
        assert_eq!(known, "port 53 is taken; the port is held by dnsmasq (pid 7)");
        assert_eq!(named(error(), None).to_string(), "port 53 is taken");
    }
}
