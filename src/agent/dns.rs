//! The DNS role: configuration from flags or a Corefile, followed while running; readiness, metrics.

mod faces;
mod followed;
mod kept;
mod metrics;
mod own_health;
mod stragglers;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use fairlead_dns::{
    DnsConfig, DnsError, Running, Upstreams,
    corefile::{Corefile, Needs, PodsOf},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{faces::Faces, followed::Followed, own_health::OwnHealth};
use super::{
    Shared,
    args::{DnsArgs, Upstream},
    holder::{self, Transport},
    pages::{self, Metrics, View},
    role::State,
    source,
};
use crate::exit::BadConfiguration;

pub(super) use metrics::CODES;

/// The server at work; another one when the addresses to listen on change.
pub(crate) type Current = Arc<ArcSwapOption<Running>>;

/// Between two looks whether an earlier agent is still there.
const PREDECESSOR_CHECK: Duration = Duration::from_millis(500);

/// Answers until cancelled.
pub(crate) async fn run(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
) -> anyhow::Result<()> {
    let mut args = shared.args.clone();
    let first = args.borrow_and_update().clone();
    let mut followed = match &first.dns.corefile {
        Some(path) => Some(Followed::new(path)?),
        None => None,
    };
    let corefile = |followed: &Option<Followed>| followed.as_ref().map(Followed::corefile);
    check_read(&shared, corefile(&followed).as_deref())?;
    let config = config(&first.dns, corefile(&followed));
    await_turn(&config, &shared).await;
    let mut server = Server::start(&shared, &config).map_err(with_holder)?;
    let current: Current = shared.live.dns.clone();
    current.store(Some(server.running.clone()));

    if let Some(directory) = first.source.state_dir.clone() {
        let keeping = kept::follow(current.clone(), shared.snapshots.clone(), directory);
        let cancel = shared.cancel.clone();
        tokio::spawn(async move { cancel.run_until_cancelled(keeping).await });
    }

    let own_health = Arc::<OwnHealth>::default();
    let metrics = metrics(current.clone(), followed.as_ref(), own_health.clone());
    view.store(Some(metrics.clone()));
    let told = told_at_the_corefiles_port(&shared, &state, metrics);
    let faces = Faces::new(current.clone(), told, own_health, shared.ending.clone());
    faces.serve(corefile(&followed));

    let mut is_ready = false;
    loop {
        let mut revisions = server.running.revisions();
        tokio::select! {
            () = shared.cancel.cancelled() => break,
            // Ready only when names are known: before that misses are answered SERVFAIL.
            synced = revisions.wait_for(Option::is_some), if !is_ready => {
                is_ready = true;
                if synced.is_ok() {
                    state.send_replace(State::Ready);
                }
                continue;
            }
            _ = Followed::changed(followed.as_mut()) => {}
            // Nobody is left who could change settings: then this arm is closed.
            Ok(()) = args.changed() => {}
        }
        let newest = args.borrow_and_update().clone();
        let config = self::config(&newest.dns, corefile(&followed));
        let outcome = match take_over(&shared, &server, &config).await {
            Ok(None) => Ok(()),
            Ok(Some(successor)) => {
                server = successor;
                current.store(Some(server.running.clone()));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        match (&mut followed, outcome) {
            (Some(followed), outcome) => followed.settle(outcome),
            (None, Err(error)) => tracing::error!("{error}; the old settings stay in force"),
            (None, Ok(())) => {}
        }
        faces.serve(corefile(&followed));
    }
    serve_on(&shared, corefile(&followed).as_deref()).await;
    // On one machine it is asked until it is gone, and a successor shares its port.
    if source::is_in_cluster(&shared.args()) {
        let counts = || server.running.counts();
        stragglers::have_gone(|| counts().udp_queries + counts().tcp_queries).await;
    }
    server.end().await;
    faces.end();
    view.store(None);
    current.store(None);
    Ok(())
}

/// Whether what a Corefile speaks of is read, which is decided when the agent starts. Names of what is not
/// would all be denied.
fn check_read(shared: &Shared, corefile: Option<&Corefile>) -> Result<(), BadConfiguration> {
    let needed = corefile.map_or_else(Needs::default, Corefile::needs);
    let read = shared.followed_for_dns;
    let what = match needed.pods {
        PodsOf::Cluster if read.pods < needed.pods => "`pods verified` needs every pod",
        _ if needed.imports && !read.imports => "`multicluster` needs ServiceImports",
        _ if needed.labels && !read.labels => "`labels` needs labels of objects",
        PodsOf::Node if read.pods < needed.pods => {
            tracing::warn!("DNS: autopath @kubernetes begins with the next start of the agent");
            return Ok(());
        }
        _ => return Ok(()),
    };
    let reason = "which are read from the agent's start on: restart it";
    Err(BadConfiguration(format!("DNS: {what}, {reason}")))
}

/// While an earlier agent answers on the same port, this one does not take a part of the queries
/// before it knows names.
async fn await_turn(config: &DnsConfig, shared: &Shared) {
    let mut snapshots = shared.snapshots.clone();
    let mut said = false;
    while !shared.cancel.is_cancelled()
        && snapshots.borrow().is_none()
        && fairlead_dns::has_predecessor(config)
    {
        if !std::mem::replace(&mut said, true) {
            tracing::info!("DNS: an earlier agent answers here until names are in sync");
        }
        tokio::select! {
            known = snapshots.wait_for(Option::is_some) => drop(known),
            () = tokio::time::sleep(PREDECESSOR_CHECK) => {}
            () = shared.cancel.cancelled() => {}
        }
    }
}

/// `health { lameduck }`: those that still send are answered for so long after readiness went off;
/// the agent's own lameduck, which is over by now, counts.
async fn serve_on(shared: &Shared, corefile: Option<&Corefile>) {
    let health = corefile.and_then(Corefile::health);
    let wanted = health.map_or(Duration::ZERO, |health| health.lameduck);
    let own = super::lameduck(&shared.args());
    tokio::time::sleep(wanted.saturating_sub(own)).await;
}

/// A running server and its end.
struct Server {
    running: Arc<Running>,
    stop: CancellationToken,
}

impl Server {
    fn start(shared: &Shared, config: &DnsConfig) -> Result<Self, DnsError> {
        let stop = CancellationToken::new();
        let running = fairlead_dns::start(config, shared.snapshots.clone(), stop.clone())?;
        Ok(Self { running: Arc::new(running), stop })
    }

    async fn end(&self) {
        self.stop.cancel();
        self.running.join().await;
    }
}

/// Brings changed settings into force; returns the server that takes the old one's place, if the
/// addresses to listen on are others now. What fails leaves the old ones.
async fn take_over(
    shared: &Shared,
    old: &Server,
    config: &DnsConfig,
) -> anyhow::Result<Option<Server>> {
    check_read(shared, config.corefile.as_deref())?;
    match old.running.renew(config) {
        Ok(()) => Ok(None),
        // Ports are shared with our own successor, so that no question finds nobody.
        Err(DnsError::Restart) => {
            let new = Server::start(shared, config)?;
            // They are read from their file once.
            if let Some(kept) = old.running.standing_in() {
                new.running.stand_in(kept);
            }
            old.end().await;
            Ok(Some(new))
        }
        Err(error) => Err(error.into()),
    }
}

fn metrics(
    current: Current,
    followed: Option<&Followed>,
    own_health: Arc<OwnHealth>,
) -> Arc<Metrics> {
    let failures = followed.map(Followed::failures);
    Arc::new(Box::new(move |text| {
        if let Some(running) = current.load_full() {
            let failed = failures.as_ref().map_or(0, |failures| failures.load(Relaxed));
            metrics::write(text, &running.counts(), failed, running.stands_in());
            metrics::own_health(text, &own_health);
        }
    }))
}

/// Alerts ask for more than names: who reads the Corefile's `prometheus` need not read another port as well.
fn told_at_the_corefiles_port(
    shared: &Shared,
    state: &watch::Sender<State>,
    metrics: Arc<Metrics>,
) -> Arc<Metrics> {
    let (shared, roles) = (shared.clone(), [("dns", state.subscribe())]);
    Arc::new(Box::new(move |text| {
        pages::general(text, &shared, &roles);
        metrics(text);
    }))
}

fn with_holder(error: DnsError) -> anyhow::Error {
    let DnsError::Taken { address, transport, .. } = &error else { return error.into() };
    let transport = if *transport == "TCP" { Transport::Tcp } else { Transport::Udp };
    let holder = holder::of(*address, transport);
    holder::named(error.into(), holder.as_deref())
}

pub(crate) fn config(args: &DnsArgs, corefile: Option<Arc<Corefile>>) -> DnsConfig {
    let upstreams = if args.upstream.is_empty() {
        Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf"))
    } else {
        Upstreams::Addresses(args.upstream.iter().map(|Upstream(address)| *address).collect())
    };
    DnsConfig {
        listen: args.dns_listen.clone(),
        cluster_domain: args.cluster_domain.clone(),
        upstreams,
        ttl_seconds: args.dns_ttl,
        negative_ttl_seconds: args.dns_negative_ttl,
        corefile,
        client_rate: args.dns_client_rate,
        random_case: args.dns_random_case,
        ..DnsConfig::default()
    }
}
