use std::net::{IpAddr, SocketAddr};

use super::{answered, duration, failures, outcome, probe, requests};
use crate::{
    demo::{
        Demo,
        world::{CLIENT_V4, CLIENT_V6, NODE_V4, NODE_V6, Place},
    },
    load::report::Report,
};

/// Enough that an even choice among three pods stays within the bounds below but once in a million
/// runs.
const SPREAD_REQUESTS: u32 = 300;
/// A pod's share of an even choice among three is 100; five standard deviations are 41.
const SPREAD_SHARE_MIN: u64 = 59;
/// "At once": less than the second in which TCP sends its first SYN again, on a busy machine, too.
const REFUSED_WITHIN_US: u64 = 500_000;

/// Each way to a Service.
pub(crate) async fn run(demo: &mut Demo) -> anyhow::Result<()> {
    spread(demo).await?;
    answered(demo, "UDP to its ClusterIP", &probe(), "udp://10.96.0.20:80", &[]).await?;
    answered(demo, "IPv6 to its ClusterIP", &probe(), "http://[fd00:10:96::20]", &[]).await?;
    from_outside(demo).await?;
    on_the_node(demo).await?;
    refused(demo, "TCP to a Service without pods", "http://empty").await?;
    refused(demo, "IPv6 to a Service without pods", "http://[fd00:10:96::30]").await?;
    refused(demo, "UDP to a Service without pods", "udp://empty:80").await
}

async fn spread(demo: &mut Demo) -> anyhow::Result<()> {
    let report = requests(demo, &probe(), "http://hello", SPREAD_REQUESTS, &[]).await?;
    let shares: Vec<String> =
        report.pods.iter().map(|(pod, share)| format!("{pod} {}", share.answers)).collect();
    let even = report.pods.values().all(|pod| pod.answers >= SPREAD_SHARE_MIN);
    demo.screen.expect(
        format!("{SPREAD_REQUESTS} connections to http://hello are spread"),
        format!("{}{}", shares.join(", "), failures(&report)),
        report.failed == 0 && report.pods.len() == 3 && even,
    );
    Ok(())
}

async fn from_outside(demo: &mut Demo) -> anyhow::Result<()> {
    for (transport, scheme) in [("TCP", "http"), ("UDP", "udp")] {
        for (node, client) in
            [(IpAddr::from(NODE_V4), IpAddr::from(CLIENT_V4)), (NODE_V6.into(), CLIENT_V6.into())]
        {
            let url = format!("{scheme}://{}", SocketAddr::new(node, 30080));
            let report = requests(demo, &Place::Client, &url, 1, &[]).await?;
            let family = if node.is_ipv4() { "IPv4" } else { "IPv6" };
            demo.screen.expect(
                format!("NodePort from outside, {transport}, {family}"),
                outcome(&report),
                report.ok == 1 && seen_client(&report) == Some(client),
            );
        }
    }
    Ok(())
}

/// The client's address as the pod saw it.
fn seen_client(report: &Report) -> Option<IpAddr> {
    let client = report.sample.as_ref()?.body.get("client")?.as_str()?;
    client.parse::<SocketAddr>().ok().map(|client| client.ip())
}

async fn on_the_node(demo: &mut Demo) -> anyhow::Result<()> {
    for (what, url) in [
        ("localhost:30080 on the node, TCP", "http://127.0.0.1:30080"),
        ("localhost:30080 on the node, TCP, ::1", "http://[::1]:30080"),
        ("localhost:30080 on the node, UDP", "udp://127.0.0.1:30080"),
        ("localhost:30080 on the node, UDP, ::1", "udp://[::1]:30080"),
    ] {
        answered(demo, what, &Place::Node, url, &[]).await?;
    }
    Ok(())
}

async fn refused(demo: &mut Demo, what: &str, url: &str) -> anyhow::Result<()> {
    let report = requests(demo, &probe(), url, 1, &[]).await?;
    let first = report.described.first();
    let after_us = first.map_or(0, |failure| failure.after_us);
    let seen = match first {
        Some(failure) => format!("{} after {}", failure.kind, duration(after_us)),
        None => outcome(&report),
    };
    let refused = first.is_some_and(|failure| failure.kind == "refused");
    demo.screen.expect(what, seen, refused && after_us < REFUSED_WITHIN_US);
    Ok(())
}
