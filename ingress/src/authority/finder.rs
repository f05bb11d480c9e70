//! Finds the addresses of hosts that an Ingress' URLs name, beside who serves. A look-up is a thread that
//! waits for the resolver and cannot be called back, so they are few at once, and namespaces have them by
//! turns: whoever names hosts that nobody answers for keeps neither threads nor the processor from others.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use fairlead_state::{Key, Name};
use ipnetwork::IpNetwork;
use tokio::sync::Semaphore;

use crate::{
    config::IngressConfig,
    fair::Queue,
    routes::{Inside, Interfaces, Looked, Own, kept, reachable},
};

/// Look-ups at once for one Ingress' URLs.
const AT_ONCE: usize = 4;
/// Look-ups of one Ingress' URLs that wait for their turn, or are under way; more find nothing.
const WAITING_MAX: usize = 64;
/// Look-ups at once in the whole process. One that nobody answers takes many seconds, longer than a request
/// waits, so that each namespace is to find a place at once: with [`Queue`] six of them may take all they can.
const OF_ALL_AT_ONCE: usize = 64;

static OF_ALL: LazyLock<Queue> = LazyLock::new(|| Queue::new(OF_ALL_AT_ONCE));

/// Addresses that may be asked, or why there are none.
pub(super) type Found = Looked;

type Resolve = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;

/// Finds them for one annotation of one Ingress.
#[derive(Clone)]
pub(crate) struct Finder {
    ingress: Key,
    annotation: &'static str,
    inside_allowed: Arc<[IpNetwork]>,
    own_ports: Arc<[u16]>,
    /// The log says once that it leads nowhere.
    is_told: Arc<AtomicBool>,
    waiting: Arc<Semaphore>,
    own: Arc<Semaphore>,
    of_all: Queue,
    resolve: Arc<Resolve>,
    interfaces: Interfaces,
}

impl Finder {
    /// For an annotation's URL.
    pub(crate) fn new(config: &IngressConfig, ingress: &Key, annotation: &'static str) -> Self {
        let listening = config.http_listen.iter().chain(&config.https_listen);
        Self {
            ingress: ingress.clone(),
            annotation,
            inside_allowed: config.inside_allowed.clone().into(),
            own_ports: listening.map(SocketAddr::port).collect(),
            is_told: Arc::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            own: Arc::new(Semaphore::new(AT_ONCE)),
            of_all: OF_ALL.clone(),
            interfaces: Interfaces::of_node(),
            resolve: Arc::new(|host: &str| {
                Ok((&*whole(host), 0).to_socket_addrs()?.map(|at| at.ip()).collect())
            }),
        }
    }

    /// Tells what was found once it is. Where too many wait, or the thread ends before, `tell` is dropped.
    pub(super) fn find(
        &self,
        host: Box<str>,
        port: u16,
        tell: impl FnOnce(Found) + Send + 'static,
    ) {
        let address = host.parse::<IpAddr>().ok();
        if let Some(ip) = address
            && let Some(own) = self.interfaces.known()
        {
            return tell(self.allowed(own, &[ip], port));
        }
        let Ok(waiting) = self.waiting.clone().try_acquire_owned() else { return };
        let finder = self.clone();
        if let Some(ip) = address {
            // No look-up: the kernel alone is waited for.
            tokio::task::spawn_blocking(move || {
                let _counted = waiting;
                let own = finder.interfaces.addresses();
                tell(own.and_then(|own| finder.allowed(own, &[ip], port)));
            });
            return;
        }
        tokio::spawn(async move {
            let own = finder.own.clone().acquire_owned().await;
            let of_all = finder.of_all.place(finder.namespace()).await;
            tokio::task::spawn_blocking(move || {
                // Who asked may be gone; the thread is not.
                let _counted = (waiting, own, of_all);
                tell(finder.look_up(&host, port));
            });
        });
    }

    /// Whether what it finds is what this one would find, for the same annotation.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.inside_allowed == other.inside_allowed && self.own_ports == other.own_ports
    }

    /// Whoever asks for a look-up now gets none.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.available_permits() == 0
    }

    /// The Ingress's.
    pub(super) fn namespace(&self) -> &Name {
        &self.ingress.namespace
    }

    /// Why a host that is an address leads nowhere. Waits for the kernel.
    pub(super) fn problem(&self, host: &str, port: u16) -> Option<Arc<str>> {
        let ip = host.parse().ok()?;
        let problem = kept(self.interfaces.addresses().ok()?, &self.inside(), ip, port)?;
        // Whoever is told here need not read it in the log again.
        self.is_told.store(true, Relaxed);
        Some(format!("{} leads nowhere: {problem}", self.annotation).into())
    }

    fn inside(&self) -> Inside<'_> {
        Inside { networks: &self.inside_allowed, own_ports: &self.own_ports }
    }

    fn look_up(&self, host: &str, port: u16) -> Found {
        let found = (self.resolve)(host).map_err(|error| error.to_string())?;
        self.allowed(self.interfaces.addresses()?, &found, port)
    }

    fn allowed(&self, own: Own, found: &[IpAddr], port: u16) -> Found {
        let reached = reachable(own, &self.inside(), found, port);
        if let Err(reason) = &reached
            && !self.is_told.swap(true, Relaxed)
        {
            tracing::warn!("{}: annotation {}: {reason}", self.ingress, self.annotation);
        }
        reached
    }
}

/// As for Services' external names: without its last dot `auth.example.com` would be looked for in the cluster first
/// (resolv.conf's `search`), where it is a pod of Service `example` in whoever's namespace `com`. `auth.shop.svc` lives by that.
fn whole(host: &str) -> Cow<'_, str> {
    if !host.contains('.') || host.ends_with('.') || host.ends_with(".svc") {
        return Cow::Borrowed(host);
    }
    Cow::Owned(format!("{host}."))
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Finder");
        let shown = shown.field("ingress", &self.ingress).field("annotation", &self.annotation);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Finder {
    /// One of an Ingress of this namespace, that asks `resolve`, with `of_all` places for everybody.
    pub(super) fn asking(
        of_all: &Queue,
        namespace: &str,
        interfaces: &Interfaces,
        resolve: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let config = IngressConfig {
            inside_allowed: vec![IpNetwork::from(IpAddr::from([127, 0, 0, 1]))],
            ..IngressConfig::default()
        };
        let new = Self::new(&config, &Key::new(namespace, "web"), "auth-url");
        let (of_all, interfaces) = (of_all.clone(), interfaces.clone());
        Self { of_all, interfaces, resolve: Arc::new(resolve), ..new }
    }

    /// One that may lead there alone.
    pub(super) fn allowing(self, network: &str) -> Self {
        Self { inside_allowed: Arc::new([network.parse().unwrap()]), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_no_pod_in_a_namespace_called_com_stands_for_a_host_outside() {
        for (host, asked) in [
            ("auth.example.com", "auth.example.com."),
            ("auth.shop.svc.cluster.local", "auth.shop.svc.cluster.local."),
            ("auth.example.com.", "auth.example.com."),
            ("auth.shop.svc", "auth.shop.svc"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(whole(host), asked);
        }
    }
}
