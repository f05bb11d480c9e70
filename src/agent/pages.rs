//! What the agent answers to kubelets and to Prometheus.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{StatusCode, Uri};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kube_proxy::{config::Report, configz};

use super::{
    Shared, api,
    args::{Args, OrNone},
    followers::Socket,
    http::{self, Site, Texts},
    kube_proxy::{Face, is_eligible},
    process,
    proxy::rules,
    role::State,
};
use crate::{admin::DEFAULT_SOCKET, metrics, web};

/// Between two looks whether a taken port is free.
const PORT_RETRY: Duration = Duration::from_secs(1);

/// Writes a role's own metrics as Prometheus text.
pub(crate) type Metrics = Box<dyn Fn(&mut String) + Send + Sync>;

/// A label's value: objects and configuration may hold anything.
pub(crate) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A running role's metrics; a restarted role replaces them.
pub(crate) type View = Arc<arc_swap::ArcSwapOption<Metrics>>;

/// Everything the pages are made from.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(super) shared: Shared,
    /// Each running role's state.
    pub(crate) roles: Vec<(&'static str, watch::Receiver<State>)>,
    /// What kube-proxy would tell.
    pub(crate) kube_proxy: Arc<Face>,
    /// kube-proxy's configuration file, as it was at the start.
    kube_proxy_file: Arc<Report>,
    /// The proxy's metrics.
    pub(crate) proxy: View,
    /// DNS's metrics.
    pub(crate) dns: View,
    /// Ingress's metrics.
    pub(crate) ingress: View,
}

impl Pages {
    pub(crate) fn new(shared: Shared, kube_proxy_file: Arc<Report>) -> Self {
        Self {
            shared,
            roles: vec![],
            kube_proxy: Arc::default(),
            kube_proxy_file,
            proxy: View::default(),
            dns: View::default(),
            ingress: View::default(),
        }
    }

    /// What balancers and kubelets ask at kube-proxy's port, in its words.
    fn health_port(&self, path: &str) -> Option<http::Page> {
        let is_eligible = || {
            let snapshot = self.shared.snapshots.borrow();
            // Without the proxy nobody reads Nodes.
            let is_of_server = self.has_proxy() && self.shared.args().source.manifests.is_none();
            is_eligible(snapshot.as_deref(), &self.shared.node_name, is_of_server)
        };
        match path {
            "/healthz" => {
                let is_ready = self.verdict(|role| role == "proxy").0 == StatusCode::OK;
                Some(self.kube_proxy.healthz(is_ready, is_eligible()))
            }
            "/livez" => Some(self.kube_proxy.livez()),
            _ => self.health(path),
        }
    }

    fn has_proxy(&self) -> bool {
        self.roles.iter().any(|(name, _)| *name == "proxy")
    }

    fn metrics_port(&self, path: &str) -> Option<http::Page> {
        let ok = |text: String| Some((StatusCode::OK, text));
        match path {
            "/metrics" => ok(self.metrics()),
            "/proxyMode" => ok(configz::MODE.to_owned()),
            "/configz" => {
                let args = self.shared.args();
                ok(configz::page(&args, &self.kube_proxy_file, &self.shared.node_name))
            }
            "/healthz" => ok("ok".to_owned()),
            _ => None,
        }
    }

    fn health(&self, path: &str) -> Option<http::Page> {
        match path {
            // The process answers: that is what a liveness probe asks.
            "/livez" => Some((StatusCode::OK, "ok\n".into())),
            "/readyz" => Some(self.verdict(|_| true)),
            // A balancer in front of the nodes asks whether this node can pass Service traffic on.
            "/healthz" => Some(self.verdict(|role| role == "proxy")),
            _ => None,
        }
    }

    fn verdict(&self, counts: impl Fn(&str) -> bool) -> http::Page {
        let mut text = String::new();
        let mut is_good = !self.shared.ending.is_cancelled();
        for (name, state) in self.roles.iter().filter(|(name, _)| counts(name)) {
            let state = state.borrow();
            is_good &= *state == State::Ready;
            // Writing to a String cannot fail.
            let _ = match &*state {
                State::Starting => writeln!(text, "{name}: starting"),
                State::Ready => writeln!(text, "{name}: ready"),
                State::CannotStart(why) => writeln!(text, "{name}: cannot start: {}", why.reason),
                State::Failed(why) => writeln!(text, "{name}: failed: {why}"),
                State::Stopped => writeln!(text, "{name}: stopped"),
            };
        }
        (if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        general(&mut text, &self.shared, &self.roles);
        if self.has_proxy() {
            let snapshot = self.shared.snapshots.borrow().clone();
            let node = (&*self.shared.node_name, rules(&self.shared.args()));
            self.kube_proxy.write_metrics(&mut text, snapshot.as_deref(), node);
        }
        for view in [&self.proxy, &self.dns, &self.ingress] {
            if let Some(write) = &*view.load() {
                write(&mut text);
            }
        }
        text
    }
}

/// Appends what every page of metrics begins with, whichever roles it is of.
pub(super) fn general(
    text: &mut String,
    shared: &Shared,
    roles: &[(&'static str, watch::Receiver<State>)],
) {
    metrics::head(text, "fairlead_role_ready");
    for (name, state) in roles {
        let ready = u8::from(*state.borrow() == State::Ready);
        let _ = writeln!(text, "fairlead_role_ready{{role=\"{name}\"}} {ready}");
    }
    let stale = shared.health.borrow().stale_for(Instant::now());
    let stale = stale.unwrap_or_default().as_secs_f64();
    metrics::single(text, "fairlead_snapshot_stale_seconds", stale);
    if let Some(snapshot) = &*shared.snapshots.borrow() {
        metrics::single(text, "fairlead_snapshot_revision", snapshot.revision());
        metrics::single(text, "fairlead_objects_refused", snapshot.refused().len());
    }
    process::write(text);
}

/// Starts the servers. A taken port is one error line and tried again: it may be a predecessor's.
/// The roles go on without the page.
///
/// # Errors
/// The health port is taken and there is no Unix socket either: whoever asks there whether this agent
/// lives would be answered by another process.
pub(crate) async fn serve(
    pages: Pages,
    Args { admin, drop_in: args, .. }: &Args,
    cancel: CancellationToken,
) -> anyhow::Result<Option<http::Taken>> {
    let (at_port, metered, health) = (pages.clone(), pages.clone(), pages.clone());
    let at_port = Texts::new(move |uri: &Uri| at_port.health_port(uri.path()));
    let metrics = Texts::new(move |uri: &Uri| metered.metrics_port(uri.path()));
    let is_hard = args.bind_address_hard_fail;
    let has_socket = admin.admin_socket.is_some();
    let listen = admin.healthz_listen;
    start("--healthz-listen", listen, at_port, !has_socket || is_hard, cancel.clone()).await?;
    let listen = admin.metrics_listen;
    start("--metrics-listen", listen, metrics, is_hard, cancel.clone()).await?;
    let web = web::Web::new(pages.clone(), &admin.web_host);
    start("--web-listen", admin.web_listen, web, false, cancel.clone()).await?;
    let texts = pages.clone();
    let all = move |uri: &Uri| {
        let path = uri.path();
        health
            .health(path)
            .or_else(|| health.metrics_port(path))
            .or_else(|| api::answer(&texts, uri))
    };
    let path = admin.admin_socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    let socket = Socket { texts: Texts::new(all), pages };
    match http::serve_at("--admin-socket", path, socket, cancel) {
        Ok(taken) => Ok(Some(taken)),
        Err(error) if has_socket => Err(error),
        // Nobody asked for it: an agent without rights to that directory works all the same.
        Err(error) => {
            tracing::warn!(
                "{}; `fairlead status` and the like cannot ask this agent: give --admin-socket PATH",
                crate::exit::one_line(&error)
            );
            Ok(None)
        }
    }
}

async fn start(
    flag: &'static str,
    OrNone(address): OrNone<SocketAddr>,
    site: impl Site,
    is_needed: bool,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    match http::serve(flag, address, site.clone(), cancel.clone()).await {
        Ok(bound) => {
            tracing::info!(%bound, "{flag}");
            return Ok(());
        }
        Err(error) if is_needed => return Err(error),
        Err(error) => {
            tracing::warn!("{}; tried again until it is free", crate::exit::one_line(&error));
        }
    }
    let ending = cancel.clone();
    let again = async move {
        loop {
            tokio::time::sleep(PORT_RETRY).await;
            if let Ok(bound) = http::serve(flag, address, site.clone(), cancel.clone()).await {
                return tracing::info!(%bound, "{flag}: free now");
            }
        }
    };
    tokio::spawn(ending.run_until_cancelled_owned(again));
    Ok(())
}
