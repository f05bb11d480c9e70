use std::time::Duration;

use anyhow::Context;

use super::{failures, probe};
use crate::{
    demo::{Demo, HOST, traffic::Steady, world::Place},
    load::report::Report,
};

/// From the manifest's change to an answer of every new pod: 100 ms until the change is in force,
/// and then a connection has to choose that pod, all of it on a busy machine, too.
const SEEN_WITHIN: Duration = Duration::from_millis(1500);
/// Time for traffic before and after what is shown.
const BREATH: Duration = Duration::from_millis(500);
/// Between two pods of a rolling update.
const ROLL_PAUSE: Duration = Duration::from_millis(400);

/// Steady traffic by all ways.
struct Traffic {
    ways: Vec<(&'static str, Steady)>,
}

impl Traffic {
    async fn start(demo: &Demo) -> anyhow::Result<Self> {
        let (probe, outside) = (probe(), Place::Client);
        let ca = demo.ca.display().to_string();
        let url = format!("https://{HOST}");
        let https = ["--url", &url, "--to", "192.168.77.2:443", "--ca", &ca, "--rate", "50"];
        let mut ways = Vec::new();
        for (name, place, args) in [
            ("ClusterIP", &probe, ["--url", "http://hello", "--rate", "400"].as_slice()),
            (
                "NodePort from outside",
                &outside,
                ["--url", "http://192.168.77.2:30080", "--rate", "200"].as_slice(),
            ),
            ("https", &outside, https.as_slice()),
        ] {
            ways.push((name, Steady::start(&demo.world, place, args).await?));
        }
        tokio::time::sleep(BREATH).await;
        Ok(Self { ways })
    }

    async fn stop(self) -> anyhow::Result<Vec<(&'static str, Report)>> {
        tokio::time::sleep(BREATH).await;
        let mut reports = Vec::new();
        for (name, steady) in self.ways {
            reports.push((name, steady.stop().await.context(name)?));
        }
        Ok(reports)
    }
}

/// Scales, deletes and rolls the Deployment, each under steady traffic.
pub(crate) async fn run(demo: &mut Demo) -> anyhow::Result<()> {
    scale_up(demo).await?;
    delete(demo).await?;
    roll(demo).await?;
    scale_down(demo).await
}

async fn scale_up(demo: &mut Demo) -> anyhow::Result<()> {
    demo.screen.doing("scaling from 3 to 5 pods");
    let traffic = Traffic::start(demo).await?;
    let published = demo.kubelet.scale(&mut demo.hello, 5).await?;
    // Time itself is what is waited for: what they answer is told at the end.
    tokio::time::sleep(SEEN_WITHIN).await;
    let reports = traffic.stop().await?;
    let new: Vec<String> = demo.hello.pods().skip(3).map(|pod| pod.name.clone()).collect();
    let (_, cluster_ip) = reports.first().context("no report")?;
    let first_answers: Option<Vec<u64>> =
        new.iter().map(|name| Some(cluster_ip.pods.get(name)?.first_unix_ms)).collect();
    let took = first_answers.and_then(|all| all.into_iter().max());
    let took = took.map(|at| at.saturating_sub(published));
    let seen = took.map_or("not within the time".into(), |ms| format!("after {ms} ms"));
    let held = took.is_some_and(|ms| Duration::from_millis(ms) <= SEEN_WITHIN);
    demo.screen.expect("scaled from 3 to 5 pods: both new ones answer", seen, held);
    none_failed(demo, "scale up", &reports);
    Ok(())
}

async fn scale_down(demo: &mut Demo) -> anyhow::Result<()> {
    demo.screen.doing("scaling from 5 to 3 pods");
    let traffic = Traffic::start(demo).await?;
    demo.kubelet.scale(&mut demo.hello, 3).await?;
    let reports = traffic.stop().await?;
    none_failed(demo, "scale down", &reports);
    Ok(())
}

async fn delete(demo: &mut Demo) -> anyhow::Result<()> {
    demo.screen.doing("deleting a pod");
    let traffic = Traffic::start(demo).await?;
    let name = demo.hello.pods().next().context("no pod")?.name.clone();
    demo.kubelet.replace(&mut demo.hello, &name).await?;
    let reports = traffic.stop().await?;
    none_failed(demo, "a pod deleted", &reports);
    Ok(())
}

async fn roll(demo: &mut Demo) -> anyhow::Result<()> {
    demo.screen.doing("rolling update of 5 pods");
    let traffic = Traffic::start(demo).await?;
    demo.kubelet.roll(&mut demo.hello, ROLL_PAUSE).await?;
    let reports = traffic.stop().await?;
    none_failed(demo, "rolling update of 5 pods", &reports);
    Ok(())
}

fn none_failed(demo: &mut Demo, what: &str, reports: &[(&'static str, Report)]) {
    for (way, report) in reports {
        demo.screen.expect(
            format!("{what}, {way}"),
            format!(
                "{} failed of {} connections{}",
                report.failed,
                report.ok + report.failed,
                failures(report)
            ),
            report.failed == 0 && report.ok > 0,
        );
    }
}
