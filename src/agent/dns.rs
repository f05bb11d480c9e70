//! The DNS role: configuration from flags, readiness, metrics.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use fairlead_dns::{DnsConfig, DropReason, Upstreams};
use tokio::sync::watch;

use super::{
    Shared,
    args::DnsArgs,
    pages::{Metrics, View},
    role::State,
};
use crate::exit::BadConfiguration;

const DNS_PORT: u16 = 53;

/// Answers until cancelled.
pub(crate) async fn run(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
) -> anyhow::Result<()> {
    let config = config(&shared.args.dns)?;
    let cancel = shared.cancel.child_token();
    let running = Arc::new(fairlead_dns::start(&config, shared.snapshots.clone(), cancel)?);
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
    running.join().await;
    view.store(None);
    Ok(())
}

fn config(args: &DnsArgs) -> anyhow::Result<DnsConfig> {
    let upstreams = if args.upstream.is_empty() {
        Upstreams::ResolvConf(PathBuf::from("/etc/resolv.conf"))
    } else {
        let addresses = args.upstream.iter().map(|text| upstream(text));
        Upstreams::Addresses(addresses.collect::<anyhow::Result<_>>()?)
    };
    Ok(DnsConfig {
        listen: args.dns_listen.clone(),
        cluster_domain: args.cluster_domain.clone(),
        upstreams,
        ..DnsConfig::default()
    })
}

/// `10.0.0.2`, `10.0.0.2:5353`, `fd00::2` or `[fd00::2]:5353`.
fn upstream(text: &str) -> anyhow::Result<SocketAddr> {
    let with_port = text.parse::<SocketAddr>();
    let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    with_port.or_else(|_| bare()).map_err(|_| {
        BadConfiguration(format!("--upstream {text:?}: give an IP address, or ADDRESS:PORT")).into()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_may_leave_the_port_out() {
        for (text, expected) in [
            ("10.0.0.2", Some("10.0.0.2:53")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("fd00::2", Some("[fd00::2]:53")),
            ("[fd00::2]:5353", Some("[fd00::2]:5353")),
            ("dns.example.com", None),
            ("", None),
        ] {
            assert_eq!(upstream(text).ok().map(|a| a.to_string()).as_deref(), expected, "{text}");
        }
    }
}
