//! What running roles show of themselves to whoever asks over the admin socket.

use std::{fmt, net::SocketAddr, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use fairlead_ingress::{Counters, explain::Explainer};
use fairlead_proxy::{Kernel, ProxyStatus};
use tokio::sync::watch;

use super::{dns::Current, followers::Followers, health_ports::Untaken};

/// The proxy at work.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) status: watch::Receiver<ProxyStatus>,
    pub(crate) followers: Arc<Followers>,
}

/// Reads Ingress's counters.
pub(crate) struct Meter(pub(crate) Box<dyn Fn() -> Counters + Send + Sync>);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

/// Ingress at work.
#[derive(Debug)]
pub(crate) struct Ingress {
    pub(crate) explainer: Explainer,
    pub(crate) meter: Meter,
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) https: Vec<SocketAddr>,
}

/// Each role while it runs; a restarted role replaces what it showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub(crate) proxy: Arc<ArcSwapOption<Proxy>>,
    pub(crate) untaken: Arc<ArcSwap<Untaken>>,
    pub(crate) dns: Current,
    pub(crate) ingress: Arc<ArcSwapOption<Ingress>>,
}
