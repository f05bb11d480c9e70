//! `fairlead agent`: wires source, store and roles together and waits for the signal to end.

mod api;
mod args;
mod dns;
mod followers;
mod health_ports;
mod holder;
mod http;
mod ingress;
mod kube_proxy;
mod live;
mod node_name;
mod pages;
mod process;
mod proxy;
mod publish;
mod role;
mod settings;
mod signals;
mod source;
mod sysctls;

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use fairlead_dns::corefile::Needs;
use fairlead_state::{SourceHealth, store::Snapshots};
use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    pages::Pages,
    role::State,
    settings::{CommandLine, Keeper, Settings},
};
use crate::{doctor, logging, version};

pub(crate) use args::{Args, ConntrackArgs, NamespacedName, ProxyArgs, SocketPrograms};
pub(crate) use holder::{Transport, is_own, of as holder_of};
pub(crate) use http::{Body, Reports, Site, response};

/// Watching, planning and the small servers; DNS and Ingress bring threads of their own.
const CONTROL_THREADS: usize = 2;

/// How long it takes in a cluster until nobody sends new work to a pod that is not ready any more:
/// kubelet, EndpointSlice controller and the nodes' proxies have to learn of it.
const LAMEDUCK_IN_CLUSTER: Duration = Duration::from_secs(5);

/// What every role is given.
#[derive(Clone, Debug)]
struct Shared {
    args: watch::Receiver<Arc<Args>>,
    node_name: fairlead_state::Name,
    snapshots: Snapshots,
    /// What is in them because DNS wants it.
    followed_for_dns: Needs,
    health: watch::Receiver<SourceHealth>,
    /// What the roles show of themselves.
    live: live::Live,
    /// The agent is about to end: nobody should come here any more.
    ending: CancellationToken,
    /// Ends the role, which may take the drain timeout to finish what is open.
    cancel: CancellationToken,
}

impl Shared {
    /// The settings in force.
    fn args(&self) -> Arc<Args> {
        self.args.borrow().clone()
    }
}

/// Runs until told to end.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    refuse_huge_pages();
    let words = CommandLine::of_process();
    let settings = Settings::load(&words, args.admin.config.as_deref())?;
    logging::start(settings.args.admin.log_format, &settings.args.admin.log_level);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("fairlead-control")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(run_all(words, settings));
    // Whatever still blocks a thread now has had its drain timeout.
    runtime.shutdown_background();
    result
}

/// The allocator asks for huge pages, and each small object in a new region then costs 2 MiB: 14 MB for an agent that
/// holds next to nothing.
fn refuse_huge_pages() {
    if let Err(error) = prctl::set_thp_disable(true) {
        tracing::debug!(%error, "memory comes in huge pages");
    }
}

/// A busy node needs a descriptor per connection and per question at an upstream; the soft limit of 1,024 is a relic of
/// select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limit.and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is (ulimit -n)");
    }
}

async fn run_all(words: CommandLine, settings: Settings) -> anyhow::Result<ExitCode> {
    let mut ending = signals::Ending::listen()?;
    let hangup = signals::Hangup::listen()?;
    let args = settings.args.clone();
    let node_name: fairlead_state::Name = node_name::find(args.source.node_name.as_deref())?.into();
    let source_cancel = CancellationToken::new();
    let followed_for_dns = source::for_dns(&args);
    let (mut source, writer) =
        source::start(&args, &node_name, followed_for_dns, source_cancel.clone()).await?;
    tracing::info!(node = %node_name, version = version::VERSION, "agent started");
    tracing::info!("settings: {}", settings.summary());
    settings.kube_proxy.warn();

    if let Some(value) = args.drop_in.oom_score_adj {
        crate::kube_proxy::sysctls::set_oom_score(value);
    }

    let file = Arc::new(settings.kube_proxy.clone());
    let (keeper, followed) = Keeper::new(words, settings);
    tokio::spawn(source_cancel.clone().run_until_cancelled_owned(keeper.run(hangup)));
    if args.roles.proxy() {
        let keep = sysctls::keep(followed.clone());
        tokio::spawn(source_cancel.clone().run_until_cancelled_owned(keep));
    }
    let shared = Shared {
        args: followed,
        node_name,
        snapshots: source.snapshots.clone(),
        followed_for_dns,
        health: source.health.clone(),
        live: live::Live::default(),
        ending: CancellationToken::new(),
        cancel: CancellationToken::new(),
    };
    let small = crate::memory::keep_small(source.snapshots.clone());
    tokio::spawn(source_cancel.clone().run_until_cancelled_owned(small));
    let roles = TaskTracker::new();
    let mut pages = Pages::new(shared.clone(), file);
    let starts = prepare_roles(&shared, &mut pages);
    let states = pages.roles.clone();
    let _socket = match pages::serve(pages, &args, source_cancel.clone()).await {
        Ok(socket) => socket,
        Err(error) => {
            let wanted = states.iter().map(|(name, _)| *name).collect();
            advise(wanted, (&args.proxy).into()).await;
            return Err(error);
        }
    };
    for start in starts {
        start(&roles);
    }
    if let Some(writer) = writer.clone().filter(|_| args.roles.ingress()) {
        roles.spawn(publish::ingress::run(shared.clone(), writer));
    }
    if let Some(writer) = writer.filter(|_| args.roles.proxy() && args.publish.service_events) {
        roles.spawn(publish::services::run(shared.clone(), writer));
    }
    roles.close();

    let signal = tokio::select! {
        signal = ending.next() => signal,
        ended = &mut source.task => {
            ended.context("the source broke down")??;
            "the source's end"
        }
        error = role::none_can_start(&states) => return Err(error),
    };
    end(signal, &shared, &roles, &mut ending).await;
    source_cancel.cancel();
    Ok(ExitCode::SUCCESS)
}

/// Tells whoever asks, serves on until they have learned of it, then finishes what is open.
async fn end(signal: &str, shared: &Shared, roles: &TaskTracker, ending: &mut signals::Ending) {
    shared.ending.cancel();
    let lameduck = lameduck(&shared.args());
    if !lameduck.is_zero() {
        tracing::info!(signal, ?lameduck, "ending: not ready from now on, still serving");
        tokio::select! {
            () = tokio::time::sleep(lameduck) => {}
            signal = ending.next() => return tracing::warn!(signal, "ended at once"),
        }
    }
    tracing::info!(signal, "ending: draining");
    shared.cancel.cancel();
    let patience = Duration::from_secs(shared.args().admin.drain_timeout);
    tokio::select! {
        () = roles.wait() => tracing::info!("ended; Services stay in the kernel"),
        () = tokio::time::sleep(patience) => tracing::warn!(?patience, "ended with work still open"),
        signal = ending.next() => tracing::warn!(signal, "ended at once"),
    }
}

/// How long endpoints and their clients are given to look elsewhere. Services stay in the kernel:
/// for them nobody has to.
fn lameduck(args: &Args) -> Duration {
    if !args.roles.dns() && !args.roles.ingress() {
        return Duration::ZERO;
    }
    let usual = if source::is_in_cluster(args) { LAMEDUCK_IN_CLUSTER } else { Duration::ZERO };
    args.admin.lameduck.map_or(usual, Duration::from_secs)
}

/// Starts a role.
type Start = Box<dyn FnOnce(&TaskTracker) + Send>;

/// The wanted roles; their pages are there before they are.
fn prepare_roles(shared: &Shared, pages: &mut Pages) -> Vec<Start> {
    let mut starts = Vec::new();
    let wanted = shared.args().roles;
    if wanted.proxy() {
        let (shared, view) = (shared.clone(), pages.proxy.clone());
        let face = pages.kube_proxy.clone();
        let traces = Arc::new(proxy::Traces::before(&shared.args().proxy));
        starts.push(prepare("proxy", pages, shared.cancel.clone(), move |state| {
            proxy::run(shared.clone(), state, view.clone(), traces.clone(), face.clone())
        }));
    }
    if wanted.dns() {
        let (shared, view) = (shared.clone(), pages.dns.clone());
        starts.push(prepare("dns", pages, shared.cancel.clone(), move |state| {
            dns::run(shared.clone(), state, view.clone())
        }));
    }
    if wanted.ingress() {
        let (shared, view) = (shared.clone(), pages.ingress.clone());
        starts.push(prepare("ingress", pages, shared.cancel.clone(), move |state| {
            ingress::run(shared.clone(), state, view.clone())
        }));
    }
    starts
}

fn prepare<F, R>(
    name: &'static str,
    pages: &mut Pages,
    cancel: CancellationToken,
    mut role: F,
) -> Start
where
    F: FnMut(watch::Sender<State>) -> R + Send + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (state, seen) = watch::channel(State::default());
    pages.roles.push((name, seen));
    let told = doctor::Told::from(&pages.shared.args().proxy);
    Box::new(move |roles| {
        roles.spawn(async move {
            let mut said = false;
            role::keep(name, &state.clone(), &cancel, role::PAUSES, || {
                let started = role(state.clone());
                let is_first = !std::mem::replace(&mut said, true);
                let told = told.clone();
                async move {
                    let result = started.await;
                    if is_first && result.is_err() {
                        advise(vec![name], told).await;
                    }
                    result
                }
            })
            .await;
        });
    })
}

/// What the doctor finds to be in the way of roles that cannot start; before the error is said.
async fn advise(roles: Vec<&'static str>, told: doctor::Told) {
    let role = roles.join(", ");
    let found = tokio::task::spawn_blocking(move || doctor::advice(&roles, &told)).await;
    for line in found.unwrap_or_default() {
        tracing::warn!(role, "doctor: {line}");
    }
}
