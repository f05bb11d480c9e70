//! `fairlead demo`: a little world in network namespaces with the real agent in it, shown working.

mod agent;
mod certificates;
mod kubelet;
mod manifests;
mod screen;
mod steps;
pub(crate) mod tools;
mod traffic;
mod upstream;
mod world;

use std::{cell::Cell, fs, path::PathBuf, process::ExitCode, rc::Rc};

use anyhow::{Context, bail};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
};

use self::{
    agent::Agent,
    kubelet::{App, Kubelet, Workload},
    screen::Screen,
    world::{Place, World},
};

/// A pod's namespace without a server in it: where clients inside of the cluster run.
const PROBE: &str = "probe";
/// The Ingress's host.
const HOST: &str = "hello.example.com";

/// Flags of `fairlead demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep everything running until Ctrl-C, to look around
    #[arg(long, env = "FAIRLEAD_KEEP")]
    keep: bool,
}

/// Everything the steps work with. Fields are dropped in order: the world last, as it takes
/// everything else along.
struct Demo {
    screen: Screen,
    agent: Agent,
    hello: App,
    db: App,
    kubelet: Kubelet,
    _upstream: Child,
    ca: PathBuf,
    world: Rc<World>,
}

/// Exit status 0 only if every expectation held.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    crate::logging::start(crate::logging::Format::Text, &crate::logging::Level::default());
    let world = Rc::new(World::create()?);
    let logs = world.layout().logs().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = Cell::new(None);
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = show(args, world.clone(), &shown) => result?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        anyhow::Ok(shown.get())
    });
    if matches!(outcome, Ok(Some(false)) | Err(_)) {
        keep_logs(&logs);
    }
    drop(world);
    match outcome? {
        Some(true) => Ok(ExitCode::SUCCESS),
        Some(false) => Ok(ExitCode::FAILURE),
        None => bail!("interrupted before the end"),
    }
}

/// Tells `shown` whether every expectation held; with `--keep` it does not return then.
async fn show(args: &Args, world: Rc<World>, shown: &Cell<Option<bool>>) -> anyhow::Result<()> {
    let mut demo = set_up(world).await?;
    steps::run_all(&mut demo).await;
    demo.screen.table();
    shown.set(Some(demo.screen.all_held()));
    if args.keep {
        look_around(&demo);
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn set_up(world: Rc<World>) -> anyhow::Result<Demo> {
    let mut screen = Screen::new();
    screen.step("Start");
    screen.say("  a node, its pods and an outside client, each in a network namespace");
    let ca = write_objects(&world)?;
    let mut kubelet = Kubelet::new(world.clone());
    let upstream = kubelet.run_upstream().await?;
    kubelet.sandbox(&Place::Pod(PROBE.to_owned()))?;
    let mut hello = App::new("hello", Workload::Deployment);
    let mut db = App::new("db", Workload::StatefulSet);
    screen.doing("starting pods");
    kubelet.scale(&mut hello, 3).await?;
    kubelet.scale(&mut db, 2).await?;
    screen.doing("starting the agent");
    let (agent, took) = Agent::start(&world).await?;
    screen.expect(
        "the agent is ready",
        format!("Services, DNS and Ingress {} ms after its start", took.as_millis()),
        true,
    );
    Ok(Demo { screen, agent, hello, db, kubelet, _upstream: upstream, ca, world })
}

/// Writes what `kubectl apply` would have stored before any pod runs. Returns where the CA's
/// certificate is.
fn write_objects(world: &World) -> anyhow::Result<PathBuf> {
    let dir = world.layout().manifests();
    manifests::write_fixed(dir).context("writing manifests")?;
    let certificates = certificates::generate(HOST)?;
    let secret =
        manifests::tls_secret("hello-tls", &certificates.certificate_pem, &certificates.key_pem);
    manifests::write(dir, "hello-tls.json", &secret)?;
    let ca = world.layout().root().join("ca.pem");
    fs::write(&ca, certificates.ca_pem)?;
    Ok(ca)
}

/// The agent's log outlives the world when somebody will want to read it.
fn keep_logs(logs: &std::path::Path) {
    let kept = std::env::temp_dir().join(format!("fairlead-logs-{}", std::process::id()));
    let said = match fs::rename(logs, &kept) {
        Ok(()) => format!("the agent's log: {}/agent.log\n", kept.display()),
        Err(error) => format!("the agent's log is lost: {error}\n"),
    };
    drop(crate::exit::print(&said));
}

fn look_around(demo: &Demo) {
    let program = demo.world.program().display();
    let root = demo.world.layout().root().display();
    let enter = format!("{program} world enter --world {root}");
    let say = |text: &str| demo.screen.say(text);
    say("\nIt stays until Ctrl-C. In another terminal, as root:");
    say(&format!("  {enter} node -- bash                       # a shell on the node"));
    say(&format!("  {enter} node -- curl localhost:30080       # its NodePort"));
    say(&format!("  {enter} {PROBE} -- curl http://hello          # by name, from a pod"));
    say(&format!("  {enter} client -- curl http://192.168.77.2:30080"));
    say(&format!("  {root}/manifests holds the objects: change one"));
    say(&format!("  {root}/logs/agent.log says what the agent makes of it"));
}
