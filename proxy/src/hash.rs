//! Hash maps for bookkeeping that is walked and probed hundreds of thousands of times a pass.

use std::collections::{HashMap, HashSet};

/// Seeded per process: addresses and ports are chosen by users of the cluster.
pub(crate) type FastState = foldhash::fast::RandomState;
/// By [`FastState`].
pub(crate) type FastMap<K, V> = HashMap<K, V, FastState>;
/// As [`FastMap`].
pub(crate) type FastSet<K> = HashSet<K, FastState>;
