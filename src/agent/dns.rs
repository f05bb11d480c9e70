//! The DNS role: configuration from flags, readiness, metrics.

use std::{fmt::Write as _, path::PathBuf, sync::Arc, time::Duration};

use fairlead_dns::{DnsConfig, DnsError, DropReason, Running, Tuning, Upstreams};
use tokio::sync::watch;

use super::{
    Shared,
    args::{Args, DnsArgs, Upstream},
    holder::{self, Transport},
    pages::{Metrics, View},
    role::State,
};

/// Between two looks whether an earlier agent is still there.
const PREDECESSOR_CHECK: Duration = Duration::from_millis(500);

/// Answers until cancelled.
pub(crate) async fn run(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
) -> anyhow::Result<()> {
    let mut args = shared.args.clone();
    let config = config(&args.borrow_and_update().dns);
    await_turn(&config, &shared).await;
    let cancel = shared.cancel.child_token();
    let started = fairlead_dns::start(&config, shared.snapshots.clone(), cancel);
    let running = Arc::new(started.map_err(with_holder)?);
    let counted = Arc::downgrade(&running);
    let metrics: Metrics = Box::new(move |text| {
        if let Some(running) = counted.upgrade() {
            write_metrics(text, &running.counts());
        }
    });
    view.store(Some(Arc::new(metrics)));

    // Ready only when names are known: before that misses are answered SERVFAIL.
    let mut revisions = running.revisions();
    let synced = revisions.wait_for(Option::is_some);
    if let Some(Ok(_)) = shared.cancel.run_until_cancelled(synced).await {
        state.send_replace(State::Ready);
    }
    tokio::select! {
        () = running.join() => {}
        () = tune(&running, args) => {}
    }
    view.store(None);
    Ok(())
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

/// Puts changed settings in force for ever.
async fn tune(running: &Running, mut args: watch::Receiver<Arc<Args>>) {
    while args.changed().await.is_ok() {
        let tuning = tuning(&args.borrow_and_update().dns);
        if let Err(error) = running.tune(&tuning) {
            tracing::error!("{error}");
        }
    }
    // Nobody is left who could change them.
    std::future::pending::<()>().await;
}

fn with_holder(error: DnsError) -> anyhow::Error {
    let DnsError::Taken { address, transport, .. } = &error else { return error.into() };
    let transport = if *transport == "TCP" { Transport::Tcp } else { Transport::Udp };
    let holder = holder::of(*address, transport);
    holder::named(error.into(), holder.as_deref())
}

fn config(args: &DnsArgs) -> DnsConfig {
    let Tuning { upstreams, ttl_seconds, negative_ttl_seconds } = tuning(args);
    DnsConfig {
        listen: args.dns_listen.clone(),
        cluster_domain: args.cluster_domain.clone(),
        upstreams,
        ttl_seconds,
        negative_ttl_seconds,
        ..DnsConfig::default()
    }
}

fn tuning(args: &DnsArgs) -> Tuning {
    let upstreams = if args.upstream.is_empty() {
        Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf"))
    } else {
        Upstreams::Addresses(args.upstream.iter().map(|Upstream(address)| *address).collect())
    };
    Tuning { upstreams, ttl_seconds: args.dns_ttl, negative_ttl_seconds: args.dns_negative_ttl }
}

fn write_metrics(text: &mut String, counts: &fairlead_dns::Counts) {
    let plain = [
        ("fairlead_dns_udp_queries_total", counts.udp_queries),
        ("fairlead_dns_tcp_queries_total", counts.tcp_queries),
        ("fairlead_dns_slow_queries_total", counts.slow_queries),
        ("fairlead_dns_forwarded_total", counts.forwarded),
        ("fairlead_dns_panics_total", counts.panics),
    ];
    // Writing to a String cannot fail.
    for (name, value) in plain {
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
    }
    let _ = writeln!(text, "# TYPE fairlead_dns_replies_total counter");
    for (rcode, value) in counts.replies.iter().enumerate().filter(|(_, value)| **value > 0) {
        let _ = writeln!(text, "fairlead_dns_replies_total{{rcode=\"{rcode}\"}} {value}");
    }
    let _ = writeln!(text, "# TYPE fairlead_dns_dropped_total counter");
    for (reason, value) in DropReason::ALL.iter().zip(counts.dropped) {
        let reason = reason.as_str();
        let _ = writeln!(text, "fairlead_dns_dropped_total{{reason=\"{reason}\"}} {value}");
    }
}
