//! The Ingress role: configuration from flags, readiness, metrics.

mod metrics;

use std::{num::NonZeroUsize, sync::Arc};

use anyhow::Context as _;
use fairlead_ingress::{AccessLog, IngressConfig, IngressError, Limits, ProxyProtocol, Timeouts};
use tokio::sync::watch;

use super::{
    Shared,
    args::IngressArgs,
    holder::{self, Transport},
    live,
    pages::{Metrics, View},
    role::State,
    settings,
};

/// The agent itself ends draining, after a time that may change while it runs; the role's own limit
/// must not be the shorter one.
const DRAIN_MS: u64 = 24 * 3600 * 1000;

const BELIEVES_EVERYBODY: &str = "--proxy-protocol believes everybody: whoever connects says which address \
     that is of, and passes for any; name your balancers by --proxy-protocol-from";

/// Serves until cancelled, then drains.
pub(crate) async fn run(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
) -> anyhow::Result<()> {
    let args = shared.args();
    let config = IngressConfig {
        other_ports: settings::besides_ingress(&args),
        holder_of: |address, is_udp| {
            holder::of(address, if is_udp { Transport::Udp } else { Transport::Tcp })
        },
        node_name: Some(shared.node_name.clone()),
        is_node_expected: args.source.manifests.is_none(),
        ..config(&args.ingress)
    };
    if config.proxy_protocol.as_ref().is_some_and(ProxyProtocol::believes_everybody) {
        tracing::warn!("{BELIEVES_EVERYBODY}");
    }
    let pod = args.publish.pod.as_ref().map(|pod| &pod.0);
    let controller = metrics::controller(&config.controller, pod);
    drop(args);
    let cancel = shared.cancel.child_token();
    let started = fairlead_ingress::start(config, shared.snapshots.clone(), cancel);
    let mut running = started.map_err(with_holder)?;
    tracing::info!(http = ?running.http(), https = ?running.https(), "Ingress: listening");
    // Nothing of it waits for a plan that is being made.
    let (meter, route_meter) = (running.meter(), running.route_meter());
    let (expiry_meter, revision) = (running.expiry_meter(), running.revision());
    let metrics: Metrics = Box::new(move |text| {
        let seen = metrics::Seen {
            counters: meter(),
            routes: route_meter(),
            expiries: expiry_meter(),
            revision: *revision.borrow(),
        };
        metrics::write(text, &controller, &seen);
    });
    view.store(Some(Arc::new(metrics)));
    let (http, https) = (running.http().to_vec(), running.https().to_vec());
    let meter = live::Meter(Box::new(running.meter()));
    let shown = live::Ingress { explainer: running.explainer(), meter, http, https };
    shared.live.ingress.store(Some(Arc::new(shown)));

    let mut ready = running.ready();
    let announce = async {
        ready.wait_for(|ready| *ready).await.context("planning ended")?;
        state.send_replace(State::Ready);
        std::future::pending::<anyhow::Result<()>>().await
    };
    let result = tokio::select! {
        result = announce => result,
        result = running.ended() => Ok(result?),
    };
    view.store(None);
    shared.live.ingress.store(None);
    result
}

fn with_holder(error: IngressError) -> anyhow::Error {
    let holder = match &error {
        IngressError::Listen { address, source, .. }
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            holder::of(*address, Transport::Tcp)
        }
        _ => None,
    };
    holder::named(error.into(), holder.as_deref())
}

fn config(args: &IngressArgs) -> IngressConfig {
    IngressConfig {
        http_listen: args.http_listen.clone(),
        https_listen: args.https_listen.clone(),
        default_certificate: args.default_certificate.as_ref().map(|secret| secret.0.clone()),
        https_redirect_port: args.https_redirect_port,
        hsts: args.hsts.0.clone(),
        proxy_protocol: args
            .proxy_protocol
            .then(|| ProxyProtocol { trusted: args.proxy_protocol_from.iter().copied().collect() }),
        access_log: args.access_log.0.clone().map(|target| AccessLog {
            format: args.access_log_format.clone(),
            ..AccessLog::to(target)
        }),
        limits: Limits {
            body_bytes_max: if args.body_bytes_max == 0 { u64::MAX } else { args.body_bytes_max },
            client_connections_max: args
                .client_connections_max
                .and_then(|max| NonZeroUsize::new(max.try_into().unwrap_or(usize::MAX))),
            udp_clients_max: args.udp_clients_max.try_into().unwrap_or(usize::MAX),
            udp_clients_per_service_max: args
                .udp_clients_per_service_max
                .try_into()
                .unwrap_or(usize::MAX),
            ..Limits::default()
        },
        timeouts: Timeouts { drain_ms: DRAIN_MS, ..Timeouts::default() },
        ..args.classes.config()
    }
}
