//! The Ingress role: configuration from flags, readiness, metrics.

use std::{fmt::Write as _, sync::Arc};

use anyhow::Context as _;
use fairlead_ingress::{Counters, IngressConfig, ProxyProtocol, Timeouts};
use tokio::sync::watch;

use super::{
    Shared,
    pages::{Metrics, View},
    role::State,
    source,
};

/// Serves until cancelled, then drains.
pub(crate) async fn run(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
) -> anyhow::Result<()> {
    let config = config(&shared)?;
    let cancel = shared.cancel.child_token();
    let mut running = fairlead_ingress::start(config, shared.snapshots.clone(), cancel)?;
    tracing::info!(http = ?running.http(), https = ?running.https(), "Ingress: listening");
    let meter = running.meter();
    let metrics: Metrics = Box::new(move |text| write_metrics(text, &meter()));
    view.store(Some(Arc::new(metrics)));

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
    result
}

fn config(shared: &Shared) -> anyhow::Result<IngressConfig> {
    let args = &shared.args.ingress;
    let drain_ms = shared.args.admin.drain_timeout.saturating_mul(1000);
    Ok(IngressConfig {
        http_listen: args.http_listen.clone(),
        https_listen: args.https_listen.clone(),
        ingress_class: args.ingress_class.clone(),
        controller: args.controller.clone(),
        watch_ingress_without_class: args.watch_ingress_without_class,
        default_certificate: source::default_certificate(&shared.args)?,
        https_redirect_port: args.https_redirect_port,
        hsts: args.hsts.0.clone(),
        proxy_protocol: args
            .proxy_protocol
            .then(|| ProxyProtocol { trusted: args.proxy_protocol_from.clone() }),
        timeouts: Timeouts { drain_ms, ..Timeouts::default() },
        ..IngressConfig::default()
    })
}

fn write_metrics(text: &mut String, counters: &Counters) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE fairlead_ingress_responses_total counter");
    for (code, count) in &counters.responses {
        let _ = writeln!(text, "fairlead_ingress_responses_total{{code=\"{code}\"}} {count}");
    }
    let _ = writeln!(text, "# TYPE fairlead_ingress_refused_total counter");
    for (reason, count) in &counters.refused {
        let _ = writeln!(text, "fairlead_ingress_refused_total{{reason=\"{reason}\"}} {count}");
    }
    let _ = writeln!(
        text,
        "# TYPE fairlead_ingress_connections_open gauge\nfairlead_ingress_connections_open {}",
        counters.connections_open
    );
    for (name, count) in [
        ("connections", counters.connections),
        ("tls_handshakes", counters.tls_handshakes),
        ("tls_failures", counters.tls_failures),
        ("client_timeouts", counters.client_timeouts),
        ("upstream_connects", counters.upstream_connects),
        ("upstream_connect_failures", counters.upstream_connect_failures),
        ("upstream_reuses", counters.upstream_reuses),
        ("upstream_retries", counters.upstream_retries),
        ("upstream_timeouts", counters.upstream_timeouts),
        ("tunnels", counters.tunnels),
    ] {
        let name = format!("fairlead_ingress_{name}_total");
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {count}");
    }
}
