//! The proxy role: programs loaded, maps brought in sync, then programs attached.

use std::{
    convert::Infallible,
    fmt::Write as _,
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use fairlead_proxy::{
    CIDRS_MAX, Devices, Kernel, KernelOptions, MapSizes, NodePortAddresses, ProxyStatus,
    Synchroniser,
    connections::{Connections, Sweep},
    namespaces, node,
    plan::Rules,
    run::run as keep_in_sync,
    snat_ports,
    stale::Ended,
};
use fairlead_state::{Key, store::Snapshots};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Shared,
    args::{Args, Balancing, ProxyArgs, SocketPrograms},
    followers::Followers,
    health_ports,
    kube_proxy::Face,
    live,
    pages::{Metrics, View},
    role::State,
};
use crate::metrics;

/// Below the BPF file system, where the proxy pins what it loads.
const PINS: &str = "fairlead";
/// Between two searches for sockets whose backend is gone.
const STALE_PAUSE: Duration = Duration::from_millis(500);
/// After a search that broke down.
const STALE_AGAIN: Duration = Duration::from_secs(30);
/// What an agent that cannot look into pods' namespaces leaves undone.
pub(super) const UNSEEN_NAMESPACES: &str = "connected UDP sockets of pods do not end with their endpoint: such a client is \
     silent until it connects anew. To end them the agent needs CAP_SYS_ADMIN, and to see namespaces: in \
     /run/netns (the chart's proxy.podNamespaces=true), or by hostPID";
/// Between two looks whether the programs are still there.
const PINS_PAUSE: Duration = Duration::from_secs(5);
/// Between two searches for connections that are over: no limit of theirs is shorter.
const SWEEP_PAUSE: Duration = Duration::from_secs(30);
/// A pass over the maps that is at work when the role ends has so long: a first one of 50,000 Services takes a tenth of it.
const PASS_MAX: Duration = Duration::from_secs(5);

/// Entries of the connection table, as the last sweep left it.
#[derive(Debug, Default)]
struct Counted {
    settled: AtomicUsize,
    openings: AtomicUsize,
}

/// What a node's proxy has done that no map knows.
#[derive(Debug, Default)]
struct Done {
    connections: Counted,
    sockets: Sockets,
}

/// UDP sockets of gone backends.
#[derive(Debug, Default)]
struct Sockets {
    ended: AtomicUsize,
    /// Namespaces that could not be looked into, though they may be, and sockets that were not ended.
    failures: AtomicUsize,
    /// What waits for another try.
    waiting: AtomicUsize,
}

/// What an agent that never came to work has to take away again: nothing if it found an earlier
/// agent's programs, which serve on.
#[derive(Debug)]
pub(crate) struct Traces {
    bpffs: PathBuf,
    /// There was something before, or Services are served now.
    is_of_use: AtomicBool,
}

impl Traces {
    /// To be called before the first start.
    pub(crate) fn before(args: &ProxyArgs) -> Self {
        let is_of_use = args.bpffs.join(PINS).exists().into();
        Self { bpffs: args.bpffs.clone(), is_of_use }
    }

    fn sweep(&self) {
        if self.is_of_use.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = Kernel::cleanup(&self.bpffs) {
            tracing::warn!("Services: traces of the failed start stay: {error}");
        }
    }
}

/// Balances Services until cancelled; what is in the kernel then stays. A start that fails leaves the
/// node as it was.
pub(crate) async fn run(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
    traces: Arc<Traces>,
    face: Arc<Face>,
) -> anyhow::Result<()> {
    let result = serve(shared, state, view, &traces, face).await;
    if result.is_err() {
        traces.sweep();
    }
    result
}

async fn serve(
    shared: Shared,
    state: watch::Sender<State>,
    view: View,
    traces: &Traces,
    face: Arc<Face>,
) -> anyhow::Result<()> {
    let options = options(&shared.args().proxy)?;
    let places = options.node_port_addresses.clone();
    let opening = tokio::task::spawn_blocking(move || Kernel::open(&options));
    let kernel = Arc::new(opening.await.context("making the maps")??);
    // Most of a start: the maps are filled meanwhile, from which an earlier agent's programs may serve.
    let of_verifier = kernel.clone();
    let verifying = tokio::task::spawn_blocking(move || of_verifier.verify());
    let rules = rules(&shared.args());
    let proxy_name = rules.proxy_name.clone();
    let maps = kernel.maps().inspect_err(|_| kernel.withdraw())?;
    let sync = Synchroniser::new(maps, &shared.node_name).with_rules(rules);
    let (status, mut seen) = watch::channel(ProxyStatus::default());
    let (metered, read, stale_seen) = (kernel.clone(), seen.clone(), seen.clone());
    let done = Arc::new(Done::default());
    let counted = done.clone();
    let metrics: Metrics = Box::new(move |text| {
        write_metrics(text, &metered, &read.borrow(), &counted);
    });
    view.store(Some(Arc::new(metrics)));
    let (node_name, snapshots) = (shared.node_name.clone(), shared.snapshots.clone());
    let followers = Followers::new(kernel.clone(), node_name, snapshots, seen.clone());
    let shown =
        live::Proxy { kernel: kernel.clone(), status: seen.clone(), followers: followers.clone() };
    shared.live.proxy.store(Some(Arc::new(shown)));

    // Whichever part fails first ends the others, and the role is started anew.
    let cancel = shared.cancel.child_token();
    let guard = cancel.clone().drop_guard();
    let mut syncing =
        tokio::spawn(keep_in_sync(sync, shared.snapshots.clone(), status, cancel.clone()));
    let telling = face.clone().follow(shared.snapshots.clone(), seen.clone());
    tokio::spawn(cancel.clone().run_until_cancelled_owned(telling));
    let snapshots = shared.snapshots.clone();
    let name = shared.node_name.clone();
    // Attached before the maps are filled, new programs would send nobody anywhere; those of an
    // earlier agent serve on meanwhile, from maps of their own if the layout has changed.
    let attaching = async {
        let filling = async {
            let first = seen.wait_for(is_served).await;
            log_programmed(&*first.context("synchronising ended")?, &snapshots);
            anyhow::Ok(())
        };
        let verifying = async { Ok(verifying.await.context("loading the programs")??) };
        tokio::try_join!(filling, verifying)?;
        let (to, seen, node_name) = (kernel.clone(), snapshots.clone(), name.clone());
        let attach = move || {
            let known = node::prepare(&to, &seen, &node_name)?;
            anyhow::Ok((known, to.attach()?))
        };
        let (known, attached) = tokio::task::spawn_blocking(attach).await??;
        let (adopted, created) = (attached.adopted, attached.created);
        tracing::info!(adopted, created, "Services: programs attached");
        traces.is_of_use.store(true, Ordering::Relaxed);
        state.send_replace(State::Ready);
        // A balancer that is told "healthy" sends its traffic at once: not before there are programs.
        let untaken = shared.live.untaken.clone();
        let house = health_ports::House::new(face, places, untaken, cancel.clone());
        let health = health_ports::serve(snapshots.clone(), &name, proxy_name, house);
        let following =
            node::follow(kernel.clone(), snapshots.clone(), &name, known, cancel.clone());
        tokio::select! {
            result = following => result?,
            () = health => {}
            never = end_stale_sockets(kernel.clone(), stale_seen, &done.sockets) => match never {},
            result = sweep_connections(kernel.connections()?, &done.connections) => result?,
            result = watch_pins(&kernel) => result?,
        }
        anyhow::Ok(())
    };
    let result = tokio::select! {
        // What ends with it knows less of why.
        biased;
        result = ended(&mut syncing) => result,
        result = attaching => result,
        () = shared.cancel.cancelled() => Ok(()),
    };
    drop(guard);
    finish(&mut syncing, PASS_MAX).await;
    if result.is_err() {
        // It waits for an attaching that nobody awaits any more.
        let given_up = kernel.clone();
        if tokio::task::spawn_blocking(move || given_up.withdraw()).await.is_err() {
            tracing::warn!("Services: what the failed start has pinned may stay");
        }
    }
    view.store(None);
    shared.live.proxy.store(None);
    followers.close();
    result
}

/// After passes that wrote something, ends UDP sockets that are connected to backends of the past; and again by
/// time, what could not be ended then.
async fn end_stale_sockets(
    kernel: Arc<Kernel>,
    mut seen: watch::Receiver<ProxyStatus>,
    count: &Sockets,
) -> Infallible {
    if !namespaces::are_all_seen() {
        tracing::warn!("{UNSEEN_NAMESPACES}");
    }
    let mut passes = 0;
    let mut again_after = None;
    loop {
        // Without a time there is nothing to wait for but passes.
        let newer = newer_passes(&mut seen, passes);
        if let Ok(newer) = tokio::time::timeout(again_after.unwrap_or(Duration::MAX), newer).await {
            passes = newer;
        }
        let kernel = kernel.clone();
        let result = tokio::task::spawn_blocking(move || kernel.end_stale_sockets()).await;
        again_after = match result {
            Ok(Ok(ended)) => count.add(&ended),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "UDP");
                count.failures.fetch_add(1, Ordering::Relaxed);
                Some(STALE_AGAIN)
            }
            Err(_) => Some(STALE_AGAIN),
        };
        // Each round reads every socket that is known: bursts of changes share one.
        tokio::time::sleep(STALE_PAUSE).await;
    }
}

/// How many passes there are, once they are not `passes` any more. Never after the last one: whoever awaits the passes
/// themselves learns how they ended.
async fn newer_passes(seen: &mut watch::Receiver<ProxyStatus>, passes: u64) -> u64 {
    if let Ok(status) = seen.wait_for(|status| status.passes_total != passes).await {
        return status.passes_total;
    }
    pending().await
}

impl Sockets {
    /// Counts and logs; returns when to try again.
    fn add(&self, ended: &Ended) -> Option<Duration> {
        let Ended { sockets, closed_namespaces, refused, waiting, again_after } = *ended;
        // Without the right to enter them it was said once, and is no news.
        let closed_namespaces = if namespaces::are_all_seen() { closed_namespaces } else { 0 };
        let failures = closed_namespaces + refused;
        self.ended.fetch_add(sockets, Ordering::Relaxed);
        self.failures.fetch_add(failures, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
        if sockets > 0 {
            tracing::info!(sockets, "UDP sockets of gone backends ended");
        }
        if failures > 0 {
            tracing::warn!(
                refused,
                closed_namespaces,
                waiting,
                "UDP sockets of gone backends not ended: tried again"
            );
        }
        again_after
    }
}

/// Ends when the programs are gone: the role is then started anew, and attaches them again.
async fn watch_pins(kernel: &Kernel) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(PINS_PAUSE).await;
        anyhow::ensure!(
            kernel.is_in_place(),
            "the programs are gone: somebody unmounted or emptied the BPF file system; they are \
             loaded again"
        );
    }
}

/// Takes connections that are over out of the kernel's table, and counts those that stay.
async fn sweep_connections(table: Connections, count: &Counted) -> anyhow::Result<()> {
    let table = Arc::new(table);
    loop {
        let swept = table.clone();
        let swept = tokio::task::spawn_blocking(move || swept.sweep(Sweep::Over)).await?;
        match swept {
            Ok(swept) => {
                count.settled.store(swept.settled, Ordering::Relaxed);
                let rest = swept.entries - swept.removed - swept.settled;
                count.openings.store(rest, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "connections"),
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}

/// The maps hold all of a snapshot, or as much of it as there is room for.
pub(super) fn is_served(status: &ProxyStatus) -> bool {
    status.revision > 0 && (status.is_current || !status.full.is_empty())
}

fn log_programmed(status: &ProxyStatus, snapshots: &Snapshots) {
    let received = snapshots.borrow().as_ref().and_then(|snapshot| snapshot.received_at());
    let since_received_ms = received.map_or(0.0, |at| at.elapsed().as_secs_f64() * 1000.0);
    let ProxyStatus { services, frontends, backends, .. } = status;
    tracing::info!(services, frontends, backends, since_received_ms, "services programmed");
}

async fn ended<E: std::error::Error + Send + Sync + 'static>(
    task: &mut JoinHandle<Result<(), E>>,
) -> anyhow::Result<()> {
    Ok(task.await.context("a part of the proxy broke down")??)
}

/// Waits for a task that has been told to end: a pass ends what it has begun. Maps that are left half written would stay so
/// until another agent comes, and a pass that goes on would write beside that of the role's next start.
async fn finish<T>(task: &mut JoinHandle<T>, patience: Duration) {
    if !task.is_finished() && tokio::time::timeout(patience, task).await.is_err() {
        tracing::warn!(?patience, "Services: ended amid a pass; the next start completes it");
    }
}

/// What Services are served by.
pub(super) fn rules(args: &Args) -> Rules {
    Rules {
        external_ips: args.proxy.external_ips,
        proxy_name: args.drop_in.proxy_name.as_deref().map(Into::into),
        maglev: args.proxy.load_balancing == Balancing::Maglev,
        maglev_table: args.proxy.maglev_table_size,
    }
}

fn options(args: &ProxyArgs) -> anyhow::Result<KernelOptions> {
    let devices = match args.devices.as_str() {
        "auto" => Devices::Auto,
        list => Devices::List(
            list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        ),
    };
    let words = args.nodeport_addresses.iter().map(String::as_str);
    let node_port_addresses =
        NodePortAddresses::from_words(words).context("--nodeport-addresses")?;
    anyhow::ensure!(
        args.service_cidr.len() <= CIDRS_MAX,
        "--service-cidr: at most {CIDRS_MAX} ranges are taken, not {}",
        args.service_cidr.len()
    );
    let connections = args.connections_max.unwrap_or_default();
    Ok(KernelOptions {
        snat_ports: snat_ports::free(),
        cgroup_root: args.cgroup_root.clone(),
        bpffs: args.bpffs.clone(),
        devices,
        sizes: MapSizes {
            frontends: args.frontends_max,
            backends: args.backends_max,
            maglev: args.maglev_max,
            source_ranges: args.source_ranges_max,
            // A Service has two at least: a port, and every other port.
            counters: args.frontends_max.div_ceil(2),
            bytes: if args.count_bytes { args.frontends_max.div_ceil(2) } else { 0 },
            connections,
            openings: connections.div_ceil(2),
            ..MapSizes::default()
        },
        node_port_addresses,
        service_cidrs: args.service_cidr.clone(),
        masquerade_all: args.masquerade_all,
        node_sockets_only: args.socket_programs == SocketPrograms::Node,
    })
}

fn write_metrics(text: &mut String, kernel: &Kernel, status: &ProxyStatus, done: &Done) {
    let Done { connections, sockets } = done;
    let ProxyStatus { revision, services, behind, capacities, .. } = status;
    metrics::single(text, "fairlead_proxy_revision", revision);
    metrics::single(text, "fairlead_proxy_services", services);
    metrics::single(text, "fairlead_proxy_services_behind", behind);
    metrics::single(text, "fairlead_pod_namespaces_open", u8::from(namespaces::are_all_seen()));
    for (name, count) in [
        ("fairlead_udp_sockets_ended_total", &sockets.ended),
        ("fairlead_udp_sockets_failures_total", &sockets.failures),
        ("fairlead_udp_sockets_waiting", &sockets.waiting),
    ] {
        metrics::single(text, name, count.load(Ordering::Relaxed));
    }
    let last = status.counters_last.unwrap_or(u32::MAX);
    let (Ok(drops), Ok(counted)) = (kernel.drops(), kernel.services(last)) else { return };
    let refusals = counted.values().map(|service| service.refused.len()).sum();
    let max = |entries: u32| usize::try_from(entries).unwrap_or(usize::MAX);
    let sizes = kernel.sizes();
    let maps = [
        ("frontends", status.frontends, capacities.frontends),
        ("backends", status.backends, capacities.backends),
        ("maglev", status.maglev, capacities.maglev),
        ("source-ranges", status.source_ranges, capacities.source_ranges),
        ("counters", status.counter_owners.len(), capacities.counters),
        ("refusals", refusals, max(sizes.refusals)),
        ("connections", connections.settled.load(Ordering::Relaxed), max(sizes.connections)),
        ("openings", connections.openings.load(Ordering::Relaxed), max(sizes.openings)),
    ];
    // Writing to a String cannot fail.
    metrics::head(text, "fairlead_map_entries");
    for (map, entries, _) in maps {
        let _ = writeln!(text, "fairlead_map_entries{{map=\"{map}\"}} {entries}");
    }
    metrics::head(text, "fairlead_map_entries_max");
    for (map, _, max) in maps {
        let _ = writeln!(text, "fairlead_map_entries_max{{map=\"{map}\"}} {max}");
    }
    metrics::head(text, "fairlead_packets_unserved_total");
    for (reason, count) in &drops {
        let reason = reason.as_str();
        let _ = writeln!(text, "fairlead_packets_unserved_total{{reason=\"{reason}\"}} {count}");
    }
    let owned =
        || status.counter_owners.iter().filter_map(|(id, key)| Some((key, counted.get(id)?)));
    metrics::head(text, "fairlead_service_connections_total");
    for (Key { namespace, name }, counters) in owned() {
        let _ = writeln!(
            text,
            "fairlead_service_connections_total{{namespace=\"{namespace}\",service=\"{name}\"}} {}",
            counters.selected
        );
    }
    metrics::head(text, "fairlead_service_rejected_total");
    for (Key { namespace, name }, counters) in owned() {
        for (reason, count) in &counters.refused {
            let reason = reason.as_str();
            let _ = writeln!(
                text,
                "fairlead_service_rejected_total{{namespace=\"{namespace}\",service=\"{name}\",\
                 reason=\"{reason}\"}} {count}"
            );
        }
    }
    if kernel.sizes().bytes > 0 {
        let bytes = || owned().map(|(key, counters)| (key, counters.bytes));
        write_bytes(
            text,
            "fairlead_service_packet_bytes_total",
            bytes().map(|(key, b)| (key, [b.packets_to, b.packets_from])),
        );
        write_bytes(
            text,
            "fairlead_service_socket_bytes_total",
            bytes().map(|(key, b)| (key, [b.sockets_to, b.sockets_from])),
        );
    }
}

/// What passed towards Services and back; nothing of those of which nothing did.
fn write_bytes<'a>(
    text: &mut String,
    metric: &str,
    bytes: impl Iterator<Item = (&'a Key, [u64; 2])>,
) {
    metrics::head(text, metric);
    for (Key { namespace, name }, both) in bytes.filter(|(_, both)| *both != [0; 2]) {
        for (direction, count) in ["to_service", "from_service"].into_iter().zip(both) {
            let _ = writeln!(
                text,
                "{metric}{{namespace=\"{namespace}\",service=\"{name}\",\
                 direction=\"{direction}\"}} {count}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::mpsc,
    };

    use fairlead_proxy::{
        delta::Step,
        maps::{Capacities, Entry, MapError, Maps, ServiceCounts, memory::MemoryMaps},
    };
    use fairlead_state::Snapshot;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Maps by which the first pass breaks down.
    struct Broken(MemoryMaps);

    impl Maps for Broken {
        fn each(&self, _: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
            panic!("a defect")
        }

        fn apply(&mut self, step: &Step) -> Result<(), MapError> {
            self.0.apply(step)
        }

        fn capacities(&self) -> Capacities {
            self.0.capacities()
        }

        fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
            self.0.counters()
        }

        fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
            self.0.named_by_connections()
        }
    }

    /// The role was over for good, and said that the agent ends: its other parts saw the passes' end first, by chance.
    #[tokio::test]
    async fn a_pass_that_breaks_down_is_an_error_by_which_the_role_begins_anew() {
        for _ in 0..20 {
            let (_publisher, snapshots) = watch::channel(Some(Arc::new(Snapshot::default())));
            let (status, mut seen) = watch::channel(ProxyStatus::default());
            let sync = Synchroniser::new(Broken(MemoryMaps::default()), "node-a");
            let running = keep_in_sync(sync, snapshots, status, CancellationToken::new());
            let mut syncing = tokio::spawn(running);
            let result = tokio::select! {
                result = ended(&mut syncing) => result,
                _ = newer_passes(&mut seen, 0) => Ok(()),
            };
            let error = crate::exit::one_line(&result.unwrap_err());
            assert!(error.contains("the pass over the maps broke down"), "{error}");
        }
    }

    /// The agent ended at once, with maps half written, or began anew while the earlier pass still wrote.
    #[tokio::test]
    async fn a_role_that_ends_amid_a_pass_waits_for_its_last_write() {
        let written = Arc::new(AtomicUsize::new(0));
        let (go_on, told) = mpsc::channel::<()>();
        let cancel = CancellationToken::new();
        let (count, ends) = (written.clone(), cancel.clone());
        let mut pass = tokio::spawn(async move {
            let writing = tokio::task::spawn_blocking(move || {
                for _ in 0..10 {
                    told.recv().unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            writing.await.unwrap();
            ends.cancelled().await;
        });
        go_on.send(()).unwrap();
        cancel.cancel();
        let rest = async { (1..10).for_each(|_| go_on.send(()).unwrap()) };
        tokio::join!(finish(&mut pass, PASS_MAX), rest);
        assert_eq!(written.load(Ordering::Relaxed), 10);
        // As of one that ended the role by an error of its own.
        finish(&mut pass, PASS_MAX).await;
    }

    #[tokio::test]
    async fn a_pass_that_never_ends_holds_up_no_end() {
        let mut pass = tokio::spawn(std::future::pending::<()>());
        finish(&mut pass, Duration::from_millis(1)).await;
        assert!(!pass.is_finished());
        pass.abort();
    }
}
