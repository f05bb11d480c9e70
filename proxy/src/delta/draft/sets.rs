//! The sets of backends that a service needs.

use std::{collections::hash_map::Entry, sync::Arc};

use fairlead_ebpf::abi::TableSize;

use crate::{hash::FastMap, plan::BackendSet};

/// By where the plan keeps a set: it keeps each content once.
pub(super) type SetIds = FastMap<*const BackendSet, u32>;
/// By content.
pub(super) type KnownSets<'a> = FastMap<(&'a BackendSet, Option<TableSize>), u32>;

/// Sets that a service needs, and what of them is new.
#[derive(Debug, Default)]
pub(super) struct Sets<'w> {
    pub(super) ids: SetIds,
    pub(super) new: Vec<(&'w BackendSet, Option<TableSize>)>,
    pub(super) shared: Vec<(u32, BackendSet)>,
    pub(super) slots: usize,
    pub(super) parts: usize,
}

impl<'w> Sets<'w> {
    pub(super) fn add(
        &mut self,
        set: &'w BackendSet,
        table: Option<TableSize>,
        known: &KnownSets<'_>,
    ) {
        let Entry::Vacant(entry) = self.ids.entry(std::ptr::from_ref(set)) else { return };
        let same = known.get_key_value(&(set, table)).map(|((held, _), id)| (*held, *id));
        match same {
            Some((held, id)) if !Arc::ptr_eq(held, set) => self.shared.push((id, set.clone())),
            Some(_) => {}
            None => {
                self.slots += set.len();
                self.parts += table.map_or(0, |size| size.parts() as usize);
                self.new.push((set, table));
            }
        }
        entry.insert(same.map_or(0, |(_, id)| id));
    }

    /// The ids of those that are there already.
    pub(super) fn without_new(self) -> SetIds {
        let mut ids = self.ids;
        for (set, _) in self.new {
            ids.remove(&std::ptr::from_ref(set));
        }
        ids
    }
}
