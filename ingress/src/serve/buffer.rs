//! Bodies held in memory where that is wished, so that a slow client holds no endpoint.
//!
//! nginx writes to a file what its buffers do not take. Nothing is written here: what finds no room
//! goes on as it comes, as all bodies do without the wish.

pub(super) mod ahead;
pub(super) mod whole;

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use bytes::Bytes;

/// Pieces are copied together into blocks: however small one is, it holds all of the room it was read
/// into.
const BLOCK_BYTES_MIN: usize = 4 << 10;
const BLOCK_BYTES_MAX: usize = 16 << 10;

/// What the bodies of one thread may still hold together, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Rc<Purse>);

#[derive(Debug)]
struct Purse {
    left: Cell<usize>,
    /// What is held of it is held of that, too.
    within: Option<Budget>,
}

/// What is held of a budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Budget,
    bytes: usize,
}

/// Where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The body holds as much as it may.
    Body,
    /// All bodies of the thread do.
    Thread,
}

/// Part of a body that was taken from one side and not yet by the other.
#[derive(Debug)]
pub(super) struct Held {
    /// The last one is perhaps not full.
    blocks: VecDeque<Block>,
    bytes: usize,
    bytes_max: usize,
    budget: Budget,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    /// All of its room.
    lease: Lease,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self::of(bytes, None)
    }

    fn of(bytes: usize, within: Option<Budget>) -> Self {
        Self(Rc::new(Purse { left: Cell::new(bytes), within }))
    }

    /// One that takes from this one, `bytes` at most.
    pub(super) fn part(&self, bytes: usize) -> Self {
        Self::of(bytes, Some(self.clone()))
    }

    /// Somebody else has it, or holds something of it.
    pub(super) fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    pub(super) fn lease(&self, bytes: usize) -> Option<Lease> {
        self.take(bytes)?;
        Some(Lease { budget: self.clone(), bytes })
    }

    fn take(&self, bytes: usize) -> Option<()> {
        let left = self.0.left.get().checked_sub(bytes)?;
        if let Some(within) = &self.0.within {
            within.take(bytes)?;
        }
        self.0.left.set(left);
        Some(())
    }

    fn give_back(&self, bytes: usize) {
        self.0.left.set(self.0.left.get() + bytes);
        if let Some(within) = &self.0.within {
            within.give_back(bytes);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

impl Held {
    pub(super) fn new(budget: &Budget, bytes_max: usize) -> Self {
        Self { blocks: VecDeque::new(), bytes: 0, bytes_max, budget: budget.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Takes what there is room for; what is left of `data` found none.
    pub(super) fn push(&mut self, data: &mut Bytes) -> Result<(), Full> {
        while !data.is_empty() {
            let left = self.bytes_max.saturating_sub(self.bytes);
            if left == 0 {
                return Err(Full::Body);
            }
            match self.blocks.back_mut().filter(|block| block.spare() > 0) {
                Some(block) => {
                    let taken = block.spare().min(data.len()).min(left);
                    block.bytes.extend_from_slice(&data.split_to(taken));
                    self.bytes += taken;
                }
                None => {
                    let room = data.len().clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX).min(left);
                    let lease = self.budget.lease(room).ok_or(Full::Thread)?;
                    self.blocks.push_back(Block { bytes: Vec::with_capacity(room), lease });
                }
            }
        }
        Ok(())
    }

    /// The oldest of it, which is held no longer.
    fn pop(&mut self) -> Option<Bytes> {
        let block = self.blocks.pop_front()?;
        self.bytes -= block.bytes.len();
        Some(block.bytes.into())
    }

    /// All of it, held on.
    fn into_blocks(self) -> impl Iterator<Item = (Bytes, Lease)> {
        self.blocks.into_iter().map(|block| (block.bytes.into(), block.lease))
    }
}

impl Block {
    fn spare(&self) -> usize {
        self.lease.bytes - self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_held_to_its_bound_and_comes_out_as_it_went_in() {
        const MUCH: usize = 1 << 20;
        for (pieces, bytes_max, budget, expected, taken) in [
            (&[10][..], 10, MUCH, Ok(()), 10),
            (&[11], 10, MUCH, Err(Full::Body), 10),
            (&[6, 6], 10, MUCH, Err(Full::Body), 10),
            (&[1; 10_000], 10_000, MUCH, Ok(()), 10_000),
            (&[1; 10_000], 9_999, MUCH, Err(Full::Body), 9_999),
            (&[40_000, 1, 30_000], 70_001, MUCH, Ok(()), 70_001),
            (&[40_000, 1, 30_000], 70_000, MUCH, Err(Full::Body), 70_000),
            (&[0, 0], 0, 0, Ok(()), 0),
            (&[1], 0, MUCH, Err(Full::Body), 0),
            (&[1], 10, 9, Err(Full::Thread), 0),
            (&[20_000], 20_000, 16_384, Err(Full::Thread), 16_384),
            (&[20_000], 20_000, 20_000, Ok(()), 20_000),
        ] {
            let budget = Budget::new(budget);
            let before = budget.0.left.get();
            let mut held = Held::new(&budget, bytes_max);
            let (mut sent, mut pushed) = (Vec::new(), Ok(()));
            for (piece, byte) in pieces.iter().zip((0..=u8::MAX).cycle()) {
                let piece = vec![byte; *piece];
                sent.extend_from_slice(&piece);
                pushed = pushed.and(held.push(&mut piece.into()));
            }
            assert_eq!((pushed, held.bytes), (expected, taken), "{bytes_max}");
            let is_charged = before - budget.0.left.get() >= taken;
            assert!(is_charged, "{bytes_max}");
            let mut out = Vec::new();
            while let Some(block) = held.pop() {
                out.extend_from_slice(&block);
            }
            assert_eq!(out, sent[..taken], "{bytes_max}");
            assert_eq!((held.bytes, budget.0.left.get()), (0, before), "{bytes_max}");
        }
    }

    #[test]
    fn attack_a_body_byte_by_byte_holds_no_more_than_it_is_charged_for() {
        let budget = Budget::new(1 << 20);
        let mut held = Held::new(&budget, 1 << 20);
        let room = Bytes::from(vec![0; 128 << 10]);
        for at in 0..1_000 {
            held.push(&mut room.slice(at..=at)).unwrap();
        }
        let blocks: Vec<usize> = held.blocks.iter().map(|block| block.bytes.capacity()).collect();
        assert_eq!(blocks, [BLOCK_BYTES_MIN]);
        assert_eq!(budget.0.left.get(), (1 << 20) - BLOCK_BYTES_MIN);
        assert!(room.is_unique(), "none of the room it came in");
    }

    #[test]
    fn what_is_dropped_is_room_for_others() {
        let budget = Budget::new(10_000);
        let mut one = Held::new(&budget, 10_000);
        let mut other = Held::new(&budget, 10_000);
        assert_eq!(one.push(&mut vec![1; 8_000].into()), Ok(()));
        let mut data = Bytes::from(vec![2; 8_000]);
        assert_eq!(other.push(&mut data), Err(Full::Thread));
        assert_eq!(data.len(), 8_000, "a block is whole or not there");
        let kept: Vec<_> = one.into_blocks().collect();
        assert_eq!(other.push(&mut data), Err(Full::Thread), "it is held on");
        drop(kept);
        assert_eq!(other.push(&mut data), Ok(()));
        drop(other);
        assert_eq!(budget.0.left.get(), 10_000);
    }

    #[test]
    fn what_is_held_of_a_part_is_held_of_the_whole() {
        let whole = Budget::new(10);
        let (one, other) = (whole.part(6), whole.part(6));
        let left = || [&whole, &one, &other].map(|budget| budget.0.left.get());
        assert!(one.lease(7).is_none());
        let first = one.lease(6).unwrap();
        assert!(one.lease(1).is_none());
        assert!(other.lease(5).is_none(), "the whole has less than its part");
        assert_eq!(left(), [4, 0, 6]);
        let second = other.lease(4).unwrap();
        assert_eq!(left(), [0, 0, 2]);
        drop(first);
        assert_eq!(left(), [6, 6, 2]);
        drop(second);
        assert_eq!(left(), [10, 6, 6]);
    }
}
