//! Who is who in what the programs tell: numbers and addresses, by name.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_proxy::{
    ProxyStatus,
    live::{Hook, Outcome, Reason, Told},
    namespaces,
};
use fairlead_state::{Key, Name, Snapshot, model::Protocol};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::report::trace::live::{Event, Line, why};

/// Between two searches for the namespace of a socket.
const SEARCH_PAUSE: Duration = Duration::from_secs(2);
/// Between two readings of the pods' addresses.
const PODS_PAUSE: Duration = Duration::from_secs(1);

/// What is known.
#[derive(Debug)]
pub(super) struct Who {
    node_name: Name,
    status: watch::Receiver<ProxyStatus>,
    /// `NAMESPACE/POD`, or the node's name.
    names: HashMap<IpAddr, String>,
    /// Addresses by the cookie of their namespace.
    namespaces: HashMap<u64, Vec<IpAddr>>,
    /// The snapshot's revision, and when it was read.
    read: Option<(u64, Instant)>,
    searched: Option<Instant>,
}

impl Who {
    pub(super) fn new(node_name: Name, status: watch::Receiver<ProxyStatus>) -> Self {
        let (names, namespaces) = (HashMap::new(), HashMap::new());
        Self { node_name, status, names, namespaces, read: None, searched: None }
    }

    /// Looks up what these would be told without.
    pub(super) async fn learn(&mut self, snapshot: Option<Arc<Snapshot>>, told: &[Told]) {
        let now = Instant::now();
        let is_over = |at: Instant, pause| now.duration_since(at) >= pause;
        let newer = snapshot.filter(|snapshot| {
            self.read.is_none_or(|(revision, at)| {
                revision != snapshot.revision() && is_over(at, PODS_PAUSE)
            })
        });
        // A pod that begins has no address for a moment.
        let is_unknown = |told: &Told| {
            let caller = told.caller.as_ref();
            let known = caller.map(|caller| self.namespaces.get(&caller.netns_cookie));
            known.is_some_and(|addresses| addresses.is_none_or(Vec::is_empty))
        };
        let is_searched =
            told.iter().any(is_unknown) && self.searched.is_none_or(|at| is_over(at, SEARCH_PAUSE));
        if newer.is_none() && !is_searched {
            return;
        }
        let node_name = self.node_name.clone();
        // A large cluster, and a node with many namespaces, are no work for a thread that watches.
        let look_up = move || {
            let names = newer.map(|snapshot| (snapshot.revision(), names(&snapshot, &node_name)));
            (names, is_searched.then(namespaces::read))
        };
        let Ok((names, found)) = tokio::task::spawn_blocking(look_up).await else { return };
        if let Some((revision, names)) = names {
            self.names = names;
            self.read = Some((revision, now));
        }
        if let Some(found) = found {
            self.searched = Some(now);
            let found = found.into_iter();
            self.namespaces = found.map(|found| (found.cookie, found.addresses)).collect();
        }
    }

    /// A decision as it is shown.
    pub(super) fn event(&self, told: &Told) -> Line {
        let (client, client_name) = match (&told.caller, told.client) {
            (Some(caller), _) => self.caller(caller.netns_cookie, told.dialled),
            (None, Some(client)) => (Some(shown(client)), self.name(client.ip())),
            (None, None) => (None, None),
        };
        let (verdict, backend) = match told.outcome {
            Outcome::Served(backend) => ("served", Some(backend)),
            Outcome::Rejected => ("reject", None),
            Outcome::Dropped => ("drop", None),
        };
        let owner = |id| self.status.borrow().counter_owners.get(&id).map(Key::to_string);
        let reason = told.reason.map(Reason::as_str);
        Line::Event(Box::new(Event {
            time: time(told.at_ns),
            at: at(told.hook).to_owned(),
            client,
            client_name,
            pid: told.caller.as_ref().map(|caller| caller.pid),
            process: told.caller.as_ref().map(|caller| caller.name.clone()),
            protocol: told.protocol.as_ref().map(Protocol::to_string),
            frontend: shown(told.dialled),
            service: owner(told.counter_id),
            verdict: verdict.to_owned(),
            backend: backend.map(shown),
            pod: backend.and_then(|backend| self.name(backend.ip())),
            reason: reason.map(str::to_owned),
            why: reason.map(|reason| why(reason).to_owned()),
        }))
    }

    /// The address a socket of this namespace will likely have, and whose it is.
    fn caller(&self, cookie: u64, dialled: SocketAddr) -> (Option<String>, Option<String>) {
        let Some(addresses) = self.namespaces.get(&cookie) else { return (None, None) };
        let fits = |address: &&IpAddr| address.is_ipv4() == dialled.is_ipv4();
        let mut own = addresses.iter().filter(fits);
        let named = own.clone().find(|address| self.names.contains_key(address));
        let address = named.or_else(|| own.next());
        let name = addresses.iter().find_map(|address| self.name(*address));
        (address.map(ToString::to_string), name)
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        self.names.get(&address).cloned()
    }
}

/// Pods and the node by address. What has the node's address is the node.
fn names(snapshot: &Snapshot, node_name: &str) -> HashMap<IpAddr, String> {
    let mut names = HashMap::new();
    for slice in snapshot.endpoint_slices().values() {
        for endpoint in slice.endpoints.iter() {
            let Some(pod) = &endpoint.pod else { continue };
            let name = format!("{}/{pod}", slice.key.namespace);
            names.extend(endpoint.addresses.iter().map(|address| (*address, name.clone())));
        }
    }
    for pod in snapshot.pods().values().filter(|pod| !pod.host_network) {
        names.extend(pod.ips.iter().map(|address| (*address, pod.key.to_string())));
    }
    if let Some(node) = snapshot.nodes().get(&Key::new("", node_name)) {
        names.extend(node.addresses.iter().map(|address| (*address, node_name.to_owned())));
    }
    names
}

fn at(hook: Hook) -> &'static str {
    match hook {
        Hook::Socket => "socket",
        Hook::Pod => "pod",
        Hook::Uplink => "uplink",
        Hook::Egress => "egress",
    }
}

/// Without a port that is not known.
fn shown(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

/// RFC 3339 of what the monotonic clock showed.
fn time(at_ns: u64) -> String {
    let clock = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let age = clock.saturating_sub(Duration::from_nanos(at_ns));
    let now = Timestamp::now();
    format!("{:.3}", now.checked_sub(age).unwrap_or(now))
}
