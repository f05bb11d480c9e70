//! What the ConfigMaps of TCP and UDP services say, in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use fairlead_state::{Key, Kind, ObjectRef, Snapshot};

use super::{
    super::{
        finding::{Finding, Severity, tell},
        streams::{self, Stream, StreamPort, Streams, Taken, Wish},
    },
    Planner, Touched,
};

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct StreamPlan {
    wishes: BTreeMap<StreamPort, (ObjectRef, Wish)>,
    pub(super) in_force: Arc<Streams>,
    findings: Vec<Finding>,
    /// Ports that cannot be listened on, and why not.
    unbound: BTreeMap<StreamPort, Arc<str>>,
    /// ConfigMaps that have been read.
    known: BTreeSet<Key>,
}

impl StreamPlan {
    /// What of the entries is refused or waits.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.findings.iter().cloned().chain(self.waiting())
    }

    /// Entries whose ports cannot be listened on.
    fn waiting(&self) -> impl Iterator<Item = Finding> {
        self.unbound.iter().filter_map(|(port, why)| {
            let (map, wish) = self.wishes.get(port)?;
            let reason = format!("entry {} ({}): {why}", port.number, wish.key);
            Some(Finding::new(map.clone(), Severity::Waiting, reason))
        })
    }
}

impl Planner {
    /// Takes which ports cannot be listened on by now, and why not.
    pub(crate) fn learn_unbound(&mut self, unbound: BTreeMap<StreamPort, Arc<str>>) {
        if self.streams.unbound == unbound {
            return;
        }
        let old: Vec<Finding> = self.streams.waiting().collect();
        self.streams.unbound = unbound;
        let new: Vec<Finding> = self.streams.waiting().collect();
        tell(&old, &new);
        self.told += 1;
    }

    /// Whether a ConfigMap is one of those two.
    pub(super) fn is_of_streams(&self, key: &Key) -> bool {
        [&self.base.tcp_services, &self.base.udp_services]
            .into_iter()
            .flatten()
            .any(|own| own == key)
    }

    /// Reads both; upstreams they begin or cease to lead to are touched. One that is deleted takes its ports
    /// along, as ingress-nginx has it, where the options' leaves its last ones: either way nothing is open
    /// that was not.
    pub(super) fn read_streams(&mut self, snapshot: &Snapshot, touched: &mut Touched) {
        let mut findings = Vec::new();
        let mut wishes = BTreeMap::new();
        let mut known = self.streams.known.clone();
        for (udp, key) in [(false, &self.base.tcp_services), (true, &self.base.udp_services)] {
            let Some(key) = key else { continue };
            let object = ObjectRef { kind: Kind::ConfigMap, key: key.clone() };
            let mut find = |severity, reason: String| {
                findings.push(Finding::new(object.clone(), severity, reason));
            };
            let Some(map) = snapshot.config_maps().get(key) else {
                let reason = match self.streams.known.contains(key) {
                    false => format!("ConfigMap {key} does not exist"),
                    true => format!(
                        "ConfigMap {key} was deleted: its ports are closed until it is there again; \
                         connections that are open go on"
                    ),
                };
                find(Severity::Waiting, reason);
                continue;
            };
            known.insert(key.clone());
            for entry in streams::read(map, udp, &self.taken_ports()) {
                match entry {
                    Ok((port, wish)) => _ = wishes.insert(port, (object.clone(), wish)),
                    Err(reason) => find(Severity::Refused, reason),
                }
            }
        }
        tell(&self.streams.findings, &findings);
        for (user, wish) in wishes.values() {
            self.use_upstream(&wish.key, user, touched);
        }
        let old = std::mem::replace(&mut self.streams.wishes, wishes);
        for (user, wish) in old.into_values() {
            let is_kept =
                self.streams.wishes.values().any(|(by, new)| *by == user && new.key == wish.key);
            if !is_kept {
                self.leave_upstream(&wish.key, &user, touched);
            }
        }
        (self.streams.findings, self.streams.known) = (findings, known);
        let streams = self.streams.wishes.iter().filter_map(|(port, (_, wish))| {
            let upstream = self.upstreams.get(&wish.key)?.upstream.clone();
            Some((*port, Stream { upstream, proxy: wish.proxy }))
        });
        self.streams.in_force = Arc::new(streams.collect());
    }

    fn taken_ports(&self) -> Taken {
        let listen = self.base.http_listen.iter().chain(&self.base.https_listen);
        let http = listen.map(SocketAddr::port).collect();
        Taken { http, others: self.base.other_ports.clone() }
    }
}
