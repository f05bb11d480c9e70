//! The next zone from the one before and a snapshot: what changed, and nothing else, is computed
//! anew.

use std::sync::Arc;

use fairlead_state::{
    change::Dirty,
    model::{Key, Name, Service},
    snapshot::{Changes, Snapshot},
};

use super::{
    Known, Origin, Presence, Zone,
    authority::Authority,
    imports::{ImportNames, SERVERS_MAX, nameless},
    name_servers,
    outside::Outside,
    reverse::Pointer,
    service::ServiceNames,
    service_key,
};

/// Time to live of names of an earlier run, in seconds: as RFC 8767 §4 has it for stale data, or
/// less.
const STAND_IN_TTL_SECONDS: u32 = 5;

impl Zone {
    /// The names at `snapshot`; `serial` is that of the SOA records.
    pub(crate) fn updated(&self, snapshot: &Snapshot, serial: u32) -> Self {
        let handled = self.revision().unwrap_or(0);
        let mut zone = match snapshot.changes_since(handled) {
            Changes::Some(dirty) if self.revision().is_some() => {
                let mut zone = self.clone();
                dirty.iter().for_each(|dirty| zone.replan(dirty, snapshot));
                zone
            }
            _ => Self::of_all(self, snapshot, serial),
        };
        zone.known = Known::At(snapshot.revision());
        zone.publish(serial);
        zone
    }

    /// The names of an earlier run's snapshot, until there is a new one. They are good for a moment
    /// only, so that what has changed since is asked for again soon.
    pub(crate) fn stand_in(&self, snapshot: &Snapshot, serial: u32) -> Self {
        let ttl_seconds = self.origin.ttl_seconds.min(STAND_IN_TTL_SECONDS);
        let negative_ttl_seconds = self.origin.negative_ttl_seconds.min(ttl_seconds);
        let origin = Origin { ttl_seconds, negative_ttl_seconds, ..(*self.origin).clone() };
        let mut zone = Self::renewed(origin.into(), snapshot, serial);
        zone.known = Known::Kept;
        zone
    }

    /// All names at `snapshot`, by other settings.
    pub(crate) fn renewed(origin: Arc<Origin>, snapshot: &Snapshot, serial: u32) -> Self {
        let unsynced = Self::unsynced(origin, serial);
        unsynced.updated(snapshot, serial)
    }

    fn of_all(&self, snapshot: &Snapshot, serial: u32) -> Self {
        let mut zone = Self::unsynced(self.origin.clone(), serial);
        for key in snapshot.namespaces().keys() {
            zone.replan_namespace(key, snapshot);
        }
        for key in snapshot.services().keys() {
            zone.replan_service(key, snapshot);
        }
        for key in snapshot.service_imports().keys() {
            zone.replan_import(key, snapshot);
        }
        for key in snapshot.pods().keys() {
            zone.pods.replan(key, snapshot);
        }
        zone
    }

    fn replan(&mut self, dirty: &Dirty, snapshot: &Snapshot) {
        match dirty {
            Dirty::Service(key) => self.replan_service(key, snapshot),
            Dirty::Namespace(key) => {
                self.replan_namespace(key, snapshot);
                self.replan_within(&key.name, snapshot);
            }
            Dirty::ServiceImport(key) => self.replan_import(key, snapshot),
            Dirty::Pod(key) => self.pods.replan(key, snapshot),
            _ => {}
        }
    }

    /// Whether names of a namespace are served.
    fn shows_namespace(&self, name: &Name, snapshot: &Snapshot) -> bool {
        let wanted = self.origin.namespace_labels.as_ref().is_none_or(|wanted| {
            let namespace = snapshot.namespaces().get(&Key::new("", name.clone()));
            namespace.is_some_and(|namespace| wanted.holds(&namespace.labels))
        });
        wanted && self.origin.has_namespace(name)
    }

    fn shows(&self, service: &Service, snapshot: &Snapshot) -> bool {
        let wanted = self.origin.service_labels.as_ref();
        wanted.is_none_or(|wanted| wanted.holds(&service.extras.labels))
            && self.shows_namespace(&service.key.namespace, snapshot)
    }

    /// What a namespace's labels decide about.
    fn replan_within(&mut self, namespace: &Name, snapshot: &Snapshot) {
        if self.origin.namespace_labels.is_none() {
            return;
        }
        let first = Key::new(namespace.clone(), "");
        let is_within = |key: &&Key| key.namespace == *namespace;
        let services = snapshot.services().range(first.clone()..).map(|(key, _)| key);
        for key in services.take_while(is_within) {
            self.replan_service(key, snapshot);
        }
        let imports = snapshot.service_imports().range(first..).map(|(key, _)| key);
        for key in imports.take_while(is_within) {
            self.replan_import(key, snapshot);
        }
    }

    fn replan_namespace(&mut self, key: &Key, snapshot: &Snapshot) {
        let exists =
            snapshot.namespaces().contains_key(key) && self.shows_namespace(&key.name, snapshot);
        self.with_presence(&key.name, |presence| presence.object = exists);
    }

    fn replan_import(&mut self, key: &Key, snapshot: &Snapshot) {
        let origin = self.origin.clone();
        let (Some(domain), Some(wire)) = (&origin.set, service_key(&key.name, &key.namespace))
        else {
            return;
        };
        let import = snapshot.service_imports().get(key);
        let import = import.filter(|_| self.shows_namespace(&key.namespace, snapshot));
        let names = import.and_then(|import| {
            ImportNames::of(&origin, domain, &wire, import, snapshot.slices_of_import(key))
        });
        let left_out = names.as_ref().map_or(0, |names| names.left_out);
        let old = match names {
            Some(names) => self.imports.insert(wire, names.into()),
            None => self.imports.remove(&wire),
        };
        if left_out > 0 && old.is_none_or(|old| old.left_out == 0) {
            tracing::warn!(
                "DNS: ServiceImport {key}: {} in the cluster set, beyond {SERVERS_MAX} with their ports: \
                 export fewer of them, or divide the Service",
                nameless(left_out)
            );
        }
    }

    fn replan_service(&mut self, key: &Key, snapshot: &Snapshot) {
        // A name that is no label cannot be asked for.
        let Some(wire) = service_key(&key.name, &key.namespace) else { return };
        let service = snapshot.services().get(key);
        let service = service.filter(|service| self.shows(service, snapshot));
        match service.and_then(|service| Outside::of(service)) {
            Some(outside) => drop(self.outside.insert(wire.clone(), outside.into())),
            None => drop(self.outside.remove(&wire)),
        }
        let names = service.and_then(|service| {
            ServiceNames::of(&self.origin, &wire, service, snapshot.slices_of(key))
        });
        let is_it = |names: &&ServiceNames| names.service.key == *key;
        let old = self.services.find(&*wire).find(is_it).cloned();
        if old == names {
            return;
        }
        match &names {
            Some(names) => self.services.insert(&*wire, names.clone()),
            None => self.services.retain(&*wire, |names| !is_it(&names)),
        }
        old.iter().for_each(|old| self.unlink_addresses(old));
        names.iter().for_each(|new| self.link_addresses(new));
        let (before, now) = (usize::from(old.is_some()), usize::from(names.is_some()));
        self.with_presence(&key.namespace, |presence| {
            presence.services = (presence.services + now).saturating_sub(before);
        });
    }

    /// Changes why a namespace's names exist; without a reason they do not.
    fn with_presence(&mut self, namespace: &str, change: impl FnOnce(&mut Presence)) {
        let name: Arc<[u8]> = namespace.to_ascii_lowercase().into_bytes().into();
        let mut presence = self.namespaces.get(&name).copied().unwrap_or_default();
        change(&mut presence);
        if presence == Presence::default() {
            self.namespaces.remove(&name);
        } else {
            self.namespaces.insert(name, presence);
        }
    }

    fn link_addresses(&mut self, names: &ServiceNames) {
        for (address, whose) in names.addresses() {
            self.reverse.insert(&address, Pointer { names: names.clone(), whose });
        }
    }

    fn unlink_addresses(&mut self, names: &ServiceNames) {
        for (address, _) in names.addresses() {
            self.reverse.retain(&address, |p| p.names.service.key != names.service.key);
        }
    }

    fn publish(&mut self, serial: u32) {
        let origin = self.origin.clone();
        self.name_servers = name_servers(&origin, self.dns_service());
        self.authority = Authority::new(&origin.name, &origin, serial);
        let set = origin.set.as_ref();
        self.set_authority = set.map(|set| Authority::new(&set.name, &origin, serial));
        let reverse = origin.reverse.iter();
        self.reverse_authorities =
            reverse.map(|zone| Authority::new(&zone.name, &origin, serial)).collect();
    }
}
