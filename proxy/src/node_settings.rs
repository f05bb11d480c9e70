//! The one entry of the map `settings`, of which several write a part each.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytemuck::Zeroable as _;
use fairlead_ebpf::abi::{SETTINGS_INDEX, Settings};

use crate::sys::Table;

/// The settings the programs read.
#[derive(Debug)]
pub(crate) struct NodeSettings {
    table: Table<u32, Settings>,
    /// Whoever changes a part reads the rest first.
    changing: Arc<Mutex<()>>,
}

impl NodeSettings {
    pub(crate) fn new(table: Table<u32, Settings>) -> Self {
        Self { table, changing: Arc::default() }
    }

    /// Changes by this one and by the other do not overwrite each other.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { table: self.table.try_clone()?, changing: self.changing.clone() })
    }

    /// As they are; all zero before the first change.
    pub(crate) fn read(&self) -> io::Result<Settings> {
        Ok(self.table.get(&SETTINGS_INDEX)?.unwrap_or_else(Settings::zeroed))
    }

    /// Makes of what is there what shall be there.
    pub(crate) fn change(&self, change: impl FnOnce(&Settings) -> Settings) -> io::Result<()> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.put_one(&SETTINGS_INDEX, &change(&self.read()?))
    }
}
