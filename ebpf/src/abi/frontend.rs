//! What clients dial and where it leads.

use core::ops::Deref;

use bytemuck::{Pod, Zeroable};

use super::{ANY_V4, ANY_V6, Address, Backend, UDP};
use crate::packet::{is_mapped, mapped, unmapped};

/// What a client dials. Key of `frontends`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendKey {
    /// ClusterIP and the like, or [`ANY_V4`](super::ANY_V4) / [`ANY_V6`](super::ANY_V6) for a
    /// NodePort.
    pub address: Address,
    /// Port, network byte order; 0 with protocol 0: every other port of a ClusterIP.
    pub port: [u8; 2],
    /// IANA protocol number; another one in keys that nobody dials, [`FrontendKey::serving`].
    pub protocol: u8,
    /// Always 0 in this version.
    pub zero: u8,
}

/// What a frontend leads to, and the first backends of its set. Value of `frontends`; flipping it is
/// what makes a new backend set visible.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FrontendEntry {
    /// What it leads to.
    pub value: FrontendValue,
    /// Copies of the first slots of `value.set_id`.
    pub first: FirstBackends,
}

/// The first backends of a frontend's set, beside what leads there: a connection that gets one of them
/// takes no look-up for it, and no cache misses. What the kernel's allocator would leave empty behind
/// the value has room for three of IPv4 or one of IPv6, by the family of the frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FirstBackends {
    words: [u64; FIRST_BACKENDS_MAX],
}

/// As many first backends as there may be.
pub const FIRST_BACKENDS_MAX: usize = 3;

/// What a frontend leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendValue {
    /// The backend set; a changed set gets a new id. Unused (0) when `backends` is 0.
    pub set_id: u32,
    /// With [`FRONTEND_LOCAL`], the set whose first `local_backends` serve clients from outside.
    pub local_set_id: u32,
    /// Which counters are the service's ([`ServiceCounters::place`](super::ServiceCounters::place)); survives
    /// set changes.
    pub counter_id: u32,
    /// For so long a client that comes again meets the same backend; 0: no affinity.
    pub affinity_seconds: u32,
    /// Backends in the set. 0 means REJECT, or DROP with [`FRONTEND_DROPS`].
    pub backends: u16,
    /// Backends for clients from outside, with [`FRONTEND_LOCAL`]. 0 means DROP as long as there
    /// are others.
    pub local_backends: u16,
    /// The Service's own port, network byte order: what affinity is kept by, whatever was dialled.
    pub service_port: [u8; 2],
    /// `FRONTEND_*`.
    pub flags: u16,
}

/// The protocol of a [`FrontendKey::serving`]: no packet's that a service has.
const UDP_SERVING: u8 = 145;
/// A NodePort, load balancer address or external address: clients may be outside of the cluster.
pub const FRONTEND_EXTERNAL: u16 = 1;
/// `externalTrafficPolicy: Local`: clients from outside get backends of this node only.
pub const FRONTEND_LOCAL: u16 = 2;
/// Without backends packets are dropped, not refused: there are some, but not for this node's
/// clients (`internalTrafficPolicy: Local`).
pub const FRONTEND_DROPS: u16 = 4;
/// Only clients in the service's `source_ranges` are served.
pub const FRONTEND_SOURCE_RANGES: u16 = 8;
/// Of `other_ports`: another proxy serves this address.
pub const FRONTEND_FOREIGN: u16 = 32;
/// These four bits: which size the tables of its sets have ([`TableSize`](super::TableSize)), so that
/// every node sends a flow to the same backend; 0: they have none, and a random number decides.
pub const FRONTEND_MAGLEV: u16 = 0x0f00;

impl FrontendKey {
    /// Every port of a ClusterIP that has no frontend of its own.
    #[inline(always)]
    pub const fn other_ports(address: Address) -> Self {
        Self { address, port: [0; 2], protocol: 0, zero: 0 }
    }

    /// The NodePort that this is, if the address is one of the node's own.
    #[inline(always)]
    pub fn as_node_port(&self) -> Self {
        let address = if is_mapped(&self.address) { ANY_V4 } else { ANY_V6 };
        Self { address, ..*self }
    }

    /// Beside a frontend of UDP that leads to some of the endpoints that serve its port: what leads to all of
    /// them. A flow stays with its endpoint as long as this leads there, wherever policies, hints and
    /// drains send new ones. There is none where the frontend itself leads to all.
    #[inline(always)]
    pub const fn serving(self) -> Self {
        Self { protocol: UDP_SERVING, ..self }
    }

    /// Whether this is a [`FrontendKey::serving`], of which frontend.
    #[inline(always)]
    pub const fn is_serving_of(self) -> Option<Self> {
        match self.protocol {
            UDP_SERVING => Some(Self { protocol: UDP, ..self }),
            _ => None,
        }
    }

    /// Whether this is [`FrontendKey::other_ports`].
    #[inline(always)]
    pub const fn is_other_ports(&self) -> bool {
        self.protocol == 0
    }
}

impl PartialEq for FrontendEntry {
    /// In one comparison: each of its own would be another path for the verifier.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let words = |entry: &Self| bytemuck::cast::<Self, [u64; 6]>(*entry);
        let pairs = words(self).into_iter().zip(words(other));
        pairs.fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
    }
}

impl Eq for FrontendEntry {}

impl Deref for FrontendEntry {
    type Target = FrontendValue;

    #[inline(always)]
    fn deref(&self) -> &FrontendValue {
        &self.value
    }
}

/// Without any first backends: they are all looked up.
impl From<FrontendValue> for FrontendEntry {
    #[inline(always)]
    fn from(value: FrontendValue) -> Self {
        Self { value, first: FirstBackends::zeroed() }
    }
}

/// An IPv4 backend. All zero: none, since port 0 is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Near {
    address: [u8; 4],
    port: [u8; 2],
    flags: u16,
}

impl FirstBackends {
    /// The first of a set, in its order, for the frontend `key`.
    pub fn of(key: &FrontendKey, set: impl IntoIterator<Item = Backend>) -> Self {
        let mut first = Self::zeroed();
        let mut set = set.into_iter();
        if !is_mapped(&key.address) {
            first.words = set.next().map_or([0; FIRST_BACKENDS_MAX], whole);
            return first;
        }
        for (word, backend) in first.words.iter_mut().zip(set) {
            if is_mapped(&backend.address) {
                *word = near(&backend);
            }
        }
        first
    }

    /// The backend in a slot, if it is one of the first. `key` is the frontend's.
    #[inline(always)]
    pub fn get(&self, key: &FrontendKey, slot: u32) -> Option<Backend> {
        let [first, second, third] = self.words;
        if !is_mapped(&key.address) {
            let words: [u64; FIRST_BACKENDS_MAX] = [first, second, third];
            return (slot == 0 && third != 0).then(|| from_whole(words));
        }
        let word = match slot {
            0 => first,
            1 => second,
            2 => third,
            _ => 0,
        };
        (word != 0).then(|| from_near(word))
    }
}

fn near(backend: &Backend) -> u64 {
    let Backend { address, port, flags } = *backend;
    bytemuck::cast(Near { address: unmapped(&address), port, flags })
}

#[inline(always)]
fn from_near(word: u64) -> Backend {
    let Near { address, port, flags } = bytemuck::cast(word);
    Backend { address: mapped(address), port, flags }
}

/// Address, then port, flags and nothing.
fn whole(backend: Backend) -> [u64; FIRST_BACKENDS_MAX] {
    let Backend { address, port, flags } = backend;
    let [high, low]: [u64; 2] = bytemuck::cast(address);
    [high, low, bytemuck::cast(Near { address: [0; 4], port, flags })]
}

#[inline(always)]
fn from_whole([high, low, rest]: [u64; FIRST_BACKENDS_MAX]) -> Backend {
    let Near { port, flags, .. } = bytemuck::cast(rest);
    Backend { address: bytemuck::cast([high, low]), port, flags }
}

const _: () = assert!(size_of::<FrontendKey>() == 20);
const _: () = assert!(size_of::<FrontendValue>() == 24);
// With the allocator's and the kernel's header and the key an element fills its memory class of 128: two cache
// lines, which are fetched together.
const _: () = assert!(8 + 48 + 24 + size_of::<FrontendEntry>() == 128);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::abi::{ANY_V4, ANY_V6, BACKEND_LOCAL, TCP};

    fn key(address: Address) -> FrontendKey {
        FrontendKey { address, port: [0, 80], protocol: TCP, zero: 0 }
    }

    fn v4(last: u8) -> Backend {
        Backend { address: mapped([10, 0, 0, last]), port: [31, last], flags: BACKEND_LOCAL }
    }

    fn v6(last: u8) -> Backend {
        Backend { address: [last; 16], port: [31, last], flags: BACKEND_LOCAL }
    }

    #[test]
    fn the_first_of_a_set_are_beside_the_frontend_and_others_are_not() {
        let (ipv4, node_port) = (key(mapped([10, 96, 0, 1])), key(ANY_V4));
        let (ipv6, node_port_v6) = (key([0xfd; 16]), key(ANY_V6));
        for (name, key, set, near) in [
            ("one", ipv4, &[v4(1)][..], 1),
            ("three, all there is room for", ipv4, &[v4(1), v4(2), v4(3)], 3),
            ("five", node_port, &[v4(1), v4(2), v4(3), v4(4), v4(5)], 3),
            ("IPv6", ipv6, &[v6(1), v6(2)], 1),
            ("IPv6 NodePort", node_port_v6, &[v6(1)], 1),
            ("nobody", ipv4, &[], 0),
            ("IPv6 nobody", ipv6, &[], 0),
            ("another family than the frontend's is looked up", ipv4, &[v6(1)], 0),
        ] {
            let first = FirstBackends::of(&key, set.iter().copied());
            let expected: Vec<_> = set.iter().copied().take(near).map(Some).collect();
            let found: Vec<_> = (0u32..).take(near).map(|slot| first.get(&key, slot)).collect();
            assert_eq!(found, expected, "{name}");
            for slot in [near, near + 1, 1 << 20] {
                assert_eq!(first.get(&key, u32::try_from(slot).unwrap()), None, "{name}: {slot}");
            }
        }
        let mixed = FirstBackends::of(&ipv4, [v6(1), v4(2)]);
        assert_eq!([0, 1].map(|slot| mixed.get(&ipv4, slot)), [None, Some(v4(2))]);
    }

    #[test]
    fn entries_are_the_same_if_every_byte_is() {
        let entry = FrontendEntry::from(FrontendValue { set_id: 7, ..FrontendValue::zeroed() });
        assert_eq!(entry, entry);
        for at in 0..size_of::<FrontendEntry>() {
            let mut bytes = bytemuck::cast::<_, [u8; size_of::<FrontendEntry>()]>(entry);
            bytes[at] ^= 0x10;
            assert_ne!(entry, bytemuck::cast::<_, FrontendEntry>(bytes), "byte {at}");
        }
    }
}
