use std::time::Duration;

use super::{answered, failures, probe};
use crate::demo::{Demo, HOST, traffic::Steady, world::Place};

/// How often the agent is killed.
const KILLS: u32 = 5;
/// Traffic between two kills.
const BREATH: Duration = Duration::from_millis(500);

/// Kills the agent again and again while traffic runs through what it has left in the kernel.
pub(crate) async fn run(demo: &mut Demo) -> anyhow::Result<()> {
    let (probe, outside) = (probe(), Place::Client);
    let (service, node) = ("http://10.96.0.20", "http://192.168.77.2:30080");
    let mut ways = Vec::new();
    for (name, place, args) in [
        ("new connections, ClusterIP", &probe, ["--url", service, "--rate", "600"]),
        ("new connections, NodePort from outside", &outside, ["--url", node, "--rate", "400"]),
        ("50 open connections, ClusterIP", &probe, ["--url", service, "--streams", "50"]),
        ("50 open connections, NodePort", &outside, ["--url", node, "--streams", "50"]),
    ] {
        ways.push((name, Steady::start(&demo.world, place, args).await?));
    }
    let mut longest = Duration::ZERO;
    for round in 1..=KILLS {
        tokio::time::sleep(BREATH).await;
        demo.screen.doing(&format!("kill -9, {round} of {KILLS}"));
        longest = longest.max(demo.agent.kill_and_restart(&demo.world).await?);
    }
    tokio::time::sleep(BREATH).await;
    demo.screen.expect(
        format!("kill -9 and start again, {KILLS} times"),
        format!("ready again within {} ms", longest.as_millis()),
        demo.agent.is_running(),
    );
    for (name, steady) in ways {
        let report = steady.stop().await?;
        demo.screen.expect(
            name,
            format!(
                "{} failed, {} broken of {} requests{}",
                report.failed,
                report.broken,
                report.ok + report.failed,
                failures(&report)
            ),
            report.failed == 0 && report.broken == 0 && report.ok > 0,
        );
    }
    let ca = demo.ca.display().to_string();
    let more = ["--to", "192.168.77.2:443", "--ca", &ca];
    answered(demo, "https after the last start", &outside, &format!("https://{HOST}"), &more)
        .await?;
    Ok(())
}
