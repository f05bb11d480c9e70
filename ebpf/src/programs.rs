//! What the programs do, by hook; and the maps they share.

pub(crate) mod affinity;
pub(crate) mod back;
pub(crate) mod connected;
pub(crate) mod dial;
pub(crate) mod ended;
pub(crate) mod frame;
pub(crate) mod kept;
pub(crate) mod live;
pub(crate) mod maps;
pub(crate) mod once;
pub(crate) mod own;
pub(crate) mod peer;
pub(crate) mod proof;
pub(crate) mod reject;
pub(crate) mod route;
pub(crate) mod sent;
pub(crate) mod sockaddr;
pub(crate) mod steps;
pub(crate) mod track;
pub(crate) mod uplink;

/// The half of a context field that holds a port or protocol.
#[inline(always)]
fn low_half(field: u32) -> u16 {
    let [.., high, low] = field.to_be_bytes();
    u16::from_be_bytes([high, low])
}
