//! What kubelet and the controllers do to a workload, in their order: start, ready, published;
//! terminating in the slices while SIGTERM is sent; gone from them once it has exited.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::timeout,
};

use super::{
    manifests::{self, PodView},
    world::{Place, World},
};
use crate::load::report::unix_ms;

/// The first pod's address: 10.244.1.10.
const FIRST_ADDRESS: u8 = 10;
/// `initialDelaySeconds` and patience of the readiness probe together.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// `terminationGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(20);

/// How a workload's pods are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// A template hash and random letters; no host name.
    Deployment,
    /// Ordinals; the name is the host name.
    StatefulSet,
}

#[derive(Debug)]
struct Pod {
    view: PodView,
    place: Place,
    process: Child,
}

/// The pods of one Service.
#[derive(Debug)]
pub(crate) struct App {
    service: &'static str,
    workload: Workload,
    /// Grows with each rollout; part of a Deployment's pod names.
    template: u32,
    made: u32,
    pods: Vec<Pod>,
}

impl App {
    /// Without pods.
    pub(crate) fn new(service: &'static str, workload: Workload) -> Self {
        Self { service, workload, template: 1, made: 0, pods: Vec::new() }
    }

    /// Its pods that are not terminating.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &PodView> {
        self.pods.iter().map(|pod| &pod.view).filter(|view| !view.terminating)
    }

    fn next_name(&mut self) -> String {
        let ordinal = self.made;
        self.made += 1;
        match self.workload {
            Workload::StatefulSet => format!("{}-{ordinal}", self.service),
            Workload::Deployment => format!("{}-v{}-{ordinal}", self.service, self.template),
        }
    }
}

/// Runs pods on the world's node and publishes them in its manifests.
#[derive(Debug)]
pub(crate) struct Kubelet {
    world: Rc<World>,
    next_address: u8,
}

impl Kubelet {
    /// For a world without pods.
    pub(crate) fn new(world: Rc<World>) -> Self {
        Self { world, next_address: FIRST_ADDRESS }
    }

    /// A pod's namespace without anything running in it, for clients.
    pub(crate) fn sandbox(&mut self, place: &Place) -> anyhow::Result<(Ipv4Addr, Ipv6Addr)> {
        let last = self.next_address;
        self.next_address = last.checked_add(1).context("the pod networks are full")?;
        self.world.add_pod(place, last)
    }

    /// The name server outside, which lives as long as the value returned.
    pub(crate) async fn run_upstream(&self) -> anyhow::Result<Child> {
        let mut command = self.world.tool(&Place::Client, "upstream");
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        await_ready(&mut process).await.context("the name server outside")?;
        Ok(process)
    }

    /// Starts or stops pods until there are `wanted`. Returns when the last change was published,
    /// ms since 1970.
    pub(crate) async fn scale(&mut self, app: &mut App, wanted: usize) -> anyhow::Result<u64> {
        while app.pods().count() < wanted {
            self.start(app, Place::Pod).await?;
        }
        let published = self.publish(app)?;
        let surplus: Vec<String> = app.pods().skip(wanted).map(|pod| pod.name.clone()).collect();
        for name in &surplus {
            self.terminate(app, name)?;
        }
        self.reap(app).await?;
        Ok(published)
    }

    /// Starts so many more pods on another node, which is then there.
    pub(crate) async fn start_elsewhere(
        &mut self,
        app: &mut App,
        count: usize,
    ) -> anyhow::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.world.add_node()?;
        for _ in 0..count {
            self.start(app, Place::Elsewhere).await?;
        }
        self.publish(app)?;
        Ok(())
    }

    /// `kubectl delete pod`, with the ReplicaSet starting another one at once.
    pub(crate) async fn replace(&mut self, app: &mut App, name: &str) -> anyhow::Result<()> {
        self.terminate(app, name)?;
        self.start(app, Place::Pod).await?;
        self.publish(app)?;
        self.reap(app).await
    }

    /// `kubectl rollout restart` with `maxSurge: 1, maxUnavailable: 0`.
    pub(crate) async fn roll(&mut self, app: &mut App, pause: Duration) -> anyhow::Result<()> {
        app.template += 1;
        let old: Vec<String> = app.pods().map(|pod| pod.name.clone()).collect();
        for name in old {
            self.start(app, Place::Pod).await?;
            self.publish(app)?;
            self.terminate(app, &name)?;
            tokio::time::sleep(pause).await;
        }
        self.reap(app).await
    }

    /// Starts one pod and waits until it is ready. It is not published.
    async fn start(&mut self, app: &mut App, at: fn(String) -> Place) -> anyhow::Result<()> {
        let name = app.next_name();
        let place = at(name.clone());
        let (v4, v6) = self.sandbox(&place)?;
        let node = if matches!(place, Place::Elsewhere(_)) { "node2" } else { "node1" };
        let mut command = self.world.tool(&place, "pod");
        command.args(["--name", &name]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("starting pod {name}"))?;
        await_ready(&mut process).await.with_context(|| format!("pod {name}"))?;
        let hostname = (app.workload == Workload::StatefulSet).then(|| name.clone());
        let view = PodView { name, v4, v6, hostname, node, terminating: false };
        app.pods.push(Pod { view, place, process });
        Ok(())
    }

    /// A deletion timestamp: the slices say terminating, and the process gets SIGTERM, at the same
    /// time.
    fn terminate(&self, app: &mut App, name: &str) -> anyhow::Result<()> {
        let pod = app.pods.iter_mut().find(|pod| pod.view.name == name);
        let pod = pod.with_context(|| format!("no pod {name}"))?;
        pod.view.terminating = true;
        let pid = pod.process.id().with_context(|| format!("pod {name} is dead"))?;
        self.publish(app)?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        Ok(())
    }

    /// Waits for terminating pods and takes them out of the slices.
    async fn reap(&mut self, app: &mut App) -> anyhow::Result<()> {
        let (leaving, staying): (Vec<_>, Vec<_>) =
            app.pods.drain(..).partition(|pod| pod.view.terminating);
        app.pods = staying;
        if leaving.is_empty() {
            return Ok(());
        }
        for mut pod in leaving {
            let name = &pod.view.name;
            match timeout(GRACE, pod.process.wait()).await {
                Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => {}
                Ok(status) => bail!("pod {name} ended badly: {status:?}"),
                Err(_) => bail!("pod {name} did not end within {GRACE:?} of SIGTERM"),
            }
            self.world.remove_pod(&pod.place);
        }
        self.publish(app)?;
        Ok(())
    }

    fn publish(&self, app: &App) -> anyhow::Result<u64> {
        let views: Vec<PodView> = app.pods.iter().map(|pod| pod.view.clone()).collect();
        let text = manifests::endpoints(app.service, &views);
        let file = format!("{}-pods.json", app.service);
        manifests::write(self.world.layout().manifests(), &file, &text)?;
        Ok(unix_ms())
    }
}

/// A server of ours says so on standard output once its ports are bound.
async fn await_ready(process: &mut Child) -> anyhow::Result<()> {
    let stdout = process.stdout.take().context("no standard output")?;
    let mut line = String::new();
    timeout(READY_TIMEOUT, BufReader::new(stdout).read_line(&mut line))
        .await
        .with_context(|| format!("not ready within {READY_TIMEOUT:?}"))??;
    if line.trim() != "ready" {
        bail!("ended before it was ready");
    }
    Ok(())
}
