//! Values by hash, several to a key if need be: a table of small sorted shards, of which a change
//! copies one and shares the rest with the table before. An entry costs four bytes beside its value.

use std::{
    cmp::Ordering,
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::quality::RandomState;

/// Values a shard has on average before their number is doubled.
const SHARD_VALUES_MAX: usize = 32;

/// What can be told apart from another of the same hash.
pub(super) trait Place {
    /// Which comes first; of equal ones the newer takes the older's place.
    fn order(&self, other: &Self) -> Ordering;
}

/// The table at one moment.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    /// Seeded: names are chosen by whoever may create a Service.
    hasher: RandomState,
    /// A power of two of them. A hash's first bits say in which it is.
    shards: Arc<Vec<Shard<T>>>,
    len: usize,
}

/// Sorted by hash, then by [`Place::order`].
type Shard<T> = Arc<Vec<(u32, T)>>;

impl<T: Clone + Place> Table<T> {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::default(), shards: vec![Shard::default()].into(), len: 0 }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every value, in no order that means anything.
    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(_, value)| value))
    }

    /// Values whose key has the hash of this one, and hardly any others: the caller looks.
    pub(super) fn find<'t, K: Hash + ?Sized>(
        &'t self,
        key: &K,
    ) -> impl Iterator<Item = &'t T> + use<'t, T, K> {
        let hash = self.hash(key);
        let shard = self.shards.get(index(hash, self.shards.len()));
        let shard = shard.map_or(&[][..], |shard| shard.as_slice());
        let first = shard.partition_point(|(at, _)| *at < hash);
        let same = shard.get(first..).unwrap_or_default().iter();
        same.take_while(move |(at, _)| *at == hash).map(|(_, value)| value)
    }

    /// Adds a value.
    pub(super) fn insert<K: Hash + ?Sized>(&mut self, key: &K, value: T) {
        if self.len >= self.shards.len() * SHARD_VALUES_MAX {
            self.split();
        }
        let hash = self.hash(key);
        let Some(shard) = self.shard_mut(hash) else { return };
        let order = |(at, known): &(u32, T)| at.cmp(&hash).then_with(|| known.order(&value));
        match shard.binary_search_by(order) {
            Ok(place) => {
                if let Some((_, known)) = shard.get_mut(place) {
                    *known = value;
                }
            }
            Err(place) => {
                // To the byte: a shard grows seldom, and there are thousands.
                shard.reserve_exact(1);
                shard.insert(place, (hash, value));
                self.len += 1;
            }
        }
    }

    /// Takes away those values of a key that are not wanted.
    pub(super) fn retain<K: Hash + ?Sized>(&mut self, key: &K, wanted: impl Fn(&T) -> bool) {
        if self.find(key).all(&wanted) {
            return;
        }
        let hash = self.hash(key);
        let Some(shard) = self.shard_mut(hash) else { return };
        let before = shard.len();
        shard.retain(|(at, value)| *at != hash || wanted(value));
        let gone = before - shard.len();
        self.len -= gone;
    }

    fn hash<K: Hash + ?Sized>(&self, key: &K) -> u32 {
        u32::try_from(self.hasher.hash_one(key) >> u32::BITS).unwrap_or(u32::MAX)
    }

    fn shard_mut(&mut self, hash: u32) -> Option<&mut Vec<(u32, T)>> {
        let shards = Arc::make_mut(&mut self.shards);
        let at = index(hash, shards.len());
        shards.get_mut(at).map(Arc::make_mut)
    }

    /// Each shard becomes two: one more bit of the hash counts.
    fn split(&mut self) {
        let wanted = self.shards.len() * 2;
        let mut halves = Vec::with_capacity(wanted);
        for shard in self.shards.iter() {
            let middle = shard.partition_point(|(hash, _)| index(*hash, wanted).is_multiple_of(2));
            let (low, high) = shard.split_at_checked(middle).unwrap_or_default();
            halves.extend([low, high].map(|half| Arc::new(half.to_vec())));
        }
        self.shards = halves.into();
    }
}

/// The first bits of a hash, as many as tell `shards`, a power of two, apart.
fn index(hash: u32, shards: usize) -> usize {
    let scaled = (u64::from(hash) * shards as u64) >> u32::BITS;
    usize::try_from(scaled).unwrap_or(0)
}

/// Whatever their seeds and in whatever order they were filled.
impl<T: Place + PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && sorted(self) == sorted(other)
    }
}

fn sorted<T: Place>(table: &Table<T>) -> Vec<&T> {
    let all = table.shards.iter().flat_map(|shard| shard.iter());
    let mut values: Vec<_> = all.map(|(_, value)| value).collect();
    values.sort_by(|a, b| a.order(b));
    values
}

impl<T: Place + Eq> Eq for Table<T> {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A value of a key, told apart by its number.
    impl Place for (u16, u8) {
        fn order(&self, other: &Self) -> Ordering {
            self.cmp(other)
        }
    }

    fn table(model: &BTreeSet<(u16, u8)>) -> Table<(u16, u8)> {
        let mut table = Table::new();
        model.iter().rev().for_each(|value| table.insert(&value.0, *value));
        table
    }

    proptest! {
        #[test]
        fn it_holds_what_was_inserted_and_not_taken_away(
            steps in proptest::collection::vec((any::<bool>(), 0..300_u16, 0..3_u8), 0..2000),
        ) {
            let mut model: BTreeMap<u16, BTreeSet<(u16, u8)>> = BTreeMap::new();
            let mut table = Table::new();
            for (is_new, key, number) in steps {
                let value = (key, number);
                if is_new {
                    model.entry(key).or_default().insert(value);
                    table.insert(&key, value);
                } else {
                    model.entry(key).or_default().remove(&value);
                    table.retain(&key, |known| *known != value);
                }
            }
            let all: BTreeSet<_> = model.values().flatten().copied().collect();
            prop_assert_eq!(table.len(), all.len());
            prop_assert_eq!(table.values().copied().collect::<BTreeSet<_>>(), all.clone());
            for (key, values) in &model {
                let found = table.find(key).filter(|(of, _)| of == key).copied();
                prop_assert_eq!(found.collect::<Vec<_>>(), values.iter().copied().collect::<Vec<_>>());
            }
            prop_assert!(table == self::table(&all));
        }
    }

    #[test]
    fn a_change_copies_one_shard_and_shares_the_rest() {
        let before = table(&(0..5000).map(|key| (key, 0)).collect());
        let mut after = before.clone();
        after.insert(&7_u16, (7, 1));
        let shards = before.shards.iter().zip(after.shards.iter());
        assert!(before.shards.len() > 100);
        assert_eq!(shards.filter(|(old, new)| !Arc::ptr_eq(old, new)).count(), 1);
        assert!(before != after && before == table(&(0..5000).map(|key| (key, 0)).collect()));
    }
}
