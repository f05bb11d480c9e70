//! Finds the addresses of hosts that an Ingress' URLs name, beside who serves. A look-up is a thread that
//! waits for the resolver and cannot be called back, so they are few at once: whoever names hosts that
//! nobody answers for keeps neither threads nor the processor from others.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use fairlead_state::Key;
use ipnetwork::IpNetwork;
use tokio::sync::Semaphore;

use crate::{
    config::IngressConfig,
    routes::{Inside, Looked, reachable},
};

/// Look-ups at once for one Ingress' URLs.
const AT_ONCE: usize = 4;
/// Look-ups of one Ingress' URLs that wait for their turn, or are under way; more find nothing.
const WAITING_MAX: usize = 64;
/// Look-ups at once in the whole process.
const OF_ALL_AT_ONCE: usize = 64;

static OF_ALL: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(OF_ALL_AT_ONCE)));

/// Addresses that may be asked, or why there are none.
pub(super) type Found = Looked;

type Resolve = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;

/// Finds them for one annotation of one Ingress.
#[derive(Clone)]
pub(crate) struct Finder {
    who: Arc<str>,
    inside_allowed: Arc<[IpNetwork]>,
    own_ports: Arc<[u16]>,
    /// The log says once that it leads nowhere.
    is_told: Arc<AtomicBool>,
    waiting: Arc<Semaphore>,
    own: Arc<Semaphore>,
    of_all: Arc<Semaphore>,
    resolve: Arc<Resolve>,
}

impl Finder {
    /// For an annotation's URL.
    pub(crate) fn new(config: &IngressConfig, ingress: &Key, annotation: &str) -> Self {
        let listening = config.http_listen.iter().chain(&config.https_listen);
        Self {
            who: format!("{ingress}: annotation {annotation}").into(),
            inside_allowed: config.inside_allowed.clone().into(),
            own_ports: listening.map(SocketAddr::port).collect(),
            is_told: Arc::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            own: Arc::new(Semaphore::new(AT_ONCE)),
            of_all: OF_ALL.clone(),
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
        // An address needs no look-up, and nobody to wait for.
        if let Ok(ip) = host.parse() {
            return tell(self.allowed(&[ip], port));
        }
        let Ok(waiting) = self.waiting.clone().try_acquire_owned() else { return };
        let finder = self.clone();
        tokio::spawn(async move {
            let own = finder.own.clone().acquire_owned().await;
            let of_all = finder.of_all.clone().acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                // Who asked may be gone; the thread is not.
                let _counted = (waiting, own, of_all);
                tell(finder.look_up(&host, port));
            });
        });
    }

    fn look_up(&self, host: &str, port: u16) -> Found {
        let found = (self.resolve)(host).map_err(|error| error.to_string())?;
        self.allowed(&found, port)
    }

    fn allowed(&self, found: &[IpAddr], port: u16) -> Found {
        let inside = Inside { networks: &self.inside_allowed, own_ports: &self.own_ports };
        let reached = reachable(&inside, found, port);
        if let Err(reason) = &reached
            && !self.is_told.swap(true, Relaxed)
        {
            tracing::warn!("{}: {reason}", self.who);
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
        f.debug_struct("Finder").field("who", &self.who).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Finder {
    /// One that asks `resolve`, with `of_all` places for everybody.
    pub(super) fn asking(
        of_all: Arc<Semaphore>,
        resolve: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let config = IngressConfig {
            inside_allowed: vec![IpNetwork::from(IpAddr::from([127, 0, 0, 1]))],
            ..IngressConfig::default()
        };
        let new = Self::new(&config, &Key::new("default", "web"), "auth-url");
        Self { of_all, resolve: Arc::new(resolve), ..new }
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
