//! `fairlead agent`: wires source, store and roles together and waits for the signal to end.

mod args;
mod dns;
mod http;
mod ingress;
mod node_name;
mod pages;
mod proxy;
mod role;
mod signals;
mod source;

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use fairlead_state::{SourceHealth, store::Snapshots};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{pages::Pages, role::State};
use crate::logging;

pub(crate) use args::Args;

/// Watching, planning and the small servers; DNS and Ingress bring threads of their own.
const CONTROL_THREADS: usize = 2;

/// What every role is given.
#[derive(Clone, Debug)]
struct Shared {
    args: Arc<Args>,
    node_name: Arc<str>,
    snapshots: Snapshots,
    health: watch::Receiver<SourceHealth>,
    /// Ends the role, which may take the drain timeout to finish what is open.
    cancel: CancellationToken,
}

/// Runs until told to end.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    logging::start(args.admin.log_format);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("fairlead-control")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(run_all(Arc::new(args)));
    // Whatever still blocks a thread now has had its drain timeout.
    runtime.shutdown_background();
    result
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

async fn run_all(args: Arc<Args>) -> anyhow::Result<ExitCode> {
    let mut ending = signals::Ending::listen()?;
    let node_name: Arc<str> = node_name::find(args.source.node_name.as_deref())?.into();
    let cancel = CancellationToken::new();
    let source_cancel = CancellationToken::new();
    let mut source = source::start(&args, &node_name, source_cancel.clone()).await?;
    tracing::info!(node = %node_name, version = env!("CARGO_PKG_VERSION"), "agent started");

    let shared = Shared {
        args: args.clone(),
        node_name,
        snapshots: source.snapshots.clone(),
        health: source.health.clone(),
        cancel: cancel.clone(),
    };
    let roles = TaskTracker::new();
    let pages = start_roles(&shared, &roles);
    pages::serve(pages, &args.admin, source_cancel.clone()).await;
    roles.close();

    tokio::select! {
        signal = ending.next() => tracing::info!(signal, "ending: draining"),
        ended = &mut source.task => ended.context("the source broke down")??,
    }
    cancel.cancel();
    let patience = Duration::from_secs(args.admin.drain_timeout);
    tokio::select! {
        () = roles.wait() => tracing::info!("ended; Services stay in the kernel"),
        () = tokio::time::sleep(patience) => tracing::warn!(?patience, "ended with work still open"),
        signal = ending.next() => tracing::warn!(signal, "ended at once"),
    }
    source_cancel.cancel();
    Ok(ExitCode::SUCCESS)
}

fn start_roles(shared: &Shared, roles: &TaskTracker) -> Pages {
    let mut pages = Pages::new(shared.clone());
    let wanted = shared.args.roles;
    if wanted.proxy() {
        let (shared, view) = (shared.clone(), pages.proxy.clone());
        spawn(roles, "proxy", &mut pages, shared.cancel.clone(), move |state| {
            proxy::run(shared.clone(), state, view.clone())
        });
    }
    if wanted.dns() {
        let (shared, view) = (shared.clone(), pages.dns.clone());
        spawn(roles, "dns", &mut pages, shared.cancel.clone(), move |state| {
            dns::run(shared.clone(), state, view.clone())
        });
    }
    if wanted.ingress() {
        let (shared, view) = (shared.clone(), pages.ingress.clone());
        spawn(roles, "ingress", &mut pages, shared.cancel.clone(), move |state| {
            ingress::run(shared.clone(), state, view.clone())
        });
    }
    pages
}

fn spawn<F, R>(
    roles: &TaskTracker,
    name: &'static str,
    pages: &mut Pages,
    cancel: CancellationToken,
    mut role: F,
) where
    F: FnMut(watch::Sender<State>) -> R + Send + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (state, seen) = watch::channel(State::default());
    pages.roles.push((name, seen));
    roles.spawn(async move {
        role::keep(name, &state.clone(), &cancel, role::PAUSES, || role(state.clone())).await;
    });
}
