//! Consistent hashing by a table that every node fills alike, as Maglev has it (Eisenbud et al., NSDI
//! 2016, §3.4).
//!
//! It is filled in another way. In Maglev's own a backend whose place is taken goes on to its next at
//! once, so one that leaves hurries all others on: up to 3 % of the places move. Here it has lost its
//! turn. Who has a place is then a matter between that place and each backend alone, but for those
//! that have their fill.

use fairlead_ebpf::{
    abi::{Backend, MaglevPart, PART_PLACES, TableSize},
    select::{avalanche, mix, scale},
};

/// A backend has at most so many tenths of an even share: less would move places when one leaves.
const TENTHS_MAX: usize = 11;

/// One that asks for places.
struct Bidder {
    /// Its slot in the set.
    slot: u16,
    hash: u64,
    /// How many places it may still have.
    wants: usize,
}

/// The table of a set that is not empty, in parts.
pub(crate) fn parts(set: &[Backend], size: TableSize) -> Vec<MaglevPart> {
    let table = table(set, size);
    let (parts, _) = table.as_chunks::<{ PART_PLACES as usize }>();
    parts.iter().map(|slots| MaglevPart { slots: *slots }).collect()
}

/// The size of a table in so many parts.
pub(crate) fn size_of(parts: usize) -> Option<TableSize> {
    TableSize::ALL.into_iter().find(|size| size.parts() as usize == parts)
}

/// The slot behind each place. Only addresses and ports decide: which backends are local is another
/// matter on each node.
fn table(set: &[Backend], size: TableSize) -> Vec<u16> {
    let places = size.places() as usize;
    let wants = (places * TENTHS_MAX).div_ceil(10 * set.len().max(1));
    let mut sorted: Vec<(&Backend, u16)> = set.iter().zip(0..).collect();
    sorted.sort_unstable_by_key(|(backend, _)| (backend.address, backend.port));
    let bidder = |(backend, slot)| Bidder { slot, hash: hash(backend), wants };
    let mut bidders: Vec<Bidder> = sorted.into_iter().map(bidder).collect();
    let mut table = vec![None; places];
    let mut free = if bidders.is_empty() { 0 } else { places };
    // It ends: the hashes of all rounds are all there are.
    for round in 1u64.. {
        for bidder in bidders.iter_mut().filter(|bidder| bidder.wants > 0) {
            let place = scale(mix(bidder.hash.wrapping_add(round)), size.places());
            if let Some(place @ None) = table.get_mut(place as usize) {
                *place = Some(bidder.slot);
                bidder.wants -= 1;
                free = free.saturating_sub(1);
            }
        }
        if free == 0 {
            break;
        }
    }
    table.into_iter().map(Option::unwrap_or_default).collect()
}

fn hash(backend: &Backend) -> u64 {
    let [high, low]: [u64; 2] = bytemuck::cast(backend.address);
    let address = avalanche(avalanche(u64::from_be(high)) ^ u64::from_be(low));
    avalanche(address ^ u64::from(u16::from_be_bytes(backend.port)))
}

#[cfg(test)]
mod tests;
