//! What the programs may make of a packet and what they may not.

use fairlead_ebpf::{abi::Address, packet::mapped};

use super::{
    BACKENDS, TARGETS,
    support::{
        self,
        uplink::{DROP, NEXT, OUT, REDIRECT},
    },
};

/// Addresses as the IP header has them, read by other code than the programs'.
fn ends(frame: &[u8]) -> Option<(Address, Address)> {
    let at = |range: std::ops::Range<usize>| frame.get(range).map(<[u8]>::to_vec);
    let v4 = |bytes: Vec<u8>| mapped(bytes.try_into().unwrap());
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((v4(at(26..30)?), v4(at(30..34)?))),
        [0x86, 0xdd] => Some((at(22..38)?.try_into().unwrap(), at(38..54)?.try_into().unwrap())),
        _ => None,
    }
}

/// Whether the kernel's own input path would take it for a packet of IP, whatever it carries.
fn is_routable(frame: &[u8]) -> bool {
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() >= 34 => {
            let header = usize::from(frame[14] & 15) * 4;
            frame[14] >> 4 == 4 && header >= 20 && len(16) >= header && 14 + len(16) <= frame.len()
        }
        Some([0x86, 0xdd]) if frame.len() >= 54 => {
            frame[14] >> 4 == 6 && 54 + len(18) <= frame.len()
        }
        _ => false,
    }
}

/// Whether ports, or what an ICMP message begins with, are in the packet and not in what its frame has behind it.
fn has_ports(frame: &[u8]) -> bool {
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame[12..14] {
        [0x08, 0x00] => {
            let is_later = len(20) & 0x1fff != 0;
            is_later || len(16) >= usize::from(frame[14] & 15) * 4 + 8
        }
        _ => len(18) >= 8,
    }
}

fn is_in(addresses: impl IntoIterator<Item = &'static &'static str>, address: Address) -> bool {
    let all = addresses.into_iter().map(|text| text.parse::<std::net::SocketAddr>().unwrap().ip());
    all.into_iter().any(|ip| support::services::address(ip) == address)
}

fn is_service_address(address: &Address) -> bool {
    address[..14] == mapped([10, 96, 0, 0])[..14]
        || address[..14] == support::services::address("fd00:96::".parse().unwrap())[..14]
}

fn is_host(address: &Address) -> bool {
    let is_mapped = address[..12] == mapped([0; 4])[..12];
    let v4 = [address[12], address[13], address[14], address[15]];
    match is_mapped {
        true => !matches!(v4[0], 0 | 127 | 224..=239) && v4 != [255; 4],
        false => address[0] != 0xff && address[..15] != [0; 15],
    }
}

/// What is wrong with what became of a frame.
pub(super) fn fault(hook: &str, before: &[u8], verdict: i32, after: &[u8]) -> Option<&'static str> {
    let (old, new) = (ends(before), ends(after));
    match verdict {
        DROP => None,
        NEXT if after == before => {
            let is_leak = hook == OUT
                && is_routable(before)
                && old.is_some_and(|(_, destination)| is_service_address(&destination));
            is_leak.then_some("a service address leaves the node")
        }
        NEXT => {
            let (Some(old), Some(new)) = (old, new) else {
                return Some("changed without addresses");
            };
            if before.len() != after.len() || before[..14] != after[..14] {
                return Some("more was changed than the packet");
            }
            if !is_routable(before) {
                return Some("translated what is no packet");
            }
            if !has_ports(before) {
                return Some("translated what has no ports");
            }
            if !is_host(&old.0) {
                return Some("translated a packet from nobody");
            }
            let backends = || BACKENDS.iter().flatten();
            if hook == OUT {
                let shown = || TARGETS.iter().flatten();
                let is_right = old.1 == new.1 && is_in(shown(), new.0);
                return (!is_right).then_some("a wrong source");
            }
            let is_right = old.0 == new.0 && (is_in(backends(), new.1) || old.1 == new.1);
            (!is_right).then_some("a wrong backend")
        }
        REDIRECT => {
            let (Some(old), Some(new)) = (old, new) else { return Some("an answer to nobody") };
            if (old.1, old.0) != new {
                return Some("an answer from somebody else");
            }
            (hook == OUT || !is_host(&old.0)).then_some("an answer to nobody")
        }
        _ => Some("no verdict of a program's"),
    }
}
