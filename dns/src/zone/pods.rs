//! Pods by their addresses: whether a name made of one is a pod's (`pods verified`), and in which
//! namespace a client is.

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use fairlead_state::{
    model::{Key, Pod},
    snapshot::Snapshot,
};
use imbl::OrdMap;

use super::table::{Place, Table};

/// Pods at one moment. Clones share structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pods {
    by_address: Table<PodAddress>,
    /// What the table was made of.
    known: OrdMap<Key, Arc<Pod>>,
}

/// One address of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PodAddress {
    pod: Arc<Pod>,
    /// Which of the pod's.
    at: u32,
}

impl PodAddress {
    fn address(&self) -> Option<IpAddr> {
        self.pod.ips.get(self.at as usize).copied()
    }
}

impl Place for PodAddress {
    fn order(&self, other: &Self) -> Ordering {
        (self.address(), &self.pod.key).cmp(&(other.address(), &other.pod.key))
    }
}

impl Pods {
    pub(super) fn new() -> Self {
        Self { by_address: Table::new(), known: OrdMap::new() }
    }

    /// A pod as it is now, if it is.
    pub(super) fn replan(&mut self, key: &Key, snapshot: &Snapshot) {
        let (old, new) = (self.known.get(key).cloned(), snapshot.pods().get(key));
        if old.as_ref() == new {
            return;
        }
        for address in old.iter().flat_map(|pod| pod.ips.iter()) {
            self.by_address.retain(address, |known| known.pod.key != *key);
        }
        let Some(pod) = new else { return drop(self.known.remove(key)) };
        for (at, address) in (0_u32..).zip(pod.ips.iter()) {
            self.by_address.insert(address, PodAddress { pod: pod.clone(), at });
        }
        self.known.insert(key.clone(), pod.clone());
    }

    /// Whether a namespace, in lower case, has a pod at an address.
    pub(super) fn has(&self, address: IpAddr, namespace: &[u8]) -> bool {
        let is_there = |pod: &Pod| pod.key.namespace.as_bytes().eq_ignore_ascii_case(namespace);
        self.at(address).any(is_there)
    }

    /// The namespace of the pod at an address. One that pods of several namespaces have at the moment,
    /// or the node has, tells nothing.
    pub(super) fn namespace_of(&self, address: IpAddr) -> Option<&str> {
        let mut pods = self.at(address).filter(|pod| !pod.host_network);
        let namespace = &pods.next()?.key.namespace;
        pods.all(|pod| pod.key.namespace == *namespace).then_some(namespace.as_str())
    }

    fn at(&self, address: IpAddr) -> impl Iterator<Item = &Pod> {
        let all = self.by_address.find(&address);
        all.filter(move |known| known.address() == Some(address)).map(|known| &*known.pod)
    }
}
