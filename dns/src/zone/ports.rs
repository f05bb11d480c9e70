//! Port numbers of one name, each once: whoever may create a Service chooses how many there are.

/// So many are compared one by one; hardly any Service has more.
const FEW: usize = 16;
const WORD_BITS: u16 = 64;
const WORDS: usize = (1 << 16) / 64;

/// Which numbers were there before. A look takes the same time however many there are, and no memory
/// is asked for.
#[derive(Debug)]
pub(crate) struct SeenPorts {
    few: [u16; FEW],
    count: usize,
    /// A bit for each number, once there are many.
    many: Option<[u64; WORDS]>,
}

impl SeenPorts {
    pub(crate) fn new() -> Self {
        Self { few: [0; FEW], count: 0, many: None }
    }

    /// Whether a number comes for the first time.
    fn is_new(&mut self, port: u16) -> bool {
        if let Some(bits) = &mut self.many {
            return set(bits, port);
        }
        if self.few.iter().take(self.count).any(|known| *known == port) {
            return false;
        }
        if let Some(place) = self.few.get_mut(self.count) {
            *place = port;
            self.count += 1;
        } else {
            let bits = self.many.insert([0; WORDS]);
            for known in self.few.iter().chain([&port]) {
                set(bits, *known);
            }
        }
        true
    }
}

/// Each number once, where it comes first.
pub(crate) fn distinct(
    ports: impl Iterator<Item = u16>,
    seen: &mut SeenPorts,
) -> impl Iterator<Item = u16> {
    ports.filter(|port| seen.is_new(*port))
}

/// Sets a number's bit; whether it was not set before.
fn set(bits: &mut [u64; WORDS], port: u16) -> bool {
    let Some(word) = bits.get_mut(usize::from(port / WORD_BITS)) else { return false };
    let before = *word;
    *word |= 1_u64 << (port % WORD_BITS);
    *word != before
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_number_comes_once_where_it_was_first(
            ports in proptest::collection::vec(prop_oneof![0..40_u16, any::<u16>()], 0..400),
        ) {
            let mut known = BTreeSet::new();
            let wanted: Vec<_> = ports.iter().copied().filter(|port| known.insert(*port)).collect();
            let found: Vec<_> = distinct(ports.into_iter(), &mut SeenPorts::new()).collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn the_work_grows_with_the_numbers_not_with_their_square() {
        let looked = Cell::new(0_usize);
        let all = (0..=u16::MAX).cycle().take(4 << 16).inspect(|_| looked.set(looked.get() + 1));
        let mut seen = SeenPorts::new();
        assert_eq!(distinct(all, &mut seen).count(), 1 << 16);
        // Each was looked at once, and what is known of the others never grows.
        assert_eq!(looked.get(), 4 << 16);
        assert!(size_of_val(&seen) < 8300);
    }
}
